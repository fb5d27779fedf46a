"""A file of JSON lines that grows while a job runs, and that the same job continues after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qpeft.errors import OutputError
from qpeft.runs.files import disk_errors, write_atomically


class GrowingFile:
    """Lines of JSON, of which those that are in the file are whole.

    Beside the file stands `FILE.job.json`, which says what job the lines are of.

    Args:
        path: the file; neither it nor the job's need exist.
        job: what the lines depend on. Lines of another job are not continued.
        total: lines that the job will have made.

    Raises: OutputError if the file is of another job, of none, damaged, or cannot be written; it is then unchanged.
    """

    def __init__(self, path: Path, job: Mapping[str, Any], *, total: int) -> None:
        self.path = path
        self._job_path = path.with_name(path.name + ".job.json")
        with disk_errors(path.parent):
            data = path.read_bytes() if path.exists() else b""
        if data:
            self._require_job(job)
        self.num_lines = self._count(data, total)
        if not data:
            write_atomically(self._job_path, json.dumps(job, indent=2, ensure_ascii=False) + "\n")
        with disk_errors(path.parent), path.open("ab"):
            # A line without an end was being written when the job was interrupted.
            os.truncate(path, data.rfind(b"\n") + 1)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows as lines. Raises: OutputError if the disk refuses; the next start drops what is not whole."""
        lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
        with disk_errors(self.path.parent), self.path.open("ab") as file:
            file.write("".join(lines).encode())
        self.num_lines += len(lines)

    def _require_job(self, job: Mapping[str, Any]) -> None:
        try:
            stored = json.loads(self._job_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise OutputError(
                f"{self.path} exists, and no {self._job_path.name} beside it says what it is. Choose another file."
            ) from error
        except (OSError, ValueError) as error:
            raise OutputError(f"{self._job_path} cannot be read: {error}. Choose another file.") from error
        wanted = json.loads(json.dumps(job))
        found = stored if isinstance(stored, dict) else {}
        differing = [name for name in wanted | found if wanted.get(name) != found.get(name)]
        if differing:
            raise OutputError(
                f"{self.path} was begun with another {', '.join(differing)} ({self._job_path.name} says which). "
                "Continue with the same, or choose another file."
            )

    def _count(self, data: bytes, total: int) -> int:
        lines = data.split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1):
            _require_json(line, f"{self.path}:{number}")
        if len(lines) > total:
            raise OutputError(
                f"{self.path} has {len(lines)} lines, more than the {total} of this job. Choose another file."
            )
        return len(lines)


def _require_json(line: bytes, place: str) -> None:
    try:
        json.loads(line)
    except ValueError as error:
        raise OutputError(f"{place} is damaged: {error}. Choose another file.") from error
