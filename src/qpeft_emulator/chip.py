"""Chips: what the cloud's chipInfo lists of them, true or not.

Wukong has 72 qubits and 126 couplers, which is a grid 6 wide and 12 high. Ranges of its calibration are those of the
vendor's published sample; who is dead is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream

Edge = tuple[int, int]

WIDTH, HEIGHT = 6, 12
NUM_QUBITS = WIDTH * HEIGHT
SINGLE_GATE_NS, DOUBLE_GATE_NS = 30, 40
"""Lengths of a pulse on one qubit and of a CZ. Assumed: the vendor publishes none."""


@dataclass(frozen=True)
class QubitCalibration:
    """What is listed of a living qubit: frequency in MHz, fidelities, T1 and T2 in microseconds."""

    frequency: int
    readout_fidelity: float
    gate_fidelity: float
    t1: float
    t2: float


@dataclass(frozen=True)
class EmulatedChip:
    """One chip.

    Attributes:
        chip_id: as the client sends it; Wukong is "72".
        num_qubits: dead ones included.
        qubits: calibration of the living.
        edges: fidelity of CZ on every coupler, smaller qubit first; 0 for a dead one.
    """

    chip_id: str
    num_qubits: int
    qubits: Mapping[int, QubitCalibration]
    edges: Mapping[Edge, float]

    def has_edge(self, first: int, second: int) -> bool:
        """Whether a living coupler joins the two."""
        return bool(self.graph.has_edge(first, second))

    def neighbours(self, qubit: int) -> list[int]:
        """Qubits that living couplers join to this one, the best coupler first."""
        return list(self.graph[qubit]) if qubit in self.graph else []

    @cached_property
    def graph(self) -> nx.Graph:
        """Living qubits and couplers, the best of both first."""
        graph = nx.Graph()
        # networkx keeps the order of insertion, so neighbours come best first without being sorted again.
        graph.add_nodes_from(sorted(self.qubits, key=lambda qubit: -self.qubits[qubit].gate_fidelity))
        living = [edge for edge, fidelity in self.edges.items() if fidelity > 0]
        graph.add_edges_from(sorted(living, key=lambda edge: -self.edges[edge]))
        return graph


def grid_edges() -> list[Edge]:
    """Return the 126 couplers: along rows first, then along columns."""
    along = [(q, q + 1) for q in range(NUM_QUBITS) if (q + 1) % WIDTH]
    across = [(q, q + WIDTH) for q in range(NUM_QUBITS - WIDTH)]
    return along + across


def wukong(seed: int) -> EmulatedChip:
    """Six dead qubits, six more dead couplers, and a calibration that differs from qubit to qubit; all by `seed`."""
    # The order of the draws is part of what a seed means.
    stream = Stream(SampleKey(seed, module="chip"))
    dead = set(stream.uniforms(NUM_QUBITS).argsort()[:6].tolist())
    draws = stream.uniforms(NUM_QUBITS, 5).tolist()
    qubits = {qubit: _drawn(*draws[qubit]) for qubit in range(NUM_QUBITS) if qubit not in dead}
    edges = {edge: 0.952 + 0.031 * u for edge, u in zip(grid_edges(), stream.uniforms(126).tolist(), strict=True)}
    # Couplers of dead qubits are dead anyway, so the six more are drawn from the others.
    living = [edge for edge in edges if not dead & set(edge)]
    dead_edges = {living[index] for index in stream.uniforms(len(living)).argsort()[:6].tolist()}
    return EmulatedChip(
        "72", NUM_QUBITS, qubits, {e: f if e in living and e not in dead_edges else 0.0 for e, f in edges.items()}
    )


def clean() -> EmulatedChip:
    """Return a chip on which everything lives, and every qubit and coupler is an average one of Wukong."""
    average = _drawn(0.5, 0.5, 0.5, 0.5, 0.5)
    return EmulatedChip(
        "clean", NUM_QUBITS, dict.fromkeys(range(NUM_QUBITS), average), dict.fromkeys(grid_edges(), 0.9675)
    )


def perfect() -> EmulatedChip:
    """Return a chip on which everything lives and nothing errs: for tests against exact values."""
    ideal = QubitCalibration(frequency=4500, readout_fidelity=1.0, gate_fidelity=1.0, t1=1e9, t2=1e9)
    return EmulatedChip(
        "perfect", NUM_QUBITS, dict.fromkeys(range(NUM_QUBITS), ideal), dict.fromkeys(grid_edges(), 1.0)
    )


def _drawn(frequency: float, readout: float, gate: float, t1: float, t2: float) -> QubitCalibration:
    """Return a calibration from five numbers in [0, 1], rounded as in a listing."""
    return QubitCalibration(
        frequency=round(4000 + 1000 * frequency),
        readout_fidelity=round(0.923 + 0.019 * readout, 4),
        gate_fidelity=round(0.995 + 0.0023 * gate, 4),
        t1=round(9 + 8 * t1, 2),
        t2=round(1.1 + 0.7 * t2, 2),
    )
