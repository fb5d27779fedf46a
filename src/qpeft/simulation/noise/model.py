"""A noise model as data: what goes wrong on each qubit, on each edge and at readout. Numbers only, no simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeAlias

from qpeft.circuits import GATES, Circuit
from qpeft.errors import NoiseError

Edge: TypeAlias = tuple[int, int]


# Above the classes, because their defaults are checked while the classes are made.
def _check_probabilities(noise: Damping | ReadoutError | QubitNoise | EdgeNoise) -> None:
    for field in fields(noise):
        value = getattr(noise, field.name)
        # `not (0 <= value <= 1)` also catches NaN.
        if isinstance(value, (int, float)) and not 0 <= value <= 1:
            raise NoiseError(f"{type(noise).__name__}.{field.name} is a probability, from 0 to 1; got {value}.")


@dataclass(frozen=True)
class Damping:
    """Relaxation of one qubit while one gate lasts.

    Attributes:
        amplitude: probability gamma that |1> has decayed to |0>.
        phase: probability lambda of phase damping; coherences shrink by sqrt((1 - gamma) (1 - lambda)) in all.

    Raises: NoiseError if a probability is outside [0, 1].
    Source: Nielsen and Chuang, Quantum Computation and Quantum Information, 8.3.5 and 8.3.6.
    """

    amplitude: float = 0.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        _check_probabilities(self)

    @classmethod
    def from_times(cls, *, t1: float, t2: float, duration: float) -> Damping:
        """Damping in `duration` of a qubit with relaxation time `t1` and coherence time `t2`, all in the same unit.

        gamma = 1 - exp(-duration / t1); coherences shrink by exp(-duration / t2).

        Args:
            t1: relaxation time.
            t2: coherence time, at most 2 t1.
            duration: of the gate.

        Raises: NoiseError if a time is not positive, the duration is negative, or t2 > 2 t1.
        """
        if not (t1 > 0 and t2 > 0 and 0 <= duration < math.inf):
            raise NoiseError(
                f"T1 and T2 must be positive and the duration finite and at least 0; "
                f"got T1 = {t1}, T2 = {t2}, duration = {duration}."
            )
        if t2 > 2 * t1:
            raise NoiseError(
                f"T2 cannot exceed 2 T1, since relaxation also destroys coherence; got T1 = {t1}, T2 = {t2}. "
                f"Use t2=min(t2, 2 * t1) if a calibration says so within its own error."
            )
        return cls(amplitude=-math.expm1(-duration / t1), phase=-math.expm1(duration / t1 - 2 * duration / t2))


@dataclass(frozen=True)
class ReadoutError:
    """Probabilities of reading a bit wrongly: `p1_given_0` reads 1 where the qubit is 0, `p0_given_1` the reverse.

    Raises: NoiseError if a probability is outside [0, 1].
    """

    p1_given_0: float = 0.0
    p0_given_1: float = 0.0

    def __post_init__(self) -> None:
        _check_probabilities(self)


@dataclass(frozen=True)
class QubitNoise:
    """One qubit: after each of its one-qubit gates first `damping`, then depolarising; `readout` at the end.

    Attributes:
        depolarising: p of rho -> (1 - p) rho + p I/2. An error rate p' of random X, Y or Z is p = 4/3 p'.
        damping: during a one-qubit gate.
        readout: when the qubit is measured.

    Raises: NoiseError if `depolarising` is outside [0, 1].
    """

    depolarising: float = 0.0
    damping: Damping = Damping()
    readout: ReadoutError = ReadoutError()

    def __post_init__(self) -> None:
        _check_probabilities(self)


@dataclass(frozen=True)
class EdgeNoise:
    """Two qubits: after each gate on both first the damping of either, then depolarising of the pair.

    Attributes:
        depolarising: p of rho -> (1 - p) rho + p I/4 on the pair. An error rate p' of random Paulis is p = 16/15 p'.
        damping: of the two qubits, in the order in which the edge names them, during a two-qubit gate.

    Raises: NoiseError if `depolarising` is outside [0, 1].
    """

    depolarising: float = 0.0
    damping: tuple[Damping, Damping] = (Damping(), Damping())

    def __post_init__(self) -> None:
        object.__setattr__(self, "damping", tuple(self.damping))
        _check_probabilities(self)


@dataclass(frozen=True)
class NoiseModel:
    """Noise of every qubit and edge that circuits may use; equal models compare and hash equal.

    Idle qubits do not decay, and there is no cross-talk: see docs/noise.md.

    Attributes:
        qubits: pairs of a qubit and its noise.
        edges: pairs of an edge and its noise. Edges have no direction: (2, 1) is stored as (1, 2), its damping swapped.
        free_gates: gates that take no time and make no error; RZ where a rotation about Z is a change of later phases.

    Raises: NoiseError if a qubit or edge comes twice, an edge names a qubit that is not there, or a free gate is none.
    """

    qubits: tuple[tuple[int, QubitNoise], ...]
    edges: tuple[tuple[Edge, EdgeNoise], ...] = ()
    free_gates: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "qubits", tuple(sorted(self.qubits, key=lambda pair: pair[0])))
        edges = sorted((_sorted_edge(*pair) for pair in self.edges), key=lambda pair: pair[0])
        object.__setattr__(self, "edges", tuple(edges))
        object.__setattr__(self, "free_gates", frozenset(self.free_gates))
        if unknown := self.free_gates - GATES.keys():
            raise NoiseError(f"There is no gate {', '.join(sorted(unknown))} to be free; known: {', '.join(GATES)}.")
        known = [qubit for qubit, _ in self.qubits]
        _check_once("qubit", known)
        _check_once("edge", [edge for edge, _ in self.edges])
        for edge, _ in self.edges:
            if edge[0] == edge[1] or not set(edge) <= set(known):
                raise NoiseError(f"Edge {edge} must join two different qubits of the model, which has {known}.")

    @classmethod
    def from_mappings(cls, qubits: Mapping[int, QubitNoise], edges: Mapping[Edge, EdgeNoise]) -> NoiseModel:
        """A model from one entry per qubit and one per edge.

        Raises: as the class; an edge given in both directions comes twice.
        """
        return cls(tuple(qubits.items()), tuple(edges.items()))

    @classmethod
    def uniform(
        cls,
        num_qubits: int,
        *,
        qubit: QubitNoise = QubitNoise(),
        edge: EdgeNoise = EdgeNoise(),
        edges: Iterable[Edge] | None = None,
    ) -> NoiseModel:
        """The same noise on every qubit and on every edge: all pairs, unless `edges` says which exist.

        Args:
            num_qubits: at least 1.
            qubit: noise of every qubit.
            edge: noise of every edge.
            edges: that exist; None for all pairs.

        Raises: NoiseError if there is no qubit; else as the class.
        """
        if num_qubits < 1:
            raise NoiseError(f"A noise model needs at least 1 qubit; got {num_qubits}.")
        pairs = itertools.combinations(range(num_qubits), 2) if edges is None else edges
        return cls(tuple((index, qubit) for index in range(num_qubits)), tuple((pair, edge) for pair in pairs))

    def qubit(self, index: int) -> QubitNoise:
        """Noise of one qubit. Raises: NoiseError if it is not in the model."""
        if index not in self._qubits:
            raise NoiseError(f"The noise model says nothing about qubit {index}; it has {list(self._qubits)}.")
        return self._qubits[index]

    def edge(self, first: int, second: int) -> EdgeNoise:
        """Noise of an edge, damping in the order asked for. Raises: NoiseError if it is not in the model."""
        edge = (min(first, second), max(first, second))
        if edge not in self._edges:
            raise NoiseError(
                f"The noise model says nothing about a gate on qubits {first} and {second}; "
                f"it has the edges {list(self._edges)}. Map the circuit to them, or add the edge."
            )
        return _sorted_edge((first, second), self._edges[edge])[1] if first > second else self._edges[edge]

    def check_covers(self, circuit: Circuit) -> None:
        """Raises: NoiseError if the circuit has a qubit, or a gate on an edge, that the model lacks."""
        for index in range(circuit.num_qubits):
            self.qubit(index)
        for operation in circuit.operations:
            if len(operation.qubits) > 1:
                self.edge(*operation.qubits)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.qubits, self.edges, self.free_gates))

    @cached_property
    def _qubits(self) -> dict[int, QubitNoise]:
        return dict(self.qubits)

    @cached_property
    def _edges(self) -> dict[Edge, EdgeNoise]:
        return dict(self.edges)


def _sorted_edge(edge: Edge, noise: EdgeNoise) -> tuple[Edge, EdgeNoise]:
    first, second = edge
    if first <= second:
        return (first, second), noise
    return (second, first), EdgeNoise(noise.depolarising, (noise.damping[1], noise.damping[0]))


def _check_once(kind: str, names: list[int] | list[Edge]) -> None:
    for name in names:
        if names.count(name) > 1:  # type: ignore[arg-type]
            raise NoiseError(f"The noise model has {kind} {name} twice; give each once.")
