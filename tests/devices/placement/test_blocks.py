import itertools
import math
import sys

import networkx as nx
import pytest
from calibrations import calibration_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import GraphMatcher

from qpeft.circuits import Circuit, Operation, ansatz
from qpeft.devices.chip import block_calibration, find_blocks
from qpeft.devices.chip.blocks import embeddings
from qpeft.errors import DeviceError, NoiseError
from qpeft.simulation.noise import EdgeNoise, NoiseModel, QubitNoise, ReadoutError
from qpeft_emulator import chip as chips


def living(chip):
    return {edge for edge, fidelity in chip.edges.items() if fidelity > 0}


def assert_proper(blocks, circuit, qubits, edges):
    used = [qubit for block in blocks for qubit in block]
    assert len(used) == len(set(used))
    assert set(used) <= set(qubits)
    for block in blocks:
        assert len(block) == circuit.num_qubits
        for operation in circuit.operations:
            if len(operation.qubits) == 2:
                pair = tuple(sorted(block[qubit] for qubit in operation.qubits))
                assert pair in edges, (block, operation)


@pytest.mark.parametrize(("num_qubits", "count"), [(8, 9), (4, 18)])
@pytest.mark.parametrize("name", ["ring_cz", "ring_crz"])
def test_rings_cover_a_whole_clean_chip(name, num_qubits, count):
    circuit, chip = ansatz.ANSATZE[name](num_qubits), chips.clean()
    blocks = find_blocks(circuit, calibration_of(chip))
    assert len(blocks) == count
    assert_proper(blocks, circuit, range(72), set(chips.grid_edges()))


@pytest.mark.parametrize("seed", range(8))
def test_five_rings_of_eight_fit_on_wukong_soon(seed):
    circuit, chip = ansatz.ring_cz(8), chips.wukong(seed)
    calibration, calls = calibration_of(chip), 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        blocks = find_blocks(circuit, calibration)
    finally:
        sys.setprofile(None)
    assert calls < 500_000  # of Python functions: 130,000 to 230,000, in a tenth of a second
    assert len(blocks) >= 5
    assert_proper(blocks, circuit, chip.qubits, living(chip))
    assert blocks == find_blocks(circuit, calibration)


def log_fidelity(chip, block):
    """By hand, for ring_cz of depth 1: two pulses a qubit, RY RY together and the last RY, and one CZ a coupler."""
    ring = list(zip(block, (*block[1:], block[0]), strict=True))
    edges = sum(math.log(chip.edges[tuple(sorted(pair))]) for pair in ring)
    pulses = sum(2 * math.log(chip.qubits[qubit].gate_fidelity) for qubit in block)
    return edges + pulses + sum(math.log(chip.qubits[qubit].readout_fidelity) for qubit in block)


@pytest.mark.parametrize("seed", [0, 5])
def test_one_block_is_the_best_of_all_squares(seed):
    chip = chips.wukong(seed)
    squares = [(q, q + 1, q + 7, q + 6) for q in range(66) if (q + 1) % 6]
    alive = [s for s in squares if {(s[0], s[1]), (s[1], s[2]), (s[3], s[2]), (s[0], s[3])} <= living(chip)]
    best = max(alive, key=lambda square: log_fidelity(chip, square))
    (block,) = find_blocks(ansatz.ring_cz(4), calibration_of(chip), most=1)
    assert set(block) == set(best)


def test_blocks_come_best_first():
    chip = chips.wukong(3)
    scores = [log_fidelity(chip, block) for block in find_blocks(ansatz.ring_cz(8), calibration_of(chip))]
    assert scores == sorted(scores, reverse=True)


def test_most_limits_the_number_and_takes_better_ones():
    chip = chips.wukong(1)
    all_of_them = find_blocks(ansatz.ring_cz(8), calibration_of(chip))
    two = find_blocks(ansatz.ring_cz(8), calibration_of(chip), most=2)
    assert len(two) == 2
    assert log_fidelity(chip, two[0]) >= log_fidelity(chip, all_of_them[0])
    assert len(find_blocks(ansatz.ring_cz(8), calibration_of(chip), most=50)) == len(all_of_them)


def path_model(fidelity_of_edge):
    edges = {(q, q + 1): EdgeNoise(depolarising=1 - f) for q, f in enumerate(fidelity_of_edge)}
    return NoiseModel.from_mappings({q: QubitNoise() for q in range(len(fidelity_of_edge) + 1)}, edges)


def test_many_blocks_are_preferred_to_a_good_one():
    pair, chip = ansatz.ring_cz(2), path_model([0.9, 0.99, 0.9])
    assert sorted(map(sorted, find_blocks(pair, chip))) == [[0, 1], [2, 3]]
    assert [sorted(block) for block in find_blocks(pair, chip, most=1)] == [[1, 2]]


