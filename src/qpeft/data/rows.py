"""Rows of a data set, files of others or our own, each with its place, and how errors show their values."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from qpeft.errors import DataError

PREFIX = "package:"
FOLDER = Path(__file__).parent / "packaged"
PACKAGED = {
    "word_problems": "200 word problems with their equations and answers; by examples/demo/packaged_problems.py"
}
"""What each data set that comes with qpeft is, by its name."""

MAX_NAMES = 12
MAX_CHARACTERS = 60
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_LINE = 32 * 2**20
"""Bytes of the longest line that is taken for a row; a longer one is a file of another kind, and would fill memory."""


def kind(value: object) -> str:
    """Name a value as JSON does: "null", "true or false", "a number", "text", "a list", "an empty list", "an object".

    A type that JSON does not have gives its Python name.
    """
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    # In Python a bool is an int too.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    names = {type(None): "null", bool: "true or false", str: "text", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def quote(value: object) -> str:
    """Return text in quotes, cut to `MAX_CHARACTERS`; for anything else, its `kind`."""
    if not isinstance(value, str):
        return kind(value)
    return repr(value if len(value) <= MAX_CHARACTERS else value[:MAX_CHARACTERS] + "...")


def listed(values: Iterable[object]) -> str:
    """Return quoted values with commas between them, or "none". Long lists and long values are cut."""
    quoted = [quote(value) for value in islice(values, MAX_NAMES + 1)]
    if len(quoted) > MAX_NAMES:
        quoted[-1] = "..."
    return ", ".join(quoted) or "none"


@dataclass(frozen=True)
class Row:
    """One row: its columns, and where it stands, as "file:line" or "name, row n".

    `is_typed`: False for a row of CSV, of which every value is text.
    """

    values: Mapping[str, object]
    source: str
    is_typed: bool = True

    def is_given(self, column: str) -> bool:
        """Whether a column holds something: not null, and in CSV, which has no null, not a blank cell."""
        value = self.values.get(column)
        return value is not None and (self.is_typed or bool(str(value).strip()))

    def structure(self, column: str) -> object:
        """Return the value of a column that holds a list or nothing; a list written as text is read as JSON.

        Raises: DataError for text that begins as a list does but is not JSON, such as Python's with single quotes.
        """
        value = self.values.get(column)
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return _parse_json(value, f"{self.source}: '{column}'", hint=" A list in a cell is written as JSON.")
        return value if value.strip() else None


def read_rows(source: str, *, split: str) -> Iterator[Row]:
    """Yield the rows of a local file, of a data set of ours, or of a split of a Hub dataset, as they are asked for.

    Raises: DataError for a source that does not exist, or a malformed row; it names file and line.
    """
    if not is_local(source):
        name, _, config = source.partition(":")
        problem = "cannot be loaded as a file here or a dataset of the Hub"
        yield from _vendor_rows((name, config or None), {"split": split}, f"{source} ({split})", problem)
        return
    path = _path(source)
    try:
        if path.is_dir():
            files = [entry.name for entry in sorted(path.iterdir()) if entry.suffix.lower() in READERS]
            inside = f" It holds {', '.join(files[:5])}." if files else ""
            raise DataError(f"{path} is a folder; name a data file in it.{inside}")
        if not path.exists():
            # A dangling link is there to be seen, so "does not exist" alone would puzzle.
            if path.is_symlink():
                raise DataError(f"{path} is a link to {path.readlink()}, which does not exist.")
            if not path.parent.is_dir():
                raise DataError(f"{path} does not exist, and neither does its folder.")
            near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()])
            raise DataError(f"{path} does not exist." + (f" Did you mean {' or '.join(near)}?" if near else ""))
        if path.suffix.lower() not in READERS:
            raise DataError(f"{path}: data files end in {', '.join(READERS)}; got '{path.suffix}'.")
        yield from READERS[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from error


def is_local(source: str) -> bool:
    """Whether `source` means a file rather than a dataset of the Hub ("name", "owner/name", "owner/name:config")."""
    path = _path(source)
    looks_like_file = path.suffix.lower() in READERS or source.startswith((".", "~")) or path.is_absolute()
    return looks_like_file or len(path.parts) != 2 or path.exists() or path.is_symlink()


def packaged_file(name: str) -> Path:
    """Return the file of a data set, by its name with or without "package:". Raises: DataError if there is none."""
    plain = name.removeprefix(PREFIX)
    if plain not in PACKAGED:
        near = get_close_matches(plain, PACKAGED)
        hint = (
            f"did you mean {PREFIX}{near[0]}?" if near else f"there are {', '.join(PREFIX + one for one in PACKAGED)}."
        )
        raise DataError(f"No data set {plain!r} comes with qpeft; {hint}")
    return FOLDER / f"{plain}.jsonl"


def local_path(source: str) -> Path:
    """Return where a source would be on this machine, be it a file, a name on the Hub, or a data set of ours."""
    return packaged_file(source) if source.startswith(PREFIX) else Path(source)


def _path(source: str) -> Path:
    if "\0" in source:
        raise DataError(f"{source!r} is no name of a file or data set.")
    return local_path(os.path.expanduser(source))  # Path.expanduser raises for the home of an unknown user


def _json_rows(path: Path) -> Iterator[Row]:
    """Yield rows of JSON lines, or of one array of objects."""
    # The first character tells which, since no line of JSON lines may be an array.
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(BYTE_ORDER_MARK).lstrip()
    if head.startswith(b"["):
        text = "".join(line for _, line in text_lines(path, longest=path.stat().st_size))
        values = _parse_json(text, str(path), hint="")
        assert isinstance(values, list), "text that starts with a bracket is an array or malformed"
        found = ((value, f"{path}, row {number}") for number, value in enumerate(values, start=1))
    else:
        hint = " Every line must be one JSON object."
        places = ((line, f"{path}:{number}") for number, line in text_lines(path) if line.strip())
        found = ((_parse_json(line, source, hint=hint), source) for line, source in places)
    for value, source in found:
        if not isinstance(value, dict):
            raise DataError(f"{source}: a row must be an object; got {kind(value)}.")
        yield Row(value, source)


def _csv_rows(path: Path) -> Iterator[Row]:
    # Python's limit of 131,072 characters a cell is the whole process's, so it is raised and never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
    first, size = 1, 0  # line and characters of the row that is being read

    def lines() -> Iterator[str]:
        nonlocal size
        for _, line in text_lines(path):
            # An open quote makes one row of many lines, so the limit of a line would not stop it.
            size += len(line)
            if size > MAX_LINE:
                raise DataError(
                    f"{path}:{first}: the row that begins here is longer than {MAX_LINE // 2**20} MiB; perhaps a quote "
                    "is opened and never closed."
                )
            yield line

    reader = csv.reader(lines(), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) < len(header):
            raise DataError(f"{path}:1: a column name appears twice in {header}.")
        first, size = reader.line_num + 1, 0
        for cells in reader:
            source, first, size = f"{path}:{reader.line_num}", reader.line_num + 1, 0
            if not cells:
                continue  # a blank line
            if len(cells) != len(header):
                raise DataError(f"{source}: {len(cells)} cells, but the header has {len(header)} columns.")
            yield Row(dict(zip(header, cells, strict=True)), source, is_typed=False)
    except csv.Error as error:
        begun = f" in the row that begins at line {first}" if first < reader.line_num else ""
        raise DataError(f"{path}:{reader.line_num}: malformed CSV{begun}: {error}.") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    options = {"data_files": str(path.absolute()), "split": "train", "streaming": True}
    return _vendor_rows(("parquet",), options, str(path), "is no readable Parquet file")


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _vendor_rows(names: tuple[str | None, ...], options: dict[str, Any], source: str, problem: str) -> Iterator[Row]:
    """Yield the rows that `datasets` loads by these arguments; what it raises becomes one sentence."""
    import numpy as np  # noqa: PLC0415
    from datasets import load_dataset  # noqa: PLC0415  (takes a second to import)
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    try:
        rows = load_dataset(*names, **options)
        kinds = {name: getattr(one, "dtype", None) for name, one in (getattr(rows, "features", None) or {}).items()}
        # Python has 64 bits, with which the 0.1 of 32 bits reads 0.10000000149011612, and would be learned so.
        short = {name: np.dtype(dtype).type for name, dtype in kinds.items() if dtype in ("float16", "float32")}
        for number, values in enumerate(rows, start=1):
            mended = {name: float(str(to(values[name]))) for name, to in short.items() if values[name] is not None}
            yield Row({**values, **mended}, f"{source}, row {number}")
    except (DatasetsError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{source} {problem}: {reason}") from error


def text_lines(path: Path, *, longest: int | None = None) -> Iterator[tuple[int, str]]:
    """Yield numbered lines with their ends. Only a line feed ends a line: JSON text may hold other separators."""
    longest = longest or MAX_LINE
    with path.open("rb") as file:
        # One byte more than is allowed tells a line that is too long without reading all of it.
        for number, line in enumerate(iter(lambda: file.readline(longest + 1), b""), start=1):
            if len(line) > longest:
                raise DataError(
                    f"{path}:{number}: longer than {longest // 2**20} MiB, so it is no row. Every row needs a line of "
                    "its own; an array of rows begins with a bracket."
                )
            try:
                text = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"byte {error.start + 1} of the line"
                raise DataError(f"{path}:{number}: not UTF-8 ({place}). Convert it to UTF-8.") from error
            yield number, text


def _parse_json(text: str, source: str, *, hint: str) -> object:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON number")

    try:
        # Without `refuse`, Python reads NaN and Infinity, which JSON does not have.
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{source}: malformed JSON at {place}: {error.msg}.{hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: malformed JSON: {error}.{hint}") from error
