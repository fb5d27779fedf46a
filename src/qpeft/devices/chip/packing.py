"""As many sets as possible that share nothing, and among as many, the best ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

MAX_STARTING = 32
"""Blocks with the same first element that are looked at, the best ones; rings of 8 on a square grid have 7."""
MAX_WORK = 20_000
"""Beginnings of a packing times the blocks that may follow. Rings of 4 or 8 on a grid 6 wide stay below it: exact."""

Block: TypeAlias = tuple[int, ...]
Packing: TypeAlias = tuple[int, float, tuple[Block, ...]]
"""Some disjoint blocks: how many, the sum of their scores, and the blocks."""


def pack(scores: Mapping[Block, float], most: int | None) -> list[Block]:
    """Return disjoint blocks, the best first.

    Args:
        scores: blocks of one size with their scores; more is better, and no two have the same elements.
        most: how many are wanted; None for as many as there are. If always taking the best one that fits finds that
            many, those are returned.
    """
    ranked = sorted(scores, key=lambda block: (-scores[block], block))
    if most is not None and len(best_ones := _disjoint(ranked)[:most]) == most:
        return best_ones

    # Elements are gone through in ascending order, and each is left alone or covered by a block that begins with it.
    elements = sorted({element for block in scores for element in block})
    bit = {element: 1 << place for place, element in enumerate(elements)}
    starting: dict[int, list[tuple[int, Block]]] = {element: [] for element in elements}
    for block in ranked:
        # By first element: whoever comes to it decides on all blocks that begin there.
        if len(starting[min(block)]) < MAX_STARTING:
            starting[min(block)].append((sum(bit[element] for element in block), block))

    # Beginnings that have taken the same elements further on have the same future, so the best of them is kept: on a
    # grid numbered row by row there are few. A state is the bits of those elements.
    states: dict[int, Packing] = {0: (0, 0.0, ())}
    for element in elements:
        following: dict[int, Packing] = {}
        # Where there are too many, those are dropped that have left the most elements behind them alone.
        limit = MAX_WORK // (1 + len(starting[element]))
        kept = states.items() if len(states) <= limit else sorted(states.items(), key=_use, reverse=True)[:limit]
        for taken, packing in kept:
            count, total, blocks = packing
            choices = [(taken, packing)] + [
                (taken | mask, (count + 1, total + scores[block], (*blocks, block)))
                for mask, block in starting[element]
                if not taken & mask
            ]
            for bits, choice in choices:
                future = bits & ~bit[element]
                if future not in following or choice[:2] > following[future][:2]:
                    following[future] = choice
        states = following
    # After the last element nothing is taken further on, so one state is left.
    ((_, _, largest),) = states.values()
    return _disjoint(sorted(largest, key=lambda block: (-scores[block], block)))[:most]


def _disjoint(blocks: Iterable[Block]) -> list[Block]:
    """Return the blocks that share nothing with those before them."""
    taken: set[int] = set()
    chosen = []
    for block in blocks:
        if taken.isdisjoint(block):
            taken.update(block)
            chosen.append(block)
    return chosen


def _use(state: tuple[int, Packing]) -> tuple[int, float]:
    """Return how many of the elements gone through are covered, then the score."""
    taken, (count, score, blocks) = state
    # Those of all blocks, without the bits that are still ahead.
    return len(blocks[-1] if blocks else ()) * count - taken.bit_count(), score