def test_the_direction_of_a_block_follows_the_cost_of_its_qubits():
    read = {0: QubitNoise(readout=ReadoutError(0.3, 0.3)), 1: QubitNoise(depolarising=0.2)}
    circuit = Circuit(2, (Operation("RY", (0,), 0.4), Operation("CZ", (0, 1)), Operation("RY", (0,), 0.4)))
    chip = NoiseModel.from_mappings(read, {(0, 1): EdgeNoise()})
    assert find_blocks(circuit, chip) == [(0, 1)]  # both qubits are read, but only circuit qubit 0 has pulses


def test_circuits_without_couplings_fill_the_chip():
    alone = Circuit(2, (Operation("H", (0,)), Operation("H", (1,))))
    blocks = find_blocks(alone, NoiseModel.uniform(13, edges=[]))
    assert len(blocks) == 6
    assert_proper(blocks, alone, range(13), set())


@st.composite
def circuits_and_chips(draw):
    size = draw(st.integers(2, 7))
    pairs = list(itertools.combinations(range(size), 2))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True))
    errors = draw(st.lists(st.floats(0, 0.5), min_size=len(edges), max_size=len(edges)))
    chip = NoiseModel.from_mappings(
        {3 * qubit: QubitNoise() for qubit in range(size)},
        {(3 * a, 3 * b): EdgeNoise(p) for (a, b), p in zip(edges, errors, strict=True)},
    )
    num_qubits = draw(st.integers(1, min(3, size)))
    couplings = [pair for pair in itertools.combinations(range(num_qubits), 2) if draw(st.booleans())]
    return Circuit(num_qubits, tuple(Operation("CZ", pair) for pair in couplings)), chip


@settings(max_examples=60, deadline=None)
@given(circuits_and_chips())
def test_the_ways_to_lie_on_a_chip_are_those_of_networkx(case):
    circuit, chip = case
    wanted, given_one = nx.Graph(), nx.Graph()
    wanted.add_nodes_from(range(circuit.num_qubits))
    wanted.add_edges_from(operation.qubits for operation in circuit.operations)
    given_one.add_nodes_from(qubit for qubit, _ in chip.qubits)
    given_one.add_edges_from(edge for edge, _ in chip.edges)
    maps = list(embeddings(wanted, given_one))
    expected = GraphMatcher(given_one, wanted).subgraph_monomorphisms_iter()
    found = {frozenset(places.items()) for places in maps}
    assert len(found) == len(maps)
    assert found == {frozenset((small, large) for large, small in places.items()) for places in expected}


def brute_force(circuit, chip):
    """The largest number of disjoint places, by trying all."""
    edges = {edge for edge, _ in chip.edges}
    fits = set()
    for block in itertools.permutations([qubit for qubit, _ in chip.qubits], circuit.num_qubits):
        if all(tuple(sorted(block[q] for q in op.qubits)) in edges for op in circuit.operations):
            fits.add(frozenset(block))

    def most(left):
        return max((1 + most([b for b in left[i + 1 :] if not b & block]) for i, block in enumerate(left)), default=0)

    return most(list(fits))


@settings(max_examples=150)
@given(circuits_and_chips())
def test_as_many_blocks_as_brute_force_finds(accepted, case):
    circuit, chip = case
    expected = brute_force(circuit, chip)
    accepted(expected, at_least=0.4)
    if not expected:
        with pytest.raises(DeviceError, match="No place was found"):
            find_blocks(circuit, chip)
        return
    blocks = find_blocks(circuit, chip)
    assert len(blocks) == expected
    assert_proper(blocks, circuit, [qubit for qubit, _ in chip.qubits], {edge for edge, _ in chip.edges})


@pytest.mark.parametrize(
    ("circuit", "needed"),
    [(ansatz.ring_cz(5), "5 qubits with the couplings 0-1, 0-4, 1-2"), (ansatz.ring_cz(73), "needs 73 qubits")],
)
def test_what_does_not_fit_says_what_it_needs_and_what_to_try(circuit, needed):
    with pytest.raises(DeviceError, match=f"{needed}.*72 qubits and 126 couplers live.*fewer qubits.*ring_cz.*mapping"):
        find_blocks(circuit, calibration_of(chips.clean()))


def test_no_blocks_cannot_be_asked_for():
    with pytest.raises(DeviceError, match=r"At least 1 block.*most=0"):
        find_blocks(ansatz.ring_cz(4), calibration_of(chips.clean()), most=0)


def test_the_calibration_of_a_block_is_numbered_as_the_circuit():
    edges = {(5, 9): EdgeNoise(0.1), (2, 9): EdgeNoise(0.2), (2, 5): EdgeNoise(0.3)}
    chip = NoiseModel.from_mappings({2: QubitNoise(0.02), 5: QubitNoise(0.05), 9: QubitNoise(0.09)}, edges)
    own = block_calibration(chip, (9, 2))
    assert own == NoiseModel.from_mappings({0: QubitNoise(0.09), 1: QubitNoise(0.02)}, {(0, 1): EdgeNoise(0.2)})
    with pytest.raises(NoiseError, match="says nothing about qubit 7"):
        block_calibration(chip, (9, 7))
