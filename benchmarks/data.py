"""Reading, tokenising and masking with SmolLM2's tokenizer: rows a minute, and memory against the size of the file.

    python benchmarks/data.py --data word_problems_train.jsonl [--megabytes 3 30 300] [--cores 2] [--name data]

The file's rows are repeated, each with a number of its own, until a new file is as large as asked for. Each measurement
is a fresh process: wall time of `load_splits` for all rows, and its peak memory above that of the imports. Tokens are
kept in memory, as usually, for files of up to 100 MB only, and in files (`data.streaming`) for all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from timing import machine, result_name, save

from qpeft.models import PACKAGE_MODEL, load_tokenizer
from qpeft.training.sections import DataSection
from qpeft.training.splits import load_splits

LARGEST_IN_MEMORY = 100
"""Megabytes; tokens in memory take some tens of bytes each."""


def write_rows(source: Path, path: Path, megabytes: int) -> int:
    """Rows of `source` over and over; returns how many."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(cycle(rows), start=1):
            written += file.write(json.dumps(with_number(row, number), ensure_ascii=False) + "\n")
            if written >= megabytes * 10**6:
                break
    return number


def with_number(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row with a number before its question."""
    if "messages" not in row:
        return {**row, "question": f"{number}. {row['question']}"}
    first, *others = row["messages"]
    return {**row, "messages": [{**first, "content": f"{number}. {first['content']}"}, *others]}


def measure(path: str, streaming: bool, cache: str) -> tuple[float, float]:
    """Seconds, and megabytes of memory at the peak above those of the imports."""
    tokenizer = load_tokenizer(PACKAGE_MODEL)
    data = DataSection(train=path, max_length=1024, drop_longer=True, streaming=streaming)
    load_splits(data.model_copy(update={"limit": 100, "streaming": False}), tokenizer)  # imports what it needs
    os.environ["XDG_CACHE_HOME"] = cache
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    load_splits(data, tokenizer)
    seconds = time.perf_counter() - start
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000


def main() -> None:
    """Print the table and write benchmarks/results/data.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[3, 30, 300])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--name", type=result_name, default="data")
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.cores)
    context = multiprocessing.get_context("spawn")
    table = Table("file, MB", "rows", "tokens kept", "seconds", "rows a minute", "peak memory, MB")
    results = []
    for megabytes in options.megabytes:
        for streaming in (False, True):
            if not streaming and megabytes > LARGEST_IN_MEMORY:
                continue
            with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
                path = Path(folder) / "data.jsonl"
                rows = write_rows(options.data, path, megabytes)
                seconds, memory = pool.apply(measure, (str(path), streaming, folder))
            kept = "in files" if streaming else "in memory"
            table.add_row(
                str(megabytes), f"{rows:,}", kept, f"{seconds:.1f}", f"{rows / seconds * 60:,.0f}", f"{memory:.0f}"
            )
            results.append(
                {"megabytes": megabytes, "rows": rows, "kept": kept, "seconds": seconds, "peak_megabytes": memory}
            )
    console = Console(width=120)
    console.print(f"{options.cores} core(s); {machine()}")
    console.print(table)
    save(options.name, {"data": options.data.name, "cores": options.cores, "rows": results})


if __name__ == "__main__":
    main()
