"""Our simulator against others on the layer that counts here: many tokens, few qubits, forward and backward.

    python benchmarks/simulators.py --qubits 8 --tokens 2048
    python benchmarks/simulators.py --python torchquantum=envs/tq/bin/python --python tensorcircuit=envs/tc/bin/python

Every simulator runs in its own process on one thread. Results are compared with ours first; then all take turns, calls
for at least 0.1 s each per round, and the median over rounds of the CPU time per call counts.
Prints a table and writes JSON; `--growth` also times the kernel over qubits, tokens and depth. A simulator that is not
installed is listed as such; `--python name=path` gives it an interpreter of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from simulator_worker import SIMULATORS

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz

TOLERANCE = 2e-5
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ONE_THREAD |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "JAX_PLATFORMS": "cpu"}


def ry_rz_cnot(num_qubits: int, depth: int) -> Circuit:
    """RY(input) on every qubit, then per layer RY, RZ on every qubit and a ring of CNOT."""
    gates = [Operation("RY", (qubit,), Input(qubit)) for qubit in range(num_qubits)]
    for layer in range(depth):
        for qubit in range(num_qubits):
            weight = 2 * (layer * num_qubits + qubit)
            gates += [Operation("RY", (qubit,), Weight(weight)), Operation("RZ", (qubit,), Weight(weight + 1))]
        gates += [Operation("CNOT", (qubit, (qubit + 1) % num_qubits)) for qubit in range(num_qubits)]
    return Circuit(num_qubits, tuple(gates))


CIRCUITS = {"ry_rz_cnot": (ry_rz_cnot, 2), "ring_crz": (ansatz.ring_crz, 1), "ring_cz": (ansatz.ring_cz, 1)}
"""Name: (family, depth)."""


class Worker:
    """A simulator in its own process."""

    def __init__(self, name: str, python: str) -> None:
        self.name, self.seconds = name, list[float]()
        worker = Path(__file__).with_name("simulator_worker.py")
        self._process = subprocess.Popen(
            [python, str(worker), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | ONE_THREAD,
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"missing": "its process ended"}
        return reply

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def measure(
    circuit: Circuit, tokens: int, names: list[str], pythons: dict[str, str], rounds: int
) -> list[dict[str, Any]]:
    """One row per simulator: median and least CPU milliseconds, largest difference from the first that answers."""
    rows, workers, reference = [], [], None
    for name in names:
        worker = Worker(name, pythons.get(name.split()[0], sys.executable))
        limit = SIMULATORS[name][2] or tokens
        # Those that take one row after another get few, and their time is multiplied.
        reply = worker.ask(request_for(circuit, tokens, limit))
        if "missing" in reply:
            rows.append({"simulator": name, "missing": reply["missing"]})
            worker.close()
            continue
        results = [np.array(result) for result in reply["results"]]
        reference = reference or results
        # Gradients of the weights are sums over all rows, so fewer rows have others.
        pairs = [(one, other[: len(one)]) for one, other in zip(results, reference, strict=True)]
        pairs = pairs if limit >= tokens else pairs[:2]
        error = max(float(np.abs(one - other).max()) for one, other in pairs)
        times = max(1.0, tokens / limit)
        rows.append({"simulator": name, "version": reply["version"], "difference": error, "times": times})
        if error <= TOLERANCE:
            workers.append(worker)
        else:
            worker.close()
    for _ in range(rounds):
        for worker in workers:
            worker.seconds.append(worker.ask({})["cpu"])
    for worker in workers:
        worker.close()
        row = next(row for row in rows if row["simulator"] == worker.name)
        scale = 1e3 * row["times"]
        row |= {"median_ms": scale * statistics.median(worker.seconds), "least_ms": scale * min(worker.seconds)}
    return rows


def request_for(circuit: Circuit, tokens: int, limit: int | None = None) -> dict[str, Any]:
    """A circuit with random angles and gradients; the first `limit` rows of them."""
    generator = np.random.default_rng(0)
    arrays = {
        "inputs": generator.normal(size=(tokens, circuit.num_inputs)),
        "weights": generator.normal(size=circuit.num_weights),
        "grad": generator.normal(size=(tokens, circuit.num_observables)) / tokens,
    }
    rows = {name: array if name == "weights" else array[:limit] for name, array in arrays.items()}
    return {"circuit": as_json(circuit)} | {name: array.tolist() for name, array in rows.items()}


def as_json(circuit: Circuit) -> dict[str, Any]:
    """The circuit as the workers read it."""
    kinds = {Input: "input", Weight: "weight"}
    operations = [
        [op.gate_name, list(op.qubits), kinds.get(type(op.angle)), getattr(op.angle, "index", None)]
        for op in circuit.operations
    ]
    return {"num_qubits": circuit.num_qubits, "operations": operations}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """One table."""
    print(
        f"\n{title}\n{'simulator':20}{'version':>14}{'median ms':>12}{'least ms':>12}{'x kernel':>10}{'difference':>12}"
    )
    base = next((row["median_ms"] for row in rows if "median_ms" in row), None)
    for row in rows:
        if "missing" in row:
            print(f"{row['simulator']:20} not installed: {row['missing'][:80]}")
        elif "median_ms" not in row:
            print(f"{row['simulator']:20} not timed: its results differ by {row['difference']:.1e}")
        else:
            print(
                f"{row['simulator']:20}{row['version']:>14}{row['median_ms']:>12.2f}{row['least_ms']:>12.2f}"
                f"{row['median_ms'] / base:>10.1f}{row['difference']:>12.1e}"
                + (f"   measured on 1 row in {row['times']:.0f}" if row["times"] > 1 else "")
            )


def growth(rounds: int) -> list[dict[str, Any]]:
    """Kernel time over qubits, tokens and depth, one at a time."""
    sizes = (
        [(n, 512, 1) for n in range(2, 13)] + [(8, 2**k, 1) for k in range(5, 14)] + [(8, 512, d) for d in range(1, 9)]
    )
    worker, rows = Worker("qpeft kernel", sys.executable), []
    for qubits, tokens, depth in sizes:
        worker.ask(request_for(ansatz.ring_crz(qubits, depth), tokens))
        median = 1e3 * statistics.median(worker.ask({})["cpu"] for _ in range(rounds))
        rows.append({"qubits": qubits, "tokens": tokens, "depth": depth, "median_ms": median})
        print(f"{qubits:3} qubits {tokens:6} tokens depth {depth}: {median:9.3f} ms")
    worker.close()
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Three panels: qubits, tokens and depth, with the law that each should follow."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    laws = [("qubits", lambda n: n * 2.0**n, "n 2^n"), ("tokens", float, "linear"), ("depth", float, "linear")]
    fixed = {"qubits": 8, "tokens": 512, "depth": 1}
    for panel, (axis, law, name) in zip(panels, laws, strict=True):
        chosen = [row for row in rows if all(row[other] == value for other, value in fixed.items() if other != axis)]
        chosen.sort(key=lambda row: row[axis])
        x, y = [row[axis] for row in chosen], [row["median_ms"] for row in chosen]
        panel.plot(x, y, "o-", label="kernel, ring_crz")
        panel.plot(x, [y[-1] * law(value) / law(x[-1]) for value in x], "--", label=name)
        panel.set(xlabel=axis, ylabel="forward + backward, CPU ms", yscale="log")
        if axis == "tokens":
            panel.set_xscale("log")
        panel.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qubits", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--circuits", nargs="+", choices=CIRCUITS, default=list(CIRCUITS))
    parser.add_argument("--simulators", nargs="+", choices=SIMULATORS, default=list(SIMULATORS))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="interpreter of a simulator")
    parser.add_argument("--growth", type=Path, metavar="PNG", help="also time the kernel over sizes, and plot it here")
    parser.add_argument("--output", type=Path, default=Path("simulators.json"))
    options = parser.parse_args()
    pythons = dict(entry.split("=", 1) for entry in options.python)
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    report |= {"qubits": options.qubits, "tokens": options.tokens, "threads": 1, "circuits": {}}
    for name in options.circuits:
        family, depth = CIRCUITS[name]
        circuit = family(options.qubits, depth)
        rows = measure(circuit, options.tokens, options.simulators, pythons, options.rounds)
        show(f"{name}, {options.qubits} qubits, depth {depth}, {options.tokens} tokens, forward + backward", rows)
        report["circuits"][name] = rows
    if options.growth:
        report["growth"] = growth(options.rounds)
        plot(report["growth"], options.growth)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
