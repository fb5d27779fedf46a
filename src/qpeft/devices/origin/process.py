"""The worker process as seen from here: started at need, asked one thing at a time, never waited for without an end."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]

from qpeft.devices.origin import worker
from qpeft.devices.origin.account import VARIABLE, Secret
from qpeft.devices.secrets import is_loopback
from qpeft.errors import DeviceError

SECONDS_TO_END = 2.0
_left_alone: list[subprocess.Popen[str]] = []
"""Workers that nobody waits for any more; kept until they have ended."""


class WorkerError(DeviceError):
    """A worker that died, could not be started or gave no answer; whether its question had an effect is not known."""


class WorkerProcess:
    """One worker with one key. It ends after what it was told last when it is closed, forgotten or its parent dies.

    Args:
        key: goes to it by its standard input alone.
        url: of the cloud.
    """

    def __init__(self, key: Secret, url: str) -> None:
        self._key = key
        # The client drops a log into its working directory, so it gets one of its own.
        self._folder = Path(tempfile.mkdtemp(prefix="qpeft-origin-"))
        # The key must not be in the environment, which any process of this user can read. A proxy would see it in the
        # clear on its way to a cloud on this machine.
        hidden = {VARIABLE.lower()} | ({"http_proxy", "all_proxy"} if is_loopback(url) else set())
        kept = {name: text for name, text in os.environ.items() if name.lower() not in hidden and text != key.reveal()}
        with (self._folder / "errors").open("w") as errors:
            # A session of its own: Ctrl-C on the terminal is for us, and must not end it in the middle of a submission.
            self._process = subprocess.Popen(
                [sys.executable, worker.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self._folder,
                env={**kept, "OMP_NUM_THREADS": "1"},
                text=True,
                start_new_session=True,
            )
        self.pid, self._number = self._process.pid, 0
        self.started = psutil.Process(self.pid).create_time()
        self._questions: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=_write, args=(self._process.stdin, self._questions), daemon=True).start()
        threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True).start()
        # A finalizer and not __del__: it also runs at the end of the program, while modules are still there.
        self.close = weakref.finalize(self, _end, self._process, self._questions, self._folder, os.getpid())
        self._questions.put(json.dumps({"key": key.reveal(), "url": url}) + "\n")

    def ask(self, action: str, arguments: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Return what the worker answers: under "answer", or under "error" and "message".

        Args:
            action: what the worker is to do.
            arguments: of it, as JSON has them.
            seconds: that it may take.

        Raises: WorkerError if it dies or gives no answer in time; it is of no use afterwards.
        """
        self._number += 1
        self._questions.put(json.dumps({"number": self._number, "do": action, "with": dict(arguments)}) + "\n")
        deadline = time.monotonic() + seconds
        try:
            # An answer to an earlier question, which was given up, may still stand before this one.
            while (answer := self._answers.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
                if answer["number"] == self._number:
                    return answer
        except queue.Empty:
            raise WorkerError(
                f"The worker process that talks to Origin's cloud gave no answer to {action!r} in {seconds:g} seconds. "
                "Whether it had an effect is not known; the next call starts another worker."
            ) from None
        last_words = ""
        with suppress(subprocess.TimeoutExpired):  # it has closed its output, and may take a moment to end
            code, errors = self._process.wait(SECONDS_TO_END), self._folder / "errors"
            said = self._key.redact(errors.read_text(errors="replace")).strip() if errors.exists() else ""
            last_words = f" (exit code {code})" + (f": {said[-500:]}" if said else "")
        raise WorkerError(f"The worker process that talks to Origin's cloud died during {action!r}{last_words}.")

    @property
    def has_ended(self) -> bool:
        """Whether it died since it was last asked."""
        return self._process.poll() is not None


def _write(pipe: IO[str], questions: queue.SimpleQueue[str | None]) -> None:
    """Write questions to the worker; in a thread, since a pipe that nobody reads blocks its writer."""
    try:
        with pipe:
            while (line := questions.get()) is not None:
                pipe.write(line)
                pipe.flush()
    except OSError:
        return  # it died; the reader says so


def _read(pipe: IO[str], answers: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    with pipe:
        for line in pipe:
            answers.put(json.loads(line))
    answers.put(None)


def _end(process: subprocess.Popen[str], questions: queue.SimpleQueue[str | None], folder: Path, parent: int) -> None:
    """Let it finish what it does; do not wait long."""
    if os.getpid() != parent:  # a fork of the process that started it
        return
    questions.put(None)
    try:
        process.wait(SECONDS_TO_END)
        shutil.rmtree(folder, ignore_errors=True)
    except subprocess.TimeoutExpired:
        _left_alone.append(process)
    _left_alone[:] = [one for one in _left_alone if one.poll() is None]
