"""Work on trials, in processes of their own: what one of them breaks, the others do not notice.

A job is described by FOLDER/NAME.job.json; what it finds is in FOLDER/NAME.json, what it said in FOLDER/NAME.log.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qpeft.comparison.trial_work import WORK
from qpeft.errors import QpeftError
from qpeft.runs import make_folder, write_atomically

logger = logging.getLogger(__name__)

FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Job:
    """Something to do once: a function of `WORK` by its name, with arguments that JSON can hold."""

    title: str
    folder: Path
    name: str
    do: str
    arguments: dict[str, Any]

    @property
    def result_file(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    def result(self) -> dict[str, Any] | None:
        """Return what it found; None if it has not run, or failed."""
        stored = self._stored()
        return stored if stored and stored["state"] == FINISHED else None

    def failure(self) -> str | None:
        """Return why it failed, in one line; None if it did not."""
        stored = self._stored()
        return str(stored["error"]) if stored and stored["state"] == FAILED else None

    def fail(self, reason: str) -> None:
        """Note that it ended without a result of its own, and why."""
        self._store({"state": FAILED, "error": reason})

    def run(self) -> None:
        """Do it in this process. Whatever goes wrong becomes its result; the traceback is logged."""
        try:
            found = {"state": FINISHED, **WORK[self.do](**self.arguments)}
        except Exception as error:  # one trial that breaks is a gap in the table, not the end of the study
            logger.exception("%s failed", self.title)
            kind = "" if isinstance(error, QpeftError) else f"{type(error).__name__}: "
            found = {"state": FAILED, "error": kind + " ".join(str(error).split())[:500]}
        self._store(found)

    def run_alone(self, threads: int) -> None:
        """Do it in a process of its own, with this many threads."""
        make_folder(self.folder)
        # For the child, and for whoever wants to run it once more by hand.
        description = {"title": self.title, "name": self.name, "do": self.do, "arguments": self.arguments}
        job_file = self.folder / f"{self.name}.job.json"
        write_atomically(job_file, json.dumps(description, indent=2, ensure_ascii=False) + "\n")
        # The result of an earlier attempt must not be taken for that of this one.
        self.result_file.unlink(missing_ok=True)
        environment = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true", **os.environ}
        with self.log_file.open("wb") as log:
            done = subprocess.run(
                [sys.executable, "-m", "qpeft.comparison.trial_jobs", str(job_file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                check=False,
            )
        # A process that was killed could not write why it ended.
        if self._stored() is None:
            reason = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
            self.fail(f"its process ended with {reason}; see {self.log_file}")

    def _stored(self) -> dict[str, Any] | None:
        if not self.result_file.exists():
            return None
        stored: dict[str, Any] = json.loads(self.result_file.read_text(encoding="utf-8"))
        return stored

    def _store(self, found: dict[str, Any]) -> None:
        make_folder(self.folder)
        write_atomically(self.result_file, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def run_all(jobs: Sequence[Job], *, processes: int | None, on_end: Callable[[Job], None] = lambda _: None) -> None:
    """Run those that have no result yet; a job that failed before is tried again.

    Args:
        jobs: in the order in which they begin.
        processes: how many at the same time; None for this process, one after the other.
        on_end: told of each that has ended, well or not.
    """
    waiting = [job for job in jobs if job.result() is None]
    if processes is None:
        for job in waiting:
            job.run()
            on_end(job)
        return
    # Torch would start a thread for every core in each process.
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ThreadPoolExecutor(processes) as pool:
        running = {pool.submit(job.run_alone, threads=threads): job for job in waiting}
        try:
            for ended in as_completed(running):
                ended.result()
                on_end(running[ended])
        except BaseException:  # an interrupt too: what has begun ends, what waits does not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


if __name__ == "__main__":
    file = Path(sys.argv[1])
    Job(folder=file.parent, **json.loads(file.read_text(encoding="utf-8"))).run()
