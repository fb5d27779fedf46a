"""Ways to lay a small graph into a large one so that every edge falls on an edge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import networkx as nx

MAX_TRIES = 2000
"""Nodes that the search tries from each first place; a ring of 8 on a square grid needs fewer than 1,000."""

Distances = Mapping[int, Mapping[int, int]]


def embeddings(wanted: nx.Graph, given: nx.Graph) -> Iterator[dict[int, int]]:
    """Maps from the nodes of `wanted` to different nodes of `given` that keep neighbours side by side.

    Each map is found once, so a ring comes in all its turns and reflections. Nodes and neighbours of `given` are tried
    in the order in which they were added to it, so what is added first is found first.

    networkx has a search of its own (`GraphMatcher.subgraph_monomorphisms_iter`). For rings of 8 on the chip's grid of
    72 it finds the same maps in twenty times the time, and where nothing fits it does not end within reason.

    Returns: All there are, unless from one first place more than `MAX_TRIES` nodes would have to be tried: then the
        first ones found there.
    """
    if len(wanted) > len(given):
        return
    order = _order(wanted)
    steps, apart = (dict(nx.all_pairs_shortest_path_length(one)) for one in (wanted, given))
    for first in given:
        yield from _extend({order[0]: first}, order, wanted, given, steps, apart, iter(range(MAX_TRIES)))


def _extend(
    places: dict[int, int],
    order: list[int],
    wanted: nx.Graph,
    given: nx.Graph,
    steps: Distances,
    apart: Distances,
    tries: Iterator[int],
) -> Iterator[dict[int, int]]:
    """All ways to place the nodes of `order` that are not in `places`.

    Args:
        places: those placed so far.
        order: all nodes of `wanted`.
        wanted, given: the graphs.
        steps, apart: distances in them; nodes that nothing joins are left out.
        tries: one item is taken for every node that is tried; the search ends with them.
    """
    if len(places) == len(order):
        yield places
        return
    node, taken = order[len(places)], set(places.values())
    settled = [places[partner] for partner in wanted[node] if partner in places]
    for place in given[settled[0]] if settled else given:
        if place in taken or not all(given.has_edge(place, other) for other in settled):
            continue
        if next(tries, None) is None:
            return
        # An embedding cannot move two nodes further apart than they are, so hopeless beginnings end early.
        if all(
            apart[place].get(there, math.inf) <= steps[node].get(other, math.inf) for other, there in places.items()
        ):
            yield from _extend({**places, node: place}, order, wanted, given, steps, apart, tries)


def _order(wanted: nx.Graph) -> list[int]:
    """The nodes, each after as many of its neighbours as possible."""
    order: list[int] = []
    while left := [node for node in wanted if node not in order]:
        order.append(max(left, key=lambda node: (sum(n in order for n in wanted[node]), wanted.degree(node), -node)))
    return order
