"""What the torch path precomputes for a circuit on one device: orders of amplitudes, sign vectors, angle matrices.

Kronecker products want the rotated bits next to each other, so every rotation layer has its own order of amplitudes:
position p of the middle axis holds basis state XOR of the layer's directions chosen by the bits of p. A gather leads
from one order to the next, and none is needed where they agree. All masks are relative to the order of their step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.simulation.compiler import compile_plan
from qpeft.simulation.paulis import combinations, completed, parity, signs
from qpeft.simulation.plan import AngleSum, RotationLayer, SimulationPlan

MAX_FACTOR_BITS = 4
"""Bits per factor of a Kronecker product: c bits cost 2**c multiply-adds per amplitude in one matrix product."""


@dataclass(frozen=True, eq=False)
class RotationTable:
    """A layer of rotations: the leading bits are rotated uniformly, in factors, the next ones per token.

    Attributes:
        gather, scatter: index that brings the previous order into this one, and back; None where they agree.
        factors: angle rows of each Kronecker factor.
        token_rows: angle rows of bits that rotate by the token's own angle.
    """

    gather: Tensor | None
    scatter: Tensor | None
    factors: tuple[tuple[int, ...], ...]
    token_rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PhaseTable:
    """A layer of phases: exponents are -1/2 * angles[rows] @ signs.

    Attributes:
        rows, signs: angle rows and (len(rows), 2**num_qubits) signs of uniform phases; empty for none.
        relative: whether exponents are taken relative to basis state 0, which makes fixed signs real.
        token: angle row and signs (2**num_qubits, 1) of each phase that is the token's own.
    """

    rows: list[int]
    signs: Tensor
    is_real: bool
    token: tuple[tuple[int, Tensor], ...]


@dataclass(frozen=True, eq=False)
class StringTable:
    """A Pauli string with X or Y in it: i**power times `signs` (2**num_qubits, 1), then an exchange of amplitudes.

    Attributes:
        signs: None if all are +1.
        flip: index of the exchange; None if it concerns one bit only.
        half: in that case, amplitudes per half of the bit.
    """

    signs: Tensor | None
    flip: Tensor | None
    half: int
    power: int


@dataclass(frozen=True, eq=False)
class PlanTables:
    """A plan on a device. Angles are constants + from_weights @ weights (+ from_inputs @ inputs for token rows).

    Attributes:
        encoding: angle rows of the product state, qubit 0 first; all of them count as token rows.
        token_rows: angle rows that may differ from token to token, in the order of `from_inputs`.
        z_signs: (Z strings, 2**num_qubits), followed by `strings`, the others; both empty in closed form.
        letters: in closed form the letters of all strings, (strings, num_qubits): 0 I, 1 X, 2 Z.
        num_strings: of either.
        has_folded: whether some terms have an angle.
        combine: (num_observables, terms) signs; `string_of`, `kinds` (0 one, 1 cos, 2 sin), `angle_of` of each term.
    """

    plan: SimulationPlan
    constants: Tensor
    from_weights: Tensor
    from_inputs: Tensor
    token_rows: Tensor
    place_of: dict[int, int]
    steps: tuple[RotationTable | PhaseTable, ...]
    z_signs: Tensor
    strings: tuple[StringTable, ...]
    letters: Tensor
    num_strings: int
    has_folded: bool
    combine: Tensor
    string_of: Tensor
    kinds: Tensor
    angle_of: Tensor


@lru_cache(maxsize=128)
def plan_tables(circuit: Circuit, device: torch.device, dtype: torch.dtype) -> PlanTables:
    """Tables of a circuit; cached.

    Args:
        circuit: whose plan the tables are of.
        device: where they will lie.
        dtype: of their numbers.
    """
    return _Builder(compile_plan(circuit), device, dtype).tables()


class _Builder:
    def __init__(self, plan: SimulationPlan, device: torch.device, dtype: torch.dtype) -> None:
        self._plan = plan
        self._qubits = plan.circuit.num_qubits
        self._device, self._dtype = device, dtype
        self._angles: list[AngleSum] = []
        self._directions = completed([], self._qubits, self._qubits)

    def tables(self) -> PlanTables:
        plan = self._plan
        for angle in plan.encoding:
            self._row(angle)
        steps = tuple(self._step(position) for position in range(len(plan.layers)))
        distinct = sorted({(term.pauli.x, term.pauli.z) for term in plan.terms}, key=lambda string: bool(string[0]))
        z_strings = [] if plan.is_closed_form else [z for x, z in distinct if not x]
        others = [] if plan.is_closed_form else [string for string in distinct if string[0]]
        kinds = [0 if term.angle is None else 2 if term.use_sin else 1 for term in plan.terms]
        angle_of = [self._row(term.angle or AngleSum()) for term in plan.terms]
        combine = np.zeros((plan.circuit.num_observables, len(plan.terms)))
        for column, term in enumerate(plan.terms):
            combine[term.observable, column] = term.pauli.sign
        token_rows = [row for row, a in enumerate(self._angles) if row < self._qubits or a.inputs]
        circuit = plan.circuit
        return PlanTables(
            plan=plan,
            constants=self._tensor([angle.constant for angle in self._angles]),
            from_weights=self._matrix([angle.weights for angle in self._angles], circuit.num_weights),
            from_inputs=self._matrix([self._angles[row].inputs for row in token_rows], circuit.num_inputs),
            token_rows=self._index(token_rows),
            place_of={row: place for place, row in enumerate(token_rows)},
            steps=steps,
            z_signs=self._tensor([self._signs(z) for z in z_strings]).reshape(len(z_strings), 2**self._qubits),
            strings=tuple(self._string(x, z) for x, z in others),
            letters=self._letters(distinct),
            num_strings=len(distinct),
            has_folded=any(kinds),
            combine=self._tensor(combine).reshape(circuit.num_observables, len(plan.terms)),
            string_of=self._index([distinct.index((term.pauli.x, term.pauli.z)) for term in plan.terms]),
            kinds=self._index(kinds),
            angle_of=self._index(angle_of),
        )

    def _row(self, angle: AngleSum) -> int:
        self._angles.append(angle)
        return len(self._angles) - 1

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=float), dtype=self._dtype, device=self._device)

    def _index(self, values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64), device=self._device)

    def _matrix(self, rows: list[tuple[tuple[int, float], ...]], columns: int) -> Tensor:
        matrix = np.zeros((len(rows), columns))
        for row, pairs in enumerate(rows):
            for index, coefficient in pairs:
                matrix[row, index] = coefficient
        return self._tensor(matrix)

    def _signs(self, mask: int) -> np.ndarray:
        """Signs by the mask, in the present order."""
        here = sum(parity(mask & d) << place for place, d in enumerate(reversed(self._directions)))
        return signs(here, self._qubits)

    def _step(self, position: int) -> RotationTable | PhaseTable:
        layer = self._plan.layers[position]
        if isinstance(layer, RotationLayer):
            return self._rotations(layer)
        uniform = [(mask, angle) for mask, angle in layer.terms if not angle.inputs]
        columns = np.array([self._signs(mask) for mask, _ in uniform]).reshape(len(uniform), 2**self._qubits)
        return PhaseTable(
            rows=[self._row(angle) for _, angle in uniform],
            signs=self._tensor(columns),
            is_real=position < self._plan.complex_from,
            token=tuple(
                (self._row(angle), self._tensor(self._signs(mask))[:, None])
                for mask, angle in layer.terms
                if angle.inputs
            ),
        )

    def _rotations(self, layer: RotationLayer) -> RotationTable:
        ordered = sorted(layer.rotations, key=lambda r: (bool(r.angle.inputs), -r.direction))
        gather, scatter = self._reorder(completed([(r.direction, r.row) for r in ordered], self._qubits, self._qubits))
        rows = [self._row(rotation.angle) for rotation in ordered]
        uniform = [row for row, rotation in zip(rows, ordered, strict=True) if not rotation.angle.inputs]
        count = -(-len(uniform) // MAX_FACTOR_BITS)
        cuts = [len(uniform) * part // count for part in range(count + 1)] if count else []
        factors = tuple(tuple(uniform[a:b]) for a, b in pairwise(cuts))
        return RotationTable(gather, scatter, factors, tuple(rows[len(uniform) :]))

    def _reorder(self, directions: list[int]) -> tuple[Tensor | None, Tensor | None]:
        if directions == self._directions:
            return None, None
        places = np.empty(2**self._qubits, np.int64)
        places[combinations(self._directions)] = np.arange(2**self._qubits)
        gather = places[combinations(directions)]
        self._directions = directions
        return self._index(gather), self._index(np.argsort(gather))

    def _string(self, x: int, z: int) -> StringTable:
        order = combinations(self._directions)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        step = int(places[order[0] ^ x])  # orders are linear, so the exchange is an XOR of positions
        is_bit = step.bit_count() == 1
        return StringTable(
            signs=self._tensor(self._signs(z))[:, None] if z else None,
            flip=None if is_bit else self._index(places[order ^ x]),
            half=step,
            power=(x & z).bit_count() % 4,
        )

    def _letters(self, strings: list[tuple[int, int]]) -> Tensor:
        bits = [1 << (self._qubits - 1 - qubit) for qubit in range(self._qubits)]
        table = [[1 if x & bit else 2 if z & bit else 0 for bit in bits] for x, z in strings]
        return torch.tensor(table, dtype=torch.int64, device=self._device).reshape(len(strings), self._qubits)
