"""Files that are whole or absent, since they are renamed into place, and files that grow by whole lines."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from qpeft.errors import OutputError

_TORCH_WRITE_ERRORS = ("PytorchStreamWriter", "inline_container", "iostream error")
"""How torch words a failed write: it raises a RuntimeError about its own writer."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise when a disk is full or read-only into one OutputError that names the folder."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(mark in str(error) for mark in _TORCH_WRITE_ERRORS):
            raise
        # An OSError says the reason in words; safetensors and torch say only what they were doing.
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        vague = f"writing failed, as it does when the disk is full ({first_line})"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else vague
        raise OutputError(f"Cannot write to {folder}: {reason}. What was there before is unchanged.") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name beside it, then rename it. Raises: OutputError if it cannot be written."""
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(path.parent):
        temporary = _beside(path)
        try:
            with temporary.open("xb") as file:
                file.write(data)
            os.replace(temporary, path)
        # Also at Ctrl-C, which is not an Exception.
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a new folder that takes the name `folder` when the block ends well, and vanishes when it does not.

    Raises: OutputError if the disk refuses.
    """
    with disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(folder)
        temporary.mkdir()
        try:
            yield temporary
            follow_folder(temporary)
            # A folder cannot be renamed onto one that holds files, unlike a file onto a file.
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _beside(path: Path) -> Path:
    """Return a name that nothing has."""
    # Not one of `tempfile`, whose files and folders are private, whatever the user wants.
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def follow_folder(folder: Path) -> None:
    """Give all that is in a new folder the permissions of the folder: some libraries make their files private."""
    # Not by the umask: to read it is to set it, for an instant, for the files of all other threads too.
    mode = stat.S_IMODE(folder.stat().st_mode)
    for one in folder.rglob("*"):
        if not one.is_symlink():
            one.chmod(mode if one.is_dir() else mode & 0o666)


@contextmanager
def used_alone(folder: Path) -> Iterator[None]:
    """Keep other processes of this user on this machine from writing to a folder, which need not exist.

    Raises: OutputError if one does.
    """
    # The lock lies elsewhere: the folder may have to be empty, or be removed.
    name = hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:24]
    # Not by name: in a container, a user may have none.
    user = getpass.getuser() if sys.platform == "win32" else os.getuid()
    lock = FileLock(Path(tempfile.gettempdir()) / f"qpeft-{user}-{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"Another process is writing to {folder}. Wait for it or end it, or write to another place."
        ) from error
    try:
        yield
    finally:
        lock.release()


def require_empty_folder(folder: Path) -> None:
    """Raise OutputError if the folder holds anything or is a file. It need not exist; nothing is changed."""
    with disk_errors(folder):
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return
        what = "is not empty" if folder.is_dir() else "is a file" if folder.exists() else "is a link to nothing"
    raise OutputError(
        f"The output folder {folder} {what}. Choose another with --output.folder, or continue the run in it "
        "with --resume. Nothing was changed."
    )


def make_folder(folder: Path) -> None:
    """Make the folder and its parents if need be. Raises: OutputError if the disk refuses."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()


class GrowingFile:
    """Lines of JSON that a job appends, and that the same job continues after an interruption.

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
            try:
                stored = json.loads(self._job_path.read_text(encoding="utf-8"))
            except FileNotFoundError as error:
                raise OutputError(
                    f"{self.path} exists, and no {self._job_path.name} beside it says what it is. Choose another file."
                ) from error
            except (OSError, ValueError) as error:
                raise OutputError(f"{self._job_path} cannot be read: {error}. Choose another file.") from error
            # Through JSON and back, as the stored one went: tuples are lists there, and numbers as keys are texts.
            wanted = json.loads(json.dumps(job))
            found = stored if isinstance(stored, dict) else {}
            differing = [name for name in wanted | found if wanted.get(name) != found.get(name)]
            if differing:
                raise OutputError(
                    f"{self.path} was begun with another {', '.join(differing)} ({self._job_path.name} says which). "
                    "Continue with the same, or choose another file."
                )
        lines = data.split(b"\n")[:-1]
        number = 0
        try:
            for number, line in enumerate(lines, start=1):  # noqa: B007
                json.loads(line)
        except ValueError as error:
            raise OutputError(f"{path}:{number} is damaged: {error}. Choose another file.") from error
        if len(lines) > total:
            raise OutputError(f"{path} has {len(lines)} lines, more than the {total} of this job. Choose another file.")
        self.num_lines = len(lines)
        # The job's file comes first: lines without it could not be continued.
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
