"""Where on the chip a program runs: as it says, or on living qubits that the emulator chooses.

With mapping, a program whose couplings fit into the grid is laid into it; another one gets a block of connected qubits
and SWAPs along the shortest way. The cloud's own mapping is better at it; this one is only right.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import networkx as nx

from qpeft.circuits import Operation
from qpeft.errors import DeviceError
from qpeft_emulator.chip import EmulatedChip
from qpeft_emulator.parser import ParsedProgram

MAX_TRIES = 20_000
"""Placements of a qubit that the search for an embedding tries before SWAPs are used."""


@dataclass(frozen=True)
class Placed:
    """A program on the chip's own qubits.

    Attributes:
        operations: on qubits of the chip, couplings on living couplers only.
        places: where each qubit of the program is at the end.
    """

    operations: tuple[Operation, ...]
    places: Mapping[int, int]


def as_written(program: ParsedProgram, chip: EmulatedChip) -> Placed:
    """Return the program on the qubits that it names.

    Raises: DeviceError if one of them is dead, or a gate has no living coupler.
    """
    for qubit in program.used_qubits:
        if qubit not in chip.qubits:
            raise DeviceError(
                f"Qubit {qubit} is dead or not on chip {chip.chip_id}. Use its AvailableQubits, or mapping."
            )
    for operation in program.circuit.operations:
        if len(operation.qubits) == 2 and not chip.has_edge(*operation.qubits):
            raise DeviceError(
                f"{operation.gate_name} on qubits {operation.qubits} has no living coupler on chip {chip.chip_id}. "
                f"Use couplers whose fidelity in adjMatrix is above 0, or mapping."
            )
    return Placed(program.circuit.operations, {qubit: qubit for qubit in program.used_qubits})


def mapped(program: ParsedProgram, chip: EmulatedChip, allowed: Collection[int]) -> Placed:
    """Return the program on living qubits among `allowed`; every group of coupled qubits on a block of its own.

    Args:
        program: as parsed.
        chip: with its living qubits and couplers.
        allowed: qubits that may be used.

    Raises: DeviceError if there are too few of them in one piece.
    """
    free = set(allowed) & set(chip.qubits)
    operations: list[Operation] = []
    places: dict[int, int] = {}
    # Large groups first: small ones fit into what these leave over, and not the other way round.
    for group in sorted(coupled_groups(program.used_qubits, program.circuit.operations), key=len, reverse=True):
        # The first qubit decides: both qubits of a gate are in one group.
        own = [operation for operation in program.circuit.operations if operation.qubits[0] in group]
        placed = _place_group(group, own, chip, free)
        operations += placed.operations
        places |= placed.places
        # SWAPs stay within the block, so the places at the end are those that were taken.
        free -= set(placed.places.values())
    return Placed(tuple(operations), places)


def coupled_groups(qubits: Collection[int], operations: Collection[Operation]) -> list[list[int]]:
    """Return qubits that gates join, also through others; each group ascending, groups by their first qubit."""
    return sorted(map(sorted, nx.connected_components(_couplings(qubits, operations))))


def _couplings(qubits: Collection[int], operations: Collection[Operation]) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(sorted(qubits))
    graph.add_edges_from(operation.qubits for operation in operations if len(operation.qubits) == 2)
    return graph


def _place_group(group: list[int], operations: list[Operation], chip: EmulatedChip, free: set[int]) -> Placed:
    partners = _couplings(group, operations)
    # From the qubit with most partners outwards, so that each but the first has a partner before it, and only the
    # neighbours of that partner's place need to be tried.
    order = list(nx.bfs_tree(partners, max(partners, key=partners.degree), sort_neighbors=sorted))
    tries = iter(range(MAX_TRIES))

    def search(places: dict[int, int]) -> dict[int, int] | None:
        """Depth first along good couplers, with partners side by side; None if there is no way, or no patience left."""
        if len(places) == len(order):
            return places
        qubit = order[len(places)]
        settled = [places[partner] for partner in partners[qubit] if partner in places]
        nearby = chip.neighbours(settled[0]) if settled else sorted(free, key=lambda q: -chip.qubits[q].gate_fidelity)
        for place in nearby:
            if place in free and place not in places.values() and all(chip.has_edge(place, one) for one in settled):
                if next(tries, None) is None:
                    return None
                if found := search({**places, qubit: place}):
                    return found
        return None

    found = search({})
    if found is not None:
        moved = [Operation(op.gate_name, tuple(found[q] for q in op.qubits), op.angle) for op in operations]
        return Placed(tuple(moved), found)
    block = grown_block(chip, len(group), free)
    if block is None:
        raise DeviceError(f"No block of {len(group)} connected living qubits is left on chip {chip.chip_id}.")
    return _routed(operations, dict(zip(order, block, strict=True)), chip)


def _routed(operations: list[Operation], places: dict[int, int], chip: EmulatedChip) -> Placed:
    """Return operations on the chip, with SWAPs where partners are apart; `places` are where the qubits start."""
    places, inside, routed = dict(places), chip.graph.subgraph(places.values()), []
    for operation in operations:
        if len(operation.qubits) == 2:
            first, second = (places[qubit] for qubit in operation.qubits)
            for here, there in zip(path := nx.shortest_path(inside, first, second), path[1:-1], strict=False):
                routed.append(Operation("SWAP", (here, there)))
                # Whatever qubit sits on the way changes place too, so all later operations are told.
                exchange = {here: there, there: here}
                places = {qubit: exchange.get(place, place) for qubit, place in places.items()}
        routed.append(Operation(operation.gate_name, tuple(places[q] for q in operation.qubits), operation.angle))
    return Placed(tuple(routed), places)


# Connected blocks of living qubits with good couplers: what bestQubitBlocks lists.


def best_blocks(chip: EmulatedChip, size: int, count: int) -> list[list[int]]:
    """Return at most `count` blocks of `size` connected living qubits that share none, the best first.

    Each is grown along the best couplers; it is a good one, not always the best there is.

    Args:
        chip: with its living qubits and couplers.
        size: qubits of a block.
        count: the most blocks.
    """
    free = set(chip.qubits)
    blocks: list[list[int]] = []
    while len(blocks) < count and (block := grown_block(chip, size, free)):
        blocks.append(sorted(block))
        free -= set(block)
    return blocks


def grown_block(chip: EmulatedChip, size: int, free: Collection[int]) -> list[int] | None:
    """Return the best of the blocks grown from every free qubit, in the order of growth; None if none is so large.

    Args:
        chip: with its living qubits and couplers.
        size: qubits of the block.
        free: qubits that no other block has.
    """
    best: list[int] | None = None
    best_quality = -math.inf
    for start in sorted(free):
        block = [start]
        while len(block) < size:
            # The best coupler that leaves the block, wherever it leaves; of equal ones that to the highest number.
            edges = [
                (_fidelity(chip, qubit, neighbour), neighbour)
                for qubit in block
                for neighbour in chip.neighbours(qubit)
                if neighbour in free and neighbour not in block
            ]
            if not edges:
                break
            block.append(max(edges)[1])
        if len(block) < size:
            continue
        # Mean logarithm, the geometric mean: one bad coupler spoils a block more than good ones make up for.
        inside = [_fidelity(chip, a, b) for a in block for b in block if a < b and chip.has_edge(a, b)]
        listed = inside + [chip.qubits[qubit].readout_fidelity for qubit in block]
        quality = sum(math.log(fidelity) for fidelity in listed) / len(listed)
        if quality > best_quality:
            best, best_quality = block, quality
    return best


def _fidelity(chip: EmulatedChip, first: int, second: int) -> float:
    return chip.edges[min(first, second), max(first, second)]
