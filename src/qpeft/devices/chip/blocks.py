"""Disjoint places for a circuit on a chip, by what the chip's calibration says of its qubits and couplers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import networkx as nx

from qpeft.circuits import Circuit
from qpeft.circuits.native import gate_counts
from qpeft.devices.chip.packing import pack
from qpeft.errors import DeviceError
from qpeft.simulation.noise import NoiseModel, QubitNoise
from qpeft.simulation.noise.channels import average_fidelity, gate_noise

LEAST_FIDELITY = 1e-12
"""A readout that is always wrong counts as this."""


def find_blocks(circuit: Circuit, calibration: NoiseModel, *, most: int | None = None) -> list[tuple[int, ...]]:
    """Disjoint places for `circuit` on a chip, the best first.

    The score of a block is the logarithm of its predicted fidelity: of every pulse, every CZ and every readout that
    the circuit costs there, in the chip's own gates (`circuits.native`).

    Args:
        circuit: bound or not; only which gates stand where matters.
        calibration: of the chip, by the chip's own numbers; what is dead is not in it.
        most: how many blocks are wanted; None for as many as there are. With fewer than there are, the best ones are
            taken one after the other.

    Returns:
        Blocks; element k of each is the chip's qubit for qubit k of the circuit, and every gate on two qubits has a
        living coupler. As many as possible, unless the search for large or loosely coupled circuits is cut short
        (`embeddings.MAX_TRIES`, `packing.MAX_WORK`); among as many, those with the best fidelities together.

    Raises: DeviceError if no block is found, or `most` is below 1.
    """
    if most is not None and most < 1:
        raise DeviceError(
            f"At least 1 block must be asked for; got most={most}. For as many as there are, leave it out."
        )
    pulses, flips = gate_counts(circuit)
    wanted = _graph(range(circuit.num_qubits), flips)
    score = _Score(calibration, pulses, flips)
    free = {qubit for qubit, _ in calibration.qubits}
    blocks: list[tuple[int, ...]] = []
    while most is None or len(blocks) < most:
        given = _graph(free, (edge for edge, _ in calibration.edges))
        # What a search that was cut short has overlooked is found in what is left.
        if not (found := pack(_best_by_place(wanted, given, score), None if most is None else most - len(blocks))):
            break
        blocks += found
        free.difference_update(*found)
    if not blocks:
        raise DeviceError(_nothing_fits(wanted, calibration))
    return sorted(blocks, key=lambda block: (-score(block), block))


def block_calibration(calibration: NoiseModel, block: Sequence[int]) -> NoiseModel:
    """The part of a chip's calibration that a circuit on `block` meets, by the circuit's own numbers.

    Raises: NoiseError if the calibration lacks a qubit of the block.
    """
    place = {qubit: index for index, qubit in enumerate(block)}
    qubits = {index: calibration.qubit(qubit) for qubit, index in place.items()}
    inside = [(edge, noise) for edge, noise in calibration.edges if set(edge) <= set(place)]
    edges = {(place[a], place[b]): noise for (a, b), noise in inside}
    return replace(NoiseModel.from_mappings(qubits, edges), free_gates=calibration.free_gates)


class _Score:
    """Logarithm of the fidelity that the calibration predicts for a circuit on a block."""

    def __init__(self, calibration: NoiseModel, pulses: dict[int, int], flips: dict[tuple[int, int], int]) -> None:
        self._pulses, self._flips = pulses, flips
        self._pulse = {
            qubit: math.log(average_fidelity(gate_noise(calibration, (qubit,)))) for qubit, _ in calibration.qubits
        }
        self._readout = {qubit: math.log(_readout_fidelity(noise)) for qubit, noise in calibration.qubits}
        self._flip = {edge: math.log(average_fidelity(gate_noise(calibration, edge))) for edge, _ in calibration.edges}

    def __call__(self, block: Sequence[int]) -> float:
        alone = sum(self._readout[block[q]] + count * self._pulse[block[q]] for q, count in self._pulses.items())
        edges = {(block[a], block[b]): count for (a, b), count in self._flips.items()}
        return alone + sum(count * self._flip[min(edge), max(edge)] for edge, count in edges.items())


def _graph(nodes: Iterable[int], edges: Iterable[tuple[int, int]]) -> nx.Graph:
    """The edges between `nodes`. Nodes and the neighbours of each ascend, so that blocks are found in one order."""
    graph = nx.Graph()
    graph.add_nodes_from(sorted(nodes))
    graph.add_edges_from(
        edge
        for edge in sorted(tuple(sorted(edge)) for edge in edges)
        if graph.has_node(edge[0]) and graph.has_node(edge[1])
    )
    return graph


def _best_by_place(wanted: nx.Graph, given: nx.Graph, score: _Score) -> dict[tuple[int, ...], float]:
    """For every set of qubits on which the circuit fits, its best way to lie there, and the score."""
    best: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {}
    for places in embeddings(wanted, given):
        block = tuple(places[qubit] for qubit in sorted(places))
        found, key = (score(block), block), frozenset(block)
        if key not in best or found[0] > best[key][0]:
            best[key] = found
    return {block: value for value, block in best.values()}


def _readout_fidelity(noise: QubitNoise) -> float:
    return max(LEAST_FIDELITY, 1 - (noise.readout.p1_given_0 + noise.readout.p0_given_1) / 2)


def _nothing_fits(wanted: nx.Graph, calibration: NoiseModel) -> str:
    couplings = ", ".join(f"{a}-{b}" for a in wanted for b in sorted(wanted[a]) if a < b) or "none"
    return (
        f"No place was found for the circuit: it needs {len(wanted)} qubits with the couplings {couplings}; of the "
        f"chip {len(calibration.qubits)} qubits and {len(calibration.edges)} couplers live. Use fewer qubits (a ring "
        "on a square grid needs an even number), an ansatz with fewer couplings such as ring_cz, another chip, or let "
        "the cloud place the circuit (mapping on)."
    )


# Ways to lay a small graph into a large one so that every edge falls on an edge.


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
