"""Verdicts of a judge, in a file that grows with each: what has been judged is not paid for again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qpeft.data import Message
from qpeft.errors import OutputError
from qpeft.evaluation.judge import Judge
from qpeft.evaluation.tasks.cpsycoune import LARGEST, MalformedVerdictError, read_verdict, request
from qpeft.runs.files import disk_errors

REPLIES = 3
"""Times that a judge is asked for one verdict, if what it says is none."""


@dataclass(frozen=True)
class Verdict:
    """Marks by criterion; None if the judge gave none, for `problem`."""

    marks: Mapping[str, int] | None
    problem: str | None = None


class VerdictFile:
    """Verdicts by all that they depend on: judge, request and reply. Order and run do not matter.

    Raises: OutputError if the file is damaged or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path.parent):
            data = path.read_bytes() if path.exists() else b""
            if not data.endswith(b"\n") and data:
                # A line without an end was being written when the evaluation was interrupted.
                os.truncate(path, data.rfind(b"\n") + 1)
        lines = data.split(b"\n")[:-1]
        self._marks = dict(_stored(line, f"{path}:{number}") for number, line in enumerate(lines, start=1))

    def find(self, key: str) -> dict[str, int] | None:
        """Marks that were given before."""
        return self._marks.get(key)

    def add(self, key: str, marks: Mapping[str, int], reply: str) -> None:
        """Keep marks, and the judge's words. Raises: OutputError if the disk refuses."""
        line = json.dumps({"key": key, "marks": marks, "judge": reply}, ensure_ascii=False) + "\n"
        with disk_errors(self.path.parent), self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._marks[key] = dict(marks)


def _stored(line: bytes, place: str) -> tuple[str, dict[str, int]]:
    try:
        stored = json.loads(line)
        return stored["key"], {name: stored["marks"][name] for name in LARGEST}
    except (ValueError, LookupError, TypeError) as error:
        raise OutputError(f"{place} is damaged: {error}. Move the file away to judge anew.") from error


def judge_reply(judge: Judge, history: Sequence[Message], reply: str, verdicts: VerdictFile) -> Verdict:
    """The verdict on one reply, from the file or from the judge; a judge that gives none leaves a gap, not zeros.

    Raises: TaskError if the judge cannot be asked; OutputError.
    """
    messages = request(history, reply)
    key = hashlib.sha256(json.dumps([judge.url.rstrip("/"), judge.model, messages]).encode()).hexdigest()
    if (marks := verdicts.find(key)) is not None:
        return Verdict(marks)
    problem = ""
    for _ in range(REPLIES):
        said = judge.ask(messages)
        try:
            marks = read_verdict(said)
        except MalformedVerdictError as error:
            problem = f"{error} in {said[:200]!r}"
            continue
        verdicts.add(key, marks, said)
        return Verdict(marks)
    return Verdict(None, problem)
