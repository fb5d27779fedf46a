"""What the journal adds to a circuit: our own time, without a device's.

    python benchmarks/journal.py [--circuits 10000] [--folder FOLDER] [--repeats 3]

The device answers at once and does nothing, so all time is ours: hashing, planning, two waits for the disk a batch,
checking and reading results. Each circuit is ring_crz of 8 qubits with angles of its own, each result has 200 bit
strings. Batches of 200 are what the Origin cloud takes; calls of one circuit are the worst case. "again" is the same
calls answered from the journal. Written to benchmarks/results/journal.json.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from timing import save

from qpeft.circuits import GATES, Circuit, ansatz, bind
from qpeft.devices import AbstractDevice, CallKey, Capabilities, Distribution, JobState, JobStatus
from qpeft.devices.journal import Journal
from qpeft.devices.queue import JournalledRunner
from qpeft.simulation.noise import NoiseModel

NUM_QUBITS = 8
COLUMNS = ("sent, ms", "of it CPU", "again, ms", "of it CPU again", "kB")
"""Of one circuit."""
RESULT = {f"{outcome:0{NUM_QUBITS}b}": 0.005 for outcome in range(200)}


@dataclass(frozen=True)
class Layout:
    """How the circuits come: so many a call, in jobs of at most so many."""

    name: str
    per_call: int
    per_batch: int
    share: float = 1.0


LAYOUTS = (
    Layout("one call, batches of 200", per_call=10**9, per_batch=200),
    Layout("calls of 37, one batch each", per_call=37, per_batch=200),
    Layout("calls of 1", per_call=1, per_batch=200, share=0.1),
)


class InstantDevice(AbstractDevice):
    """Has every job finished with the same result before it is asked."""

    def __init__(self, max_circuits: int) -> None:
        self._max_circuits = max_circuits
        self._sizes: list[int] = []

    def capabilities(self) -> Capabilities:
        """Of a remote device without limits but one."""
        return Capabilities("instant", NUM_QUBITS, frozenset(GATES), None, self._max_circuits, False, True)

    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:  # noqa: ARG002
        """Remember how many there were."""
        self._sizes.append(len(circuits))
        return str(len(self._sizes) - 1)

    def poll(self, job_id: str) -> JobStatus:  # noqa: ARG002
        """Finished."""
        return JobStatus(JobState.FINISHED)

    def fetch(self, job_id: str) -> list[Distribution]:
        """The same for all."""
        return [RESULT] * self._sizes[int(job_id)]

    def cancel(self, job_id: str) -> None:
        """Too late."""

    def calibration(self) -> NoiseModel | None:
        """None."""
        return None


def milliseconds(layout: Layout, circuits: Sequence[Circuit], path: Path) -> tuple[float, ...]:
    """Per circuit: wall and CPU time when sent, wall and CPU time when answered again."""
    journal, device = Journal(path), InstantDevice(layout.per_batch)
    calls = [circuits[first : first + layout.per_call] for first in range(0, len(circuits), layout.per_call)]
    seconds: list[float] = []
    for _ in range(2):
        runner = JournalledRunner(journal, "run")
        wall, processor = time.perf_counter(), time.process_time()
        for step, call in enumerate(calls):
            runner(device, call, 1000, key=CallKey("module", step))
        seconds += [time.perf_counter() - wall, time.process_time() - processor]
    journal.close()
    return tuple(1000 * one / len(circuits) for one in seconds)


def main() -> None:
    """Measure, print the table, store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--circuits", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; by default the temporary folder")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    chance, circuit = random.Random(0), ansatz.ring_crz(NUM_QUBITS)
    circuits = [
        bind(circuit, [chance.random() for _ in range(circuit.num_inputs)], [chance.random()] * circuit.num_weights)
        for _ in range(options.circuits)
    ]
    table = Table("circuits", "how they come", *COLUMNS)
    rows = []
    for layout in LAYOUTS:
        some = circuits[: int(layout.share * len(circuits))]
        measured, size = [], 0
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                path = Path(folder) / "journal.sqlite"
                measured.append(milliseconds(layout, some, path))
                size = path.stat().st_size
        numbers = [statistics.median(column) for column in zip(*measured, strict=True)] + [size / 1000 / len(some)]
        table.add_row(f"{len(some):,}", layout.name, *(f"{number:.2f}" for number in numbers))
        rows.append({"circuits": len(some), "layout": layout.name, **dict(zip(COLUMNS, numbers, strict=True))})
    Console().print(table)
    save("journal", rows)


if __name__ == "__main__":
    main()
