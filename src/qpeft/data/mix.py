"""Several sources as one stream, in an order that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from qpeft.data.example import Example


def mix(sources: Sequence[tuple[Iterable[Example], float]], *, seed: int) -> Iterator[Example]:
    """The examples of all sources, each source in its own order, interleaved at random in proportion to the weights.

    Args:
        sources: examples that can be read again, and how often they are read: 1 gives each once, 2 twice, 0.5 a half of
            them, chosen by their text.
        seed: of the order; one source keeps its own whatever the seed.
    """
    generator = random.Random(seed)
    streams = [(_repeat(examples, weight), weight) for examples, weight in sources]
    while streams:
        (chosen,) = generator.choices(range(len(streams)), [weight for _, weight in streams])
        example = next(streams[chosen][0], None)
        if example is None:
            del streams[chosen]
        else:
            yield example


def _repeat(examples: Iterable[Example], times: float) -> Iterator[Example]:
    for _ in range(int(times)):
        yield from examples
    if rest := times % 1:
        # Not the first digits, by which examples are held out: what is left to train on is the upper part of those.
        yield from (one for one in examples if int(one.digest[-8:], 16) < rest * 16**8)
