"""How far long work is: bars with the time left on a terminal, and a line now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how many parts of it are done, and of how many; 0 where nobody knows."""

FIRST_LINE, BETWEEN_LINES = 10.0, 60.0
"""Seconds of work after which a first and a further line are worth it where no bar can be."""


def to_nobody(what: str, done: int, total: int) -> None:
    """Say nothing: an `OnProgress` for callers that show nothing.

    Args:
        what: is being done.
        done: parts of it so far.
        total: parts of it in all; 0 where nobody knows.
    """


class Bars:
    """An `OnProgress` that shows what it is told, in a `with` block; nothing of a bar stays behind.

    A bar that is not full stays above those of what is done meanwhile, as a training's does above its evaluations'.

    Args:
        console: where it goes. What else is printed while bars stand must go through the same one.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._has_bars = console, console.is_terminal and not console.quiet
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._has_bars,
            speed_estimate_period=600,  # by the usual 30 seconds, slow steps never have a speed
        )
        self._tasks: dict[str, TaskID] = {}
        self._what, self._first, self._start, self._next_line = "", 0, 0.0, 0.0

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._has_bars:
            if what not in self._tasks:
                self._tasks[what] = self._progress.add_task(what, total=total or None)
            current = self._tasks[what]
            for task in self._progress.tasks:
                if task.id == current and task.finished and done < total:
                    self._progress.reset(current, total=total)  # the next one of its kind
                elif task.id != current and (task.finished or task.total is None):
                    self._progress.update(task.id, visible=False)
            self._progress.update(current, completed=done, total=total or None, visible=True)
        elif not self._console.quiet:
            now = time.monotonic()
            if what != self._what or done < self._first:
                self._what, self._first, self._start, self._next_line = what, done, now, now + FIRST_LINE
            if now < self._next_line or (total and done >= total):
                return
            self._next_line = now + BETWEEN_LINES
            line = f"{what}: {done:,} of {total:,}" if total else what
            # Counted from where this process began: a resumed job's first parts took it no time.
            if total and done > self._first:
                left = (now - self._start) / (done - self._first) * (total - done)
                line += f", about {timedelta(seconds=round(left))} left"
            self._console.print(line)

    def of(self, whom: str) -> OnProgress:
        """Return the same, with whose work it is before what is done."""
        return lambda what, done, total: self(f"{whom}: {what}", done, total)
