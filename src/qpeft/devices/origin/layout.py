"""Which circuits the programs of a job hold, in a few characters of the job's id, so that any process can read results.

An id is "<task>@<layout>": "9A3F@4x200" is the task 9A3F with 200 programs of one circuit on 4 qubits each, and in
"9A3F@8:5x40,8:2x1" 40 programs hold 5 circuits on 8 qubits each, side by side, and one holds 2.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from qpeft.errors import JobError

_GROUP = re.compile(r"([1-9]\d{0,3})(?::([1-9]\d{0,3}))?x([1-9]\d{0,3})")


@dataclass(frozen=True)
class Contents:
    """One program: circuits of equal size, circuit k measured into bits k num_qubits and following."""

    num_qubits: int
    num_circuits: int = 1

    @property
    def num_bits(self) -> int:
        """Classical bits of the program."""
        return self.num_qubits * self.num_circuits


def suffix_of(programs: Iterable[Contents]) -> str:
    """What is put behind the task's own id."""
    groups = ((contents, sum(1 for _ in group)) for contents, group in itertools.groupby(programs))
    return "@" + ",".join(
        f"{one.num_qubits}x{count}" if one.num_circuits == 1 else f"{one.num_qubits}:{one.num_circuits}x{count}"
        for one, count in groups
    )


def split_id(job_id: str) -> tuple[str, list[Contents] | None]:
    """Task and layout; None in place of the layout for an id as the cloud itself shows it.

    Raises: JobError if there is no id, or its layout is none.
    """
    task, mark, layout = job_id.rpartition("@") if "@" in job_id else (job_id, "", "")
    if not task:
        raise JobError(f"origin has no job {job_id!r}; its ids are those of the cloud, with @ and a layout behind.")
    if not mark:
        return task, None
    programs: list[Contents] = []
    for text in layout.split(","):
        match = _GROUP.fullmatch(text)
        if match is None:
            raise JobError(f"origin has no job {job_id!r}: {text!r} is no layout of circuits, as 4x200 is.")
        programs += [Contents(int(match[1]), int(match[2] or 1))] * int(match[3])
    return task, programs
