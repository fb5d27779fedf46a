"""Disjoint places for a circuit on a chip, by what the chip's calibration says of its qubits and couplers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import networkx as nx

from qpeft.circuits import Circuit
from qpeft.circuits.native import gate_counts
from qpeft.devices.chip.packing import pack
from qpeft.errors import DeviceError
from qpeft.simulation.noise import NoiseModel
from qpeft.simulation.noise.channels import average_fidelity, gate_noise

LEAST_FIDELITY = 1e-12
"""A readout that is always wrong counts as this."""
MAX_TRIES = 2000
"""Nodes that the search tries from each first place; a ring of 8 on a square grid needs fewer than 1,000."""


def find_blocks(circuit: Circuit, calibration: NoiseModel, *, most: int | None = None) -> list[tuple[int, ...]]:
    """Return disjoint places for `circuit` on a chip, the best first.

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
        (`MAX_TRIES`, `packing.MAX_WORK`); among as many, those with the best fidelities together.

    Raises: DeviceError if no block is found, or `most` is below 1.
    """
    if most is not None and most < 1:
        raise DeviceError(
            f"At least 1 block must be asked for; got most={most}. For as many as there are, leave it out."
        )
    pulses, couplings = gate_counts(circuit)
    wanted = _graph(range(circuit.num_qubits), couplings)

    # Logarithms of fidelities, which add up over all that happens on a block.
    of_pulse, of_readout = {}, {}
    for qubit, noise in calibration.qubits:
        wrong = (noise.readout.p1_given_0 + noise.readout.p0_given_1) / 2
        of_readout[qubit] = math.log(max(LEAST_FIDELITY, 1 - wrong))
        of_pulse[qubit] = math.log(average_fidelity(gate_noise(calibration, (qubit,))))
    of_cz = {edge: math.log(average_fidelity(gate_noise(calibration, edge))) for edge, _ in calibration.edges}

    def score(block: Sequence[int]) -> float:
        # Per qubit one readout and its pulses; a CZ counts as often as it stands in the circuit.
        alone = sum(of_readout[block[q]] + count * of_pulse[block[q]] for q, count in pulses.items())
        edges = {(block[a], block[b]): count for (a, b), count in couplings.items()}
        return alone + sum(count * of_cz[min(edge), max(edge)] for edge, count in edges.items())

    free = set(of_readout)
    blocks: list[tuple[int, ...]] = []
    while most is None or len(blocks) < most:
        # Of all ways to lie on one set of qubits, the best.
        best: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {}
        for places in embeddings(wanted, _graph(free, of_cz)):
            block = tuple(places[qubit] for qubit in sorted(places))
            value, key = score(block), frozenset(block)
            if key not in best or value > best[key][0]:
                best[key] = (value, block)
        scores = {block: value for value, block in best.values()}
        # What a search that was cut short has overlooked is found in what is left.
        if not (found := pack(scores, None if most is None else most - len(blocks))):
            break
        blocks += found
        free.difference_update(*found)
    if not blocks:
        names = ", ".join(f"{a}-{b}" for a in wanted for b in sorted(wanted[a]) if a < b) or "none"
        raise DeviceError(
            f"No place was found for the circuit: it needs {len(wanted)} qubits with the couplings {names}; of the "
            f"chip {len(calibration.qubits)} qubits and {len(calibration.edges)} couplers live. Use fewer qubits (a "
            "ring on a square grid needs an even number), an ansatz with fewer couplings such as ring_cz, another "
            "chip, or let the cloud place the circuit (mapping on)."
        )
    return sorted(blocks, key=lambda block: (-score(block), block))


def block_calibration(calibration: NoiseModel, block: Sequence[int]) -> NoiseModel:
    """Return the part of a chip's calibration that a circuit on `block` meets, by the circuit's own numbers.

    Raises: NoiseError if the calibration lacks a qubit of the block.
    """
    place = {qubit: index for index, qubit in enumerate(block)}
    qubits = {index: calibration.qubit(qubit) for qubit, index in place.items()}
    # Couplers that lead out of the block are not driven, so their noise does not matter.
    inside = [(edge, noise) for edge, noise in calibration.edges if set(edge) <= set(place)]
    edges = {(place[a], place[b]): noise for (a, b), noise in inside}
    return replace(NoiseModel.from_mappings(qubits, edges), free_gates=calibration.free_gates)


def _graph(nodes: Iterable[int], edges: Iterable[tuple[int, int]]) -> nx.Graph:
    """Return the edges between `nodes`. Nodes and neighbours ascend, so that blocks are found in one order."""
    graph = nx.Graph()
    graph.add_nodes_from(sorted(nodes))
    ordered = sorted((min(edge), max(edge)) for edge in edges)
    graph.add_edges_from(edge for edge in ordered if all(map(graph.has_node, edge)))
    return graph


def embeddings(wanted: nx.Graph, given: nx.Graph) -> Iterator[dict[int, int]]:
    """Return maps from the nodes of `wanted` to different nodes of `given` that keep neighbours side by side.

    Each map is found once, so a ring comes in all its turns and reflections. Nodes and neighbours of `given` are tried
    in the order in which they were added to it, so what is added first is found first.

    networkx has a search of its own (`GraphMatcher.subgraph_monomorphisms_iter`). For rings of 8 on the chip's grid of
    72 it finds the same maps in twenty times the time, and where nothing fits it does not end within reason.

    Returns: All there are, unless from one first place more than `MAX_TRIES` nodes would have to be tried: then the
        first ones found there.
    """
    if len(wanted) > len(given):
        return
    # Each node after as many of its neighbours as possible, so that few places are left to try.
    order: list[int] = []
    while left := [node for node in wanted if node not in order]:
        order.append(max(left, key=lambda node: (sum(n in order for n in wanted[node]), wanted.degree(node), -node)))
    steps, apart = (dict(nx.all_pairs_shortest_path_length(one)) for one in (wanted, given))

    def extend(places: dict[int, int], tries: Iterator[int]) -> Iterator[dict[int, int]]:
        """Place the nodes of `order` that are not in `places`; the search ends with the items of `tries`."""
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
                yield from extend({**places, node: place}, tries)

    for first in given:
        yield from extend({order[0]: first}, iter(range(MAX_TRIES)))
