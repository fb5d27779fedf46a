"""Ways to lay a small graph into a large one so that every edge falls on an edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

Graph = Mapping[int, set[int]]
"""Neighbours of every node."""

MAX_TRIES = 2000
"""Nodes that the search tries from each first place; a ring of 8 on a square grid needs fewer than 1,000."""


def graph(nodes: Iterable[int], edges: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    """Nodes with their neighbours; edges of which an end is no node are left out."""
    neighbours: dict[int, set[int]] = {node: set() for node in nodes}
    for first, second in edges:
        if first in neighbours and second in neighbours:
            neighbours[first].add(second)
            neighbours[second].add(first)
    return neighbours


def embeddings(wanted: Graph, given: Graph) -> Iterator[dict[int, int]]:
    """Maps from the nodes of `wanted` to different nodes of `given` that keep neighbours side by side.

    All there are, in a fixed order, unless from one first place more than `MAX_TRIES` nodes would have to be tried:
    then the first ones found there. Each map is found once, so a ring comes in all its turns and reflections.
    """
    if len(wanted) > len(given):
        return
    order, steps, apart = _order(wanted), _distances(wanted), _distances(given)
    for first in sorted(given):
        tries = iter(range(MAX_TRIES))
        yield from _extend({order[0]: first}, order, wanted, given, (steps, apart), tries)


def _extend(
    places: dict[int, int],
    order: list[int],
    wanted: Graph,
    given: Graph,
    distances: tuple[dict[int, dict[int, int]], dict[int, dict[int, int]]],
    tries: Iterator[int],
) -> Iterator[dict[int, int]]:
    if len(places) == len(order):
        yield places
        return
    node, (steps, apart) = order[len(places)], distances
    settled = [places[partner] for partner in wanted[node] if partner in places]
    candidates = set.intersection(*(given[place] for place in settled)) if settled else set(given)
    for place in sorted(candidates.difference(places.values())):
        if next(tries, None) is None:
            return
        # An embedding cannot move two nodes further apart than they are, so hopeless beginnings end early.
        if all(
            apart[place].get(there, math.inf) <= steps[node].get(other, math.inf) for other, there in places.items()
        ):
            yield from _extend({**places, node: place}, order, wanted, given, distances, tries)


def _order(wanted: Graph) -> list[int]:
    """The nodes, each after as many of its neighbours as possible."""
    order: list[int] = []
    while left := [node for node in wanted if node not in order]:
        order.append(max(left, key=lambda node: (len(wanted[node].intersection(order)), len(wanted[node]), -node)))
    return order


def _distances(edges: Graph) -> dict[int, dict[int, int]]:
    """Steps between every two nodes that are joined at all."""
    return {node: _distances_from(node, edges) for node in edges}


def _distances_from(start: int, edges: Graph) -> dict[int, int]:
    distances, queue = {start: 0}, [start]
    for node in queue:
        for neighbour in edges[node] - distances.keys():
            distances[neighbour] = distances[node] + 1
            queue.append(neighbour)
    return distances
