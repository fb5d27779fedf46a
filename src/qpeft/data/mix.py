"""Several sources as one stream, in an order that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from qpeft.data.example import Example


def mix(sources: Sequence[tuple[Iterable[Example], float]], *, seed: int) -> Iterator[Example]:
    """The examples of all sources, each source in its own order, spread at random over the whole stream.

    Args:
        sources: examples that can be read again, and how often they are read: 1 gives each once, 2 twice, 0.5 a half of
            them, chosen by their text. Several sources are read once more, to be counted.
        seed: of the order; one source keeps its own whatever the seed.
    """
    generator = random.Random(seed)
    streams = [_repeat(examples, weight) for examples, weight in sources]
    left = [_count(examples, weight) for examples, weight in sources] if len(sources) > 1 else []
    while any(left):
        # Drawn as from an urn: a small source would else be used up long before a large one.
        (chosen,) = generator.choices(range(len(streams)), left)
        left[chosen] -= 1
        yield next(streams[chosen])
    if not left:
        yield from chain(*streams)


def _repeat(examples: Iterable[Example], times: float) -> Iterator[Example]:
    for _ in range(int(times)):
        yield from examples
    if times % 1:
        yield from (one for one in examples if _is_among(one, times % 1))


def _count(examples: Iterable[Example], times: float) -> int:
    return sum(int(times) + _is_among(one, times % 1) for one in examples)


def _is_among(one: Example, share: float) -> bool:
    # Not the first digits, by which examples are held out: what is left to train on is the upper part of those.
    return int(one.digest[-8:], 16) < share * 16**8
