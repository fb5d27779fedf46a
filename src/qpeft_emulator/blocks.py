"""Connected blocks of living qubits with good couplers: what bestQubitBlocks lists."""

from __future__ import annotations

import math
from collections.abc import Collection

from qpeft_emulator.chip import Chip


def best_blocks(chip: Chip, size: int, count: int) -> list[list[int]]:
    """At most `count` blocks of `size` connected living qubits that share none, the best first.

    Each is grown along the best couplers; it is a good one, not always the best there is.
    """
    free = set(chip.qubits)
    blocks: list[list[int]] = []
    while len(blocks) < count and (block := grown_block(chip, size, free)):
        blocks.append(sorted(block))
        free -= set(block)
    return blocks


def grown_block(chip: Chip, size: int, free: Collection[int]) -> list[int] | None:
    """Among blocks grown from every free qubit the one with the best fidelities, in the order of growth; or None."""
    grown = [block for start in sorted(free) if (block := _grown_from(chip, start, size, free))]
    return max(grown, key=lambda block: _quality(chip, block), default=None)


def _grown_from(chip: Chip, start: int, size: int, free: Collection[int]) -> list[int] | None:
    block = [start]
    while len(block) < size:
        edges = [
            (_fidelity(chip, qubit, neighbour), neighbour)
            for qubit in block
            for neighbour in chip.neighbours(qubit)
            if neighbour in free and neighbour not in block
        ]
        if not edges:
            return None
        block.append(max(edges)[1])
    return block


def _quality(chip: Chip, block: list[int]) -> float:
    """Mean logarithm of the fidelities of couplers and readouts within the block."""
    inside = [_fidelity(chip, a, b) for a in block for b in block if a < b and chip.has_edge(a, b)]
    readouts = [chip.qubits[qubit].readout_fidelity for qubit in block]
    return sum(math.log(fidelity) for fidelity in inside + readouts) / len(inside + readouts)


def _fidelity(chip: Chip, first: int, second: int) -> float:
    return chip.edges[min(first, second), max(first, second)]
