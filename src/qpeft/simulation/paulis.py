"""Pauli operators as bit masks: products, commutation, and how they move through permutations of the basis.

A mask is an int whose bit `num_qubits - 1 - q` belongs to qubit q, so that qubit 0 is the most significant bit, as in
the index of a state vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


def parity(mask: int) -> int:
    """Number of set bits, modulo 2."""
    return mask.bit_count() & 1


@dataclass(frozen=True)
class Pauli:
    """i**power X**x Z**z: first signs by the bits of `z`, then flips of the bits of `x`."""

    x: int
    z: int
    power: int = 0

    def __matmul__(self, other: Pauli) -> Pauli:
        power = self.power + other.power + 2 * parity(self.z & other.x)
        return Pauli(self.x ^ other.x, self.z ^ other.z, power % 4)

    def commutes_with(self, other: Pauli) -> bool:
        return parity(self.x & other.z) == parity(self.z & other.x)

    def times_i(self, power: int) -> Pauli:
        return Pauli(self.x, self.z, (self.power + power) % 4)

    @property
    def sign(self) -> float:
        """+1 or -1: what stands before the Hermitian operator i**(number of Y) X**x Z**z."""
        power = (self.power - (self.x & self.z).bit_count()) % 4
        assert power in (0, 2), f"{self} is not Hermitian"
        return 1.0 - power

    def letters(self, num_qubits: int) -> str:
        """The operator as a Pauli string, without its sign."""
        bits = [1 << (num_qubits - 1 - qubit) for qubit in range(num_qubits)]
        return "".join("IXZY"[bool(self.x & bit) + 2 * bool(self.z & bit)] for bit in bits)


class Frame:
    """Where each qubit's bit is found after permutations that were never carried out.

    CNOT, SWAP and X only rename basis states, so amplitudes stay where they are and the frame remembers that the bit of
    qubit q is the parity of the stored index under `rows[q]`, flipped if `flips[q]`, and that XOR with `directions[q]`
    flips this bit and no other.
    """

    def __init__(self, num_qubits: int) -> None:
        self.rows = [1 << (num_qubits - 1 - qubit) for qubit in range(num_qubits)]
        self.directions = list(self.rows)
        self.flips = [0] * num_qubits

    def flip(self, qubit: int) -> None:
        self.flips[qubit] ^= 1

    def add(self, control: int, target: int) -> None:
        """CNOT: the bit of `target` becomes its sum with that of `control`."""
        self.rows[target] ^= self.rows[control]
        self.flips[target] ^= self.flips[control]
        self.directions[control] ^= self.directions[target]

    def x(self, qubit: int) -> Pauli:
        return Pauli(self.directions[qubit], 0)

    def z(self, qubit: int) -> Pauli:
        return Pauli(0, self.rows[qubit], 2 * self.flips[qubit])

    def y(self, qubit: int) -> Pauli:
        return (self.x(qubit) @ self.z(qubit)).times_i(1)


# Linear algebra over bits: independent masks, dual directions, and bases that bring chosen bits next to each other.


IntArray = npt.NDArray[np.int64]


def parities(values: IntArray) -> IntArray:
    """Number of set bits of each entry, modulo 2."""
    folded = values.copy()
    for shift in (32, 16, 8, 4, 2, 1):
        folded ^= folded >> shift
    return folded & 1


def signs(mask: int, num_bits: int) -> IntArray:
    """(-1)**parity(index & mask) for all indices of `num_bits` bits."""
    return 1 - 2 * parities(np.arange(2**num_bits, dtype=np.int64) & mask)


def independent(masks: Sequence[int]) -> list[int]:
    """Those masks that are no sum of earlier ones."""
    kept: list[int] = []
    basis: list[int] = []
    for mask in masks:
        rest = mask
        for vector in basis:
            rest = min(rest, rest ^ vector)
        if rest:
            basis.append(rest)
            kept.append(mask)
    return kept


def dual_directions(rows: Sequence[int]) -> list[int]:
    """Directions d with parity(d_i & row_j) = (i == j), for independent rows; Gauss-Jordan elimination."""
    matrix = [(row, 1 << place) for place, row in enumerate(rows)]
    pivots: list[int] = []
    for place in range(len(matrix)):
        pivot = 1 << (matrix[place][0].bit_length() - 1)
        pivots.append(pivot)
        for other in range(len(matrix)):
            if other != place and matrix[other][0] & pivot:
                matrix[other] = (matrix[other][0] ^ matrix[place][0], matrix[other][1] ^ matrix[place][1])
    # Reduced row k is the sum of the rows in its mask and reads pivot k alone, so direction i collects pivots by mask.
    return [
        sum(pivot for pivot, (_, mask) in zip(pivots, matrix, strict=True) if mask >> place & 1)
        for place in range(len(rows))
    ]


def completed(bits: Sequence[tuple[int, int]], num_bits: int, count: int) -> list[int]:
    """The directions of `bits`, and more up to `count`, which are independent and leave the given rows alone.

    Args:
        bits: (direction, row) with parity(direction_i & row_j) = (i == j).
        num_bits: length of the masks.
        count: directions wanted, at most `num_bits`.
    """
    directions = [direction for direction, _ in bits]
    for position in reversed(range(num_bits)):
        candidate = 1 << position
        for direction, row in bits:
            candidate ^= direction if parity(candidate & row) else 0
        if len(directions) < count and len(independent([*directions, candidate])) > len(directions):
            directions.append(candidate)
    return directions


def combinations(directions: Sequence[int]) -> IntArray:
    """XOR of the directions chosen by the bits of each index, the first direction being the most significant bit."""
    sums = np.zeros(1, np.int64)
    for direction in directions:
        sums = np.stack([sums, sums ^ direction], axis=1).ravel()
    return sums
