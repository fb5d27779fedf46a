"""How often results in another order pass the circuits of known outcome in their job.

    python benchmarks/order.py [--jobs 3000] [--shots 1000]

Jobs of `ring_cz` circuits with angles of about 1 radian on a noisy simulator. The two replies of a cloud are not
compared.
"""

from __future__ import annotations

import argparse
import random
from functools import lru_cache

import torch
from rich.console import Console
from rich.table import Table
from timing import machine, save

from qpeft.circuits import ansatz, bind
from qpeft.devices import LocalDevice, markers
from qpeft.devices.protocol import run
from qpeft.simulation.noise import EdgeNoise, NoiseModel, QubitNoise, ReadoutError
from qpeft_emulator.faults import places

ORDERS = ("reverse", "rotate", "halves", "interleave", "shuffle")
POOL = 300


def missed(num_circuits: int, num_qubits: int, *, jobs: int, shots: int) -> dict[str, int]:
    """How many of so many jobs pass in each wrong order; under "refused", how many do not in the right one."""
    edges = {"edge": EdgeNoise(0.04)} if num_qubits > 1 else {}
    qubit = QubitNoise(depolarising=0.01, readout=ReadoutError(0.05, 0.10))
    device = LocalDevice(
        num_qubits=num_qubits, seed=num_qubits, noise=NoiseModel.uniform(num_qubits, qubit=qubit, **edges)
    )
    circuit, draw = ansatz.ring_cz(num_qubits), torch.Generator().manual_seed(num_qubits)
    weights = torch.randn(circuit.num_weights, generator=draw).tolist()
    angles = [torch.randn(circuit.num_inputs, generator=draw).tolist() for _ in range(POOL)]
    pool = run(device, [bind(circuit, one, weights) for one in angles], shots)
    results: dict[int | str, dict[str, float]] = dict(enumerate(pool))

    @lru_cache(None)
    def fits(item: int | str, outcome: str) -> bool:
        if item not in results:
            results[item] = run(device, [markers.marker_circuit(str(item))], shots)[0]
        return markers._fits(results[item], outcome, shots)

    rng, found = random.Random(1), dict.fromkeys((*ORDERS, "refused"), 0)
    for job in range(jobs):
        known = markers.draw_markers(f"{num_qubits} {num_circuits} {job}", num_circuits, num_qubits)
        total = num_circuits + len(known)
        sent = [known.get(place, rng.randrange(POOL)) for place in range(total)]
        found["refused"] += not all(fits(sent[place], outcome) for place, outcome in known.items())
        for order in ORDERS:
            came = places(order, str(job), total)
            found[order] += all(fits(sent[came[place]], outcome) for place, outcome in known.items())
    return found


def main() -> None:
    """Print the table and write benchmarks/results/order.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--shots", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table, rows = Table("circuits", "qubits", *ORDERS, "refused in the right order"), []
    for num_circuits in (49, 98, 196):
        for num_qubits in (1, 2, 4):
            found = missed(num_circuits, num_qubits, jobs=options.jobs, shots=options.shots)
            rows.append({"circuits": num_circuits, "qubits": num_qubits, **found})
            table.add_row(str(num_circuits), str(num_qubits), *map(str, found.values()))
    console = Console(width=120)
    console.print(f"unnoticed of {options.jobs:,} jobs of {options.shots:,} shots; {machine()}")
    console.print(table)
    save("order", {"jobs": options.jobs, "shots": options.shots, "rows": rows})


if __name__ == "__main__":
    main()
