"""Plans as flat arrays that the compiled interpreter reads: instructions, index tables, and where each number goes.

The state has at least 4 qubits, idle ones staying |0>, so that groups of 16 amplitudes always exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from qpeft.circuits import Circuit
from qpeft.simulation.compiler import compile_plan
from qpeft.simulation.paulis import Pauli, combinations, completed, dual_directions, independent, parities, parity
from qpeft.simulation.plan import AngleSum, PhaseLayer, Rotation, RotationLayer, SimulationPlan, Term

IntArray: TypeAlias = npt.NDArray[np.int64]

GROUP_BITS = 4
GROUP_SIZE = 2**GROUP_BITS
ROW = 12
"""Length of one row of a section."""


class ProgramSection(IntEnum):
    """Tables of the program, each of rows of `ROW` numbers; the header holds (start, rows) of each."""

    INSTRUCTIONS = 0
    CHUNKS = 1
    TERMS = 2
    MEASURED = 3
    STRINGS = 4
    COMBINATIONS = 5
    ANGLES = 6
    WEIGHT_PARTS = 7
    INPUT_PARTS = 8


class Scalar(IntEnum):
    """Single numbers of the header, behind the sections."""

    STATE_QUBITS = 18
    LANE_ROWS = 19
    FIRST_ROTATIONS = 20
    NUM_COEFFICIENTS = 21
    NUM_SUMS = 22
    NUM_EXPECTATIONS = 23
    NUM_WEIGHTS = 24
    NUM_INPUTS = 25
    NUM_OBSERVABLES = 26
    TRAINS_FOLDED = 27
    CLOSED_FORM = 28
    LENGTH = 29


class Op(IntEnum):
    """Instructions. Rows: op, then a, b, c, d, e.

    SIGNS      real factors per basis state: a table, c first term, d number of terms, e parts of the state
    PROMOTE    phases on a real state: a table, b sums or -1, c first term, d number of terms
    PHASES     the same on a complex state
    ROTATIONS  one layer: a first chunk, b number of chunks, c parts of the state (1 real, 2 complex)
    TOKEN_PROMOTE, TOKEN_PHASES  one phase that differs from token to token: a mask, b lane row
    """

    SIGNS = 0
    PROMOTE = 1
    PHASES = 2
    ROTATIONS = 3
    TOKEN_PROMOTE = 4
    TOKEN_PHASES = 5


@dataclass(frozen=True, eq=False)
class KernelProgram:
    """What the interpreter needs to know of one circuit.

    Attributes:
        code: header, then sections, int64.
        index: tables of groups, int32: positions of amplitudes.
        numbers: constants and coefficients of the angles, float64; offsets are in `code`.
    """

    code: IntArray
    index: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float64]
    state_qubits: int
    num_sums: int
    num_coefficients: int
    num_angles: int


@lru_cache(maxsize=256)
def compile_program(circuit: Circuit) -> KernelProgram:
    """The program of a circuit. Cached, since circuits are compared by value."""
    return _Assembler(compile_plan(circuit)).program()


class _Assembler:
    def __init__(self, plan: SimulationPlan) -> None:
        self._plan = plan
        self._padding = max(0, GROUP_BITS - plan.circuit.num_qubits)
        self._qubits = plan.circuit.num_qubits + self._padding
        self._sections: dict[ProgramSection, list[list[int]]] = {section: [] for section in ProgramSection}
        self._index: list[npt.NDArray[np.int32]] = []
        self._index_size = 0
        self._numbers: list[float] = []
        self._coefficients = 0
        self._sums = 0
        self._lane_rows = 0
        self._unscaled = False

    def program(self) -> KernelProgram:
        plan = self._plan
        for angle in (*plan.encoding, *[AngleSum()] * self._padding):
            self._lane_row(angle)
        # Lane rows come first among the angles and among the sums, so all of them are numbered before anything else.
        for layer in plan.layers:
            self._number_lane_rows(layer)
        self._sums = self._lane_rows
        self._next_lane_row = self._qubits
        first_rotations = -1
        for position, layer in enumerate(plan.layers):
            is_complex = position > plan.complex_from
            if isinstance(layer, PhaseLayer):
                self._phases(layer, is_complex=is_complex, promotes=position == plan.complex_from)
            else:
                if first_rotations < 0:
                    first_rotations = len(self._sections[ProgramSection.INSTRUCTIONS])
                self._rotations(layer, parts=1 + is_complex)
        self._leave_or_rescale(parts=1 + (plan.complex_from < len(plan.layers)))
        num_expectations = self._measurements(plan.terms)
        code = self._assembled(first_rotations, num_expectations)
        index = np.concatenate(self._index) if self._index else np.zeros(0, np.int32)
        numbers = np.array(self._numbers or [0.0])
        return KernelProgram(
            code,
            index,
            numbers,
            self._qubits,
            self._sums,
            max(1, self._coefficients),
            len(self._sections[ProgramSection.ANGLES]),
        )

    def _assembled(self, first_rotations: int, num_expectations: int) -> IntArray:
        circuit = self._plan.circuit
        header = [0] * Scalar.LENGTH
        body: list[int] = []
        for section, rows in self._sections.items():
            header[2 * section : 2 * section + 2] = Scalar.LENGTH + len(body), len(rows)
            for row in rows:
                body += row + [0] * (ROW - len(row))
        header[Scalar.STATE_QUBITS] = self._qubits
        header[Scalar.LANE_ROWS] = self._lane_rows
        header[Scalar.FIRST_ROTATIONS] = first_rotations
        header[Scalar.NUM_COEFFICIENTS] = max(1, self._coefficients)
        header[Scalar.NUM_SUMS] = self._sums
        header[Scalar.NUM_EXPECTATIONS] = num_expectations
        header[Scalar.NUM_WEIGHTS] = circuit.num_weights
        header[Scalar.NUM_INPUTS] = circuit.num_inputs
        header[Scalar.NUM_OBSERVABLES] = circuit.num_observables
        header[Scalar.CLOSED_FORM] = self._plan.is_closed_form
        header[Scalar.TRAINS_FOLDED] = any(row[3] >= 0 for row in self._sections[ProgramSection.COMBINATIONS])
        return np.array(header + body, np.int64)

    def _angle(self, angle: AngleSum) -> int:
        """Row of the angle table: constant, weights and inputs by ranges of their own tables."""
        weights, inputs = self._sections[ProgramSection.WEIGHT_PARTS], self._sections[ProgramSection.INPUT_PARTS]
        row = [self._number(angle.constant), len(weights), len(angle.weights), len(inputs), len(angle.inputs)]
        weights += [[index, self._number(coefficient)] for index, coefficient in angle.weights]
        inputs += [[index, self._number(coefficient)] for index, coefficient in angle.inputs]
        self._sections[ProgramSection.ANGLES].append(row)
        return len(self._sections[ProgramSection.ANGLES]) - 1

    def _number(self, value: float) -> int:
        self._numbers.append(value)
        return len(self._numbers) - 1

    def _lane_row(self, angle: AngleSum) -> None:
        self._angle(angle)
        self._lane_rows += 1

    def _number_lane_rows(self, layer: PhaseLayer | RotationLayer) -> None:
        if isinstance(layer, PhaseLayer):
            for _, angle in layer.terms:
                if angle.inputs:
                    self._lane_row(angle)
        else:
            for chunk in _chunks(layer):
                if any(rotation.angle.inputs for rotation in chunk):
                    for slot in range(GROUP_BITS):
                        self._lane_row(chunk[slot].angle if slot < len(chunk) else AngleSum())

    def _take_lane_row(self) -> int:
        self._next_lane_row += 1
        return self._next_lane_row - 1

    def _take_sums(self, count: int) -> int:
        self._sums += count
        return self._sums - count

    def _take_coefficients(self, count: int) -> int:
        self._coefficients += count
        return self._coefficients - count

    def _instruction(self, op: Op, *arguments: int) -> None:
        self._sections[ProgramSection.INSTRUCTIONS].append([op, *arguments])

    def _rescale(self, *, parts: int) -> None:
        """Puts right the norm, which rotations by tangents grow, unless a table of phases has done so since."""
        if self._unscaled:
            self._instruction(Op.SIGNS, self._take_coefficients(2 * 2**self._qubits), -1, 0, 0, parts)
            self._unscaled = False

    def _leave_or_rescale(self, *, parts: int) -> None:
        """The norm may stay as it is if the state is never rotated back: coefficients of the terms put it right."""
        rotations = [row for row in self._sections[ProgramSection.INSTRUCTIONS] if row[0] == Op.ROTATIONS]
        if len(rotations) > 1:
            self._rescale(parts=parts)

    def _phases(self, layer: PhaseLayer, *, is_complex: bool, promotes: bool) -> None:
        uniform = [(mask, angle) for mask, angle in layer.terms if not angle.inputs]
        if uniform:
            op = Op.PHASES if is_complex else Op.PROMOTE if promotes else Op.SIGNS
            terms = self._sections[ProgramSection.TERMS]
            first = len(terms)
            terms += [[mask << self._padding, self._angle(angle)] for mask, angle in uniform]
            trained = any(angle.weights for _, angle in uniform)
            sums = self._take_sums(2**self._qubits) if trained else -1
            self._instruction(op, self._take_coefficients(2 * 2**self._qubits), sums, first, len(uniform), 1)
            self._unscaled = False
        promotes = promotes and not uniform
        for mask, angle in layer.terms:
            if angle.inputs:
                self._rescale(parts=1 + is_complex)
                op = Op.TOKEN_PROMOTE if promotes else Op.TOKEN_PHASES
                self._instruction(op, mask << self._padding, self._take_lane_row())
                promotes = False

    def _rotations(self, layer: RotationLayer, *, parts: int) -> None:
        self._rescale(parts=parts)
        chunks = self._sections[ProgramSection.CHUNKS]
        first = len(chunks)
        for chunk in _chunks(layer):
            bits = [(r.direction << self._padding, r.row << self._padding) for r in chunk]
            index = self._groups(bits)
            if any(rotation.angle.inputs for rotation in chunk):
                chunks.append([1, index, 0, 0, *(self._take_lane_row() for _ in range(GROUP_BITS))])
            else:
                trained = any(rotation.angle.weights for rotation in chunk)
                sums = self._take_sums(GROUP_BITS) if trained else -1
                angles = [self._angle(rotation.angle) for rotation in chunk]
                angles += [self._angle(AngleSum()) for _ in range(GROUP_BITS - len(chunk))]
                # Tangents and signs forwards, the same backwards, and which bits swap.
                chunks.append([0, index, self._take_coefficients(2 * (GROUP_BITS + GROUP_SIZE) + 1), sums, *angles])
                self._unscaled = True
        self._instruction(Op.ROTATIONS, first, len(chunks) - first, parts)

    def _groups(self, bits: list[tuple[int, int]], outer: Sequence[int] = ()) -> int:
        """Offset of the index table in which the first bits of a group are the given (direction, row)."""
        table = group_table(self._qubits, bits, outer)
        self._index.append(table)
        self._index_size += len(table)
        return self._index_size - len(table)

    def _measurements(self, terms: tuple[Term, ...]) -> int:
        """Fills MEASURED, STRINGS (any Pauli) and COMBINATIONS; returns the number of expectations.

        A row of MEASURED has four bits, Z and X of each: where its groups are, whether X is wanted, number of bits.
        Groups of the first row are in the order of the other rows' bits, so that it serves for every Z.
        """
        # Bits that can be measured in groups: pairs of a Z string and an X string that meet in one bit only.
        shift = self._padding
        locals_ = _local_bits([term.pauli for term in terms])
        if self._plan.is_closed_form:
            locals_ = []
        slots: dict[tuple[int, int], int] = {}
        for start in range(0, len(locals_), GROUP_BITS):
            chunk = locals_[start : start + GROUP_BITS]
            base = 2 * GROUP_BITS * len(self._sections[ProgramSection.MEASURED])
            wanted = {(term.pauli.x, term.pauli.z) for term in terms}
            with_x = any((direction, 0) in wanted for direction, _ in chunk)
            bits = [(direction << shift, row << shift) for direction, row in chunk]
            outer = [] if start else [row << shift for _, row in locals_[GROUP_BITS:]]
            self._sections[ProgramSection.MEASURED].append([self._groups(bits, outer), with_x, len(chunk)])
            for place, (direction, row) in enumerate(chunk):
                slots[0, row] = base + place
                slots[direction, 0] = base + GROUP_BITS + place
        count = 2 * GROUP_BITS * len(self._sections[ProgramSection.MEASURED])
        for term in terms:
            pauli = term.pauli
            if (pauli.x, pauli.z) not in slots:
                slots[pauli.x, pauli.z] = count
                power = (pauli.x & pauli.z).bit_count() % 4
                self._sections[ProgramSection.STRINGS].append([pauli.x << shift, pauli.z << shift, power])
                count += 1
        for term in terms:
            kind = 0 if term.angle is None else 2 if term.use_sin else 1
            angle = self._angle(AngleSum() if term.angle is None else term.angle)
            trained = term.angle is not None and bool(term.angle.weights)
            sums = self._take_sums(1) if trained else -1
            coefficient = self._take_coefficients(2)
            slot = slots[term.pauli.x, term.pauli.z]
            sign = int(term.pauli.sign)
            combinations_ = self._sections[ProgramSection.COMBINATIONS]
            combinations_.append([term.observable, slot, coefficient, sums, kind, angle, sign])
        return count


def _chunks(layer: RotationLayer) -> Iterable[tuple[Rotation, ...]]:
    """Four rotations at a time, those without inputs first."""
    ordered = sorted(layer.rotations, key=lambda rotation: bool(rotation.angle.inputs))
    return [tuple(ordered[start : start + GROUP_BITS]) for start in range(0, len(ordered), GROUP_BITS)]


def _local_bits(paulis: list[Pauli]) -> list[tuple[int, int]]:
    """(direction, row) of bits whose Z, and X where possible, are among `paulis`; each row meets one direction."""
    rows = list(dict.fromkeys(pauli.z for pauli in paulis if not pauli.x and pauli.z))
    rows = independent(rows)
    if not rows:
        return []
    directions = dual_directions(rows)
    wanted = {pauli.x for pauli in paulis if not pauli.z}
    # Any direction with the right parities does; one that is measured itself serves twice.
    for place, row in enumerate(rows):
        others = [other for other in rows if other != row]
        for x in wanted:
            if parity(x & row) and not any(parity(x & other) for other in others):
                directions[place] = x
    return list(zip(directions, rows, strict=True))


def group_table(num_qubits: int, bits: list[tuple[int, int]], outer: Sequence[int] = ()) -> npt.NDArray[np.int32]:
    """Positions of all amplitudes in groups of 16: entry k of a group has bits (parities by row) equal to those of k.

    Args:
        num_qubits: of the state, at least 4.
        bits: up to 4 (direction, row) with parity(direction_i & row_j) = (i == j); missing ones are made up.
        outer: further rows, independent and even in all directions: their parities are the leading bits of a group's
            number, the first row's the most significant.
    """
    directions = completed(bits, num_qubits, GROUP_BITS)
    bases = np.arange(2**num_qubits, dtype=np.int64)
    for direction, row in bits:
        bases ^= direction * parities(bases & row)
    orbit = np.stack([bases ^ shift for shift in combinations(directions[len(bits) :])])
    starts = np.unique(orbit.min(0))
    leading = sum((parities(starts & row) << place for place, row in enumerate(reversed(outer))), np.zeros_like(starts))
    starts = starts[np.argsort(leading, kind="stable")]
    members = combinations(directions[::-1])  # entry k: the first direction belongs to bit 0 of k
    return (starts[:, None] ^ members[None, :]).astype(np.int32).ravel()
