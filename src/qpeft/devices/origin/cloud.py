"""Questions to Origin's cloud by way of the worker, answers in plain values, and our errors for what goes wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qpeft.devices.origin.account import DEFAULT_URL, WAYS, checked_url, find_key
from qpeft.devices.origin.chip import Chip, chip_from
from qpeft.devices.origin.process import WorkerError, WorkerProcess
from qpeft.errors import CredentialsError, DeviceError, RefusedError

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before a question that has no effect is asked again; the client itself asks three times within 2 s."""


@dataclass
class Cloud:
    """One address and one key. Safe to share between threads, and usable after a fork.

    Attributes:
        url: checked.
        seconds_per_answer: after which the worker is given up; the client gives up a request after 60 s, and asks
            three times.
    """

    url: str
    seconds_per_answer: float
    _worker: WorkerProcess | None = None
    _pid: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def chips(self) -> dict[str, bool]:
        """Return name to whether it is online, simulators of the cloud included."""
        found: dict[str, bool] = self._read("chips", {})
        return found

    def chip(self, name: str) -> dict[str, Any]:
        """Return what the cloud says of a chip, as `Client.chip` has it."""
        found: dict[str, Any] = self._read("chip", {"name": name})
        return found

    def detail(self, job: str) -> dict[str, Any]:
        """Return the raw reply about a job, also if the cloud refuses to give it."""
        found: dict[str, Any] = self._read("detail", {"job": job})
        return found

    def cancel(self, job: str) -> bool:
        """Whether the cloud accepted that a job be stopped."""
        accepted: bool = self._read("cancel", {"job": job})
        return accepted

    def submit(self, arguments: Mapping[str, Any], hand_over: Callable[[int, float], Path | None]) -> str:
        """Send a job, once.

        Args:
            arguments: of `Client.submit`, but for the note.
            hand_over: is told id and start time of the worker before it gets the job, and says where its note is.

        Returns: the id.
        Raises: RefusedError or CredentialsError if it is certain that there is no job; else DeviceError.
        """
        # No second try here, whatever goes wrong: the cloud may have taken the job, and would run and charge another.
        with self._lock, self._given_up_on_errors():
            worker = self._running()
            note = hand_over(worker.pid, worker.started)
            answer = worker.ask("submit", {**arguments, "note": note and str(note)}, self.seconds_per_answer)
        outcome = self._value(answer)
        if outcome["kind"]:
            raise self._error(outcome["kind"], outcome["why"], is_submission=True)
        return str(outcome["job"])

    def close(self) -> None:
        """End the worker after what it does; the next question starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
            self._worker = None

    def _read(self, action: str, arguments: Mapping[str, Any]) -> Any:
        """Return the answer to a question that may be asked again: twice does no more than once, and costs nothing."""
        for pause in (*PAUSES, None):
            try:
                with self._lock, self._given_up_on_errors():
                    answer = self._running().ask(action, arguments, self.seconds_per_answer)
            except WorkerError:
                if pause is None:
                    raise
            else:
                # A refusal stays one, however often it is asked for; a lost answer may come the next time.
                if pause is None or answer.get("error") not in ("unclear", "unreachable"):
                    return self._value(answer)
            time.sleep(pause)
        raise AssertionError("the last round returns or raises")

    @contextmanager
    def _given_up_on_errors(self) -> Iterator[None]:
        """Ends a worker that is dead, late or interrupted: it must not be asked again, and its notes are final then."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _running(self) -> WorkerProcess:
        """Raise CredentialsError if there is no key; WorkerError if no process can be started."""
        if self._worker is not None and self._pid == os.getpid() and self._worker.has_ended:
            self.close()  # killed while nobody asked it; a submission must not be handed to it
        # After a fork the worker belongs to the parent, and two askers would read each other's answers.
        if self._worker is None or self._pid != os.getpid():
            try:
                self._worker, self._pid = WorkerProcess(find_key(self.url), self.url), os.getpid()
            except OSError as error:
                raise WorkerError(f"The process that talks to Origin's cloud cannot be started: {error}.") from error
        return self._worker

    def _value(self, answer: dict[str, Any]) -> Any:
        if "error" in answer:
            raise self._error(answer["error"], answer["message"], is_submission=False)
        return answer["answer"]

    def _error(self, kind: str, message: str, *, is_submission: bool) -> DeviceError:
        said = message.rstrip(" .") or "nothing"
        # A RefusedError says that there is no job; an error of a question says nothing of the jobs that there are.
        certain = RefusedError if is_submission else DeviceError
        match kind:
            case "missing":
                return certain(f"Origin's client cannot be used, `pip install 'qpeft[origin]'` installs it: {said}")
            case "credentials":
                return CredentialsError(f"Origin's cloud at {self.url} refuses the key: {said}. {WAYS}")
            case "refused":
                return certain(f"Origin's cloud refuses: {said}.")
            case "unreachable":
                so = ", so nothing was sent" if is_submission else ""
                return certain(f"Origin's cloud cannot be reached at {self.url}{so}: {said}.")
        if is_submission:
            return DeviceError(
                f"Whether Origin's cloud at {self.url} took the job is not known; its answer, as the client words it: "
                f"{said}."
            )
        return DeviceError(f"Origin's cloud at {self.url} does not answer as it should: {said}.")


# The chips that a key can see, whichever of them is to be used.


SIMULATORS = {"full_amplitude", "partial_amplitude", "single_amplitude"}
"""Names that the client adds to every listing."""
OTHER_NAMES = {"72": "origin_wukong"}
"""Names of a chip that the vendor's client and documents use for what the cloud lists, and the reverse: the client
sends 72 for origin_wukong. Either may be written, whichever is listed."""
SECONDS_PER_ANSWER = 240.0
"""Longer than the client's own three tries of 60 s."""


@dataclass(frozen=True)
class ListedChip:
    """One chip: its name, whether it takes jobs, and what is known of it, None if it is offline."""

    name: str
    is_online: bool
    chip: Chip | None


def list_chips(url: str = DEFAULT_URL) -> list[ListedChip]:
    """Return every chip of the cloud by name. Raises: CredentialsError or DeviceError if the cloud does not tell."""
    cloud = Cloud(checked_url(url), SECONDS_PER_ANSWER)
    try:
        return [
            ListedChip(name, is_online, chip_from(cloud.chip(name)) if is_online else None)
            for name, is_online in sorted(chips_of(cloud).items())
        ]
    finally:
        cloud.close()


def chips_of(cloud: Cloud) -> dict[str, bool]:
    """Return the name of every chip to whether it is online."""
    return {name: is_online for name, is_online in cloud.chips().items() if name not in SIMULATORS}


def listed_as(name: str, chips: Collection[str]) -> str | None:
    """Under which name a cloud that lists these chips has the one that the user means; None if it has none."""
    same = {name, OTHER_NAMES.get(name), *(listed for listed, other in OTHER_NAMES.items() if other == name)}
    return name if name in chips else next((one for one in chips if one in same), None)


def written(name: str) -> str:
    """Return a name as it is listed, with the other one that may be written for it."""
    others = [OTHER_NAMES.get(name), *(listed for listed, other in OTHER_NAMES.items() if other == name)]
    other = next((one for one in others if one), None)
    return f"{name} (or {other})" if other else name
