"""Linear algebra over bits: independent masks, dual directions, and bases that bring chosen bits next to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qpeft.simulation.paulis import parity

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
