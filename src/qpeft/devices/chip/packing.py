"""As many sets as possible that share nothing, and among as many, the best ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_STARTING = 32
"""Blocks with the same first element that are looked at, the best ones; rings of 8 on a square grid have 7."""
MAX_WORK = 20_000
"""Beginnings of a packing times the blocks that may follow. Rings of 4 or 8 on a grid 6 wide stay below it: exact."""

Block = tuple[int, ...]


@dataclass(frozen=True)
class _Packing:
    """Some disjoint blocks: how many, the sum of their scores, and as a chain the last one and those before it."""

    count: int = 0
    score: float = 0.0
    last: Block | None = None
    before: _Packing | None = None

    def and_one(self, block: Block, score: float) -> _Packing:
        return _Packing(self.count + 1, self.score + score, block, self)

    def blocks(self) -> list[Block]:
        return [] if self.before is None or self.last is None else [*self.before.blocks(), self.last]

    def is_better(self, other: _Packing | None) -> bool:
        return other is None or (self.count, self.score) > (other.count, other.score)


def pack(scores: Mapping[Block, float], most: int | None) -> list[Block]:
    """Disjoint blocks, the best first.

    Args:
        scores: blocks of one size with their scores; more is better, and no two have the same elements.
        most: if so many are found by always taking the best one that fits, those it is; None for as many as there are.
    """
    ranked = sorted(scores, key=lambda block: (-scores[block], block))
    if most is not None and len(best_ones := _disjoint(ranked)[:most]) == most:
        return best_ones
    return _disjoint(sorted(_largest(scores), key=lambda block: (-scores[block], block)))[:most]


def _disjoint(blocks: Iterable[Block]) -> list[Block]:
    """The blocks that share nothing with those before them."""
    taken: set[int] = set()
    chosen = []
    for block in blocks:
        if taken.isdisjoint(block):
            taken.update(block)
            chosen.append(block)
    return chosen


def _largest(scores: Mapping[Block, float]) -> list[Block]:
    """The most disjoint blocks, and among as many those of the highest sum of scores.

    Elements are gone through in ascending order, and each is left alone or covered by a block that begins with it.
    Beginnings that have taken the same elements further on have the same future, so the best of them is kept: on a grid
    numbered row by row there are few. Where there are too many for `MAX_WORK`, those that waste most are dropped.
    """
    elements = sorted({element for block in scores for element in block})
    bit = {element: 1 << place for place, element in enumerate(elements)}
    starting: dict[int, list[tuple[int, Block]]] = {element: [] for element in elements}
    for block in sorted(scores, key=lambda block: (-scores[block], block)):
        if len(starting[min(block)]) < MAX_STARTING:
            starting[min(block)].append((sum(bit[element] for element in block), block))
    states = {0: _Packing()}
    for element in elements:
        following: dict[int, _Packing] = {}
        for taken, packing in _least_wasteful(states, MAX_WORK // (1 + len(starting[element]))).items():
            _keep(following, taken & ~bit[element], packing)
            for mask, block in starting[element]:
                if not taken & mask:
                    _keep(following, (taken | mask) & ~bit[element], packing.and_one(block, scores[block]))
        states = following
    (packing,) = states.values()
    return packing.blocks()


def _keep(states: dict[int, _Packing], taken: int, packing: _Packing) -> None:
    if packing.is_better(states.get(taken)):
        states[taken] = packing


def _least_wasteful(states: dict[int, _Packing], limit: int) -> dict[int, _Packing]:
    if len(states) <= limit:
        return states

    def covered_so_far(state: tuple[int, _Packing]) -> tuple[int, float]:
        taken, packing = state
        return len(packing.last or ()) * packing.count - taken.bit_count(), packing.score

    return dict(sorted(states.items(), key=covered_so_far, reverse=True)[:limit])
