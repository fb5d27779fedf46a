"""Side-by-side timing: contenders in turn, one thread, CPU time, medians and ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("qpeft", "torch", "triton", "numba", "peft", "transformers", "trl")


def interleave(
    contenders: dict[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of every call: round after round, each contender once, so that a slow spell hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(warmup + repeats):
        for name, call in contenders.items():
            start = clock()
            call()
            if round_number >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def gpu_clock() -> float:
    """Wall time when the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def ratio(first: list[float], second: list[float]) -> float:
    """Median over rounds of first / second."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def machine() -> dict[str, Any]:
    """What a table of times must name."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].partition(":")[2].strip() if lines else processor
    return {
        "processor": processor,
        "processors": os.cpu_count(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def result_name(text: str) -> str:
    """An argument that names a file in benchmarks/results, without folder or ending."""
    if not text.replace("_", "").replace("-", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text!r} is no plain name: it becomes benchmarks/results/NAME.json")
    return text


def save(name: str, results: object) -> None:
    """Write benchmarks/results/NAME.json and say so."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n")
    print(f"written to {path.relative_to(Path(__file__).parent.parent)}")
