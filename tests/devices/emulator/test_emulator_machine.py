"""What the emulated chip does: exact where nothing errs, as listed where nothing hides, and more where it does."""

from dataclasses import replace

import dense_oracle as dense
import numpy as np
import pytest
import torch

from qpeft.circuits import GATES, Circuit, Operation, ansatz, bind
from qpeft.circuits.native import to_native
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.errors import DeviceError
from qpeft.simulation.noise import Damping, NoiseModel, SampleKey
from qpeft.simulation.noise.outcomes import outcome_probabilities as with_noise_model
from qpeft_emulator import chip as chips
from qpeft_emulator import parse_origin_ir
from qpeft_emulator.density import outcome_probabilities
from qpeft_emulator.machine import HiddenEffects, Machine, open_machine
from qpeft_emulator.outcomes import RunOptions, run_program
from qpeft_emulator.placement import best_blocks

RING = (0, 1, 2, 3, 9, 8, 7, 6)
"""Eight qubits round two squares of the grid."""


def bound(circuit, seed=3):
    numbers = np.random.default_rng(seed).uniform(-3, 3, circuit.num_inputs + circuit.num_weights)
    return bind(circuit, numbers[: circuit.num_inputs], numbers[circuit.num_inputs :])


def exact(circuit):
    """Probabilities from dense matrices, qubit 0 leftmost."""
    state = dense.final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1)
    return abs(state) ** 2


def on_chip(circuit, qubits):
    return [Operation(op.gate_name, tuple(qubits[q] for q in op.qubits), op.angle) for op in circuit.operations]


def probabilities(machine, circuit, qubits, *, job_number=0, optimise=False):
    native = to_native(on_chip(circuit, qubits), optimise=optimise)
    return outcome_probabilities(machine, native, sorted(qubits), qubits, job_number)


def run(machine, text, *, job_number=0, seed=0, **options):
    key = SampleKey(seed, step=job_number, module=text)
    return run_program(machine, parse_origin_ir(text), RunOptions(**{"shots": 1000, **options}), job_number, key)


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("gate_name", GATES)
def test_every_gate_is_exact_on_a_perfect_chip(gate_name, optimise):
    gate = GATES[gate_name]
    operation = Operation(gate_name, (7, 6)[: gate.num_qubits], 2.3 if gate.is_parametrised else None)
    around = [Operation("RY", (6,), 0.7), Operation("RX", (7,), -1.9)]
    after = [Operation("RX", (6,), 1.1), Operation("RY", (7,), 4.4), Operation("CZ", (6, 7)), Operation("H", (6,))]
    circuit = Circuit(8, (*around, operation, *after))
    own = Circuit(
        2, tuple(Operation(op.gate_name, tuple(q - 6 for q in op.qubits), op.angle) for op in circuit.operations)
    )
    found = probabilities(open_machine("perfect", 0), own, [6, 7], optimise=optimise)
    np.testing.assert_allclose(found, exact(own), atol=1e-9)


def test_a_clean_chip_errs_as_a_noise_model_with_its_calibration_says():
    circuit, machine = bound(ansatz.ring_cz(4)), open_machine("clean", 0)
    listed = machine.chip.qubits[0]
    readout = {q: replace(machine.gate_noise.qubit(q), readout=machine.known_readout(q)) for q in (0, 1, 6, 7)}
    edges = {edge: machine.gate_noise.edge(*edge) for edge in ((0, 1), (1, 7), (6, 7), (0, 6))}
    places = {0: 0, 1: 1, 7: 2, 6: 3}
    model = NoiseModel.from_mappings(
        {places[q]: noise for q, noise in readout.items()},
        {(places[a], places[b]): noise for (a, b), noise in edges.items()},
    )
    nothing = torch.zeros(1, 0, dtype=torch.float64)
    expected = with_noise_model(circuit, nothing, nothing[0], "ZZZZ", model)[0]
    np.testing.assert_allclose(probabilities(machine, circuit, [0, 1, 7, 6]), expected, atol=1e-6)
    assert model.qubit(0).readout.p1_given_0 == pytest.approx(1 - listed.readout_fidelity)


def test_gates_reach_their_listed_fidelity_with_some_of_it_lost_to_relaxation():
    machine = open_machine("wukong", 0)
    for qubit, listed in machine.chip.qubits.items():
        noise = machine.gate_noise.qubit(qubit)
        assert noise.damping != Damping()
        # Average fidelity from the transfer matrix, F = (d F_process + 1) / (d + 1), worked out by hand for d = 2.
        gamma, lost = noise.damping.amplitude, noise.damping.phase
        trace = 1 + (1 - noise.depolarising) * (2 * np.sqrt((1 - gamma) * (1 - lost)) + 1 - gamma)
        assert (2 * trace / 4 + 1) / 3 == pytest.approx(listed.gate_fidelity, abs=1e-12)


def test_above_eight_qubits_the_result_is_the_same_in_single_precision():
    circuit = bound(ansatz.ring_cz(10))
    qubits = [0, 1, 2, 3, 4, 10, 9, 8, 7, 6]
    np.testing.assert_allclose(probabilities(open_machine("perfect", 0), circuit, qubits), exact(circuit), atol=2e-6)


def test_hidden_effects_each_change_the_outcome():
    machine = open_machine("wukong", 0)
    block = best_blocks(machine.chip, 4, 1)[0]
    edge = next((a, b) for a in block for b in block if machine.chip.has_edge(a, b))
    third = next(q for q in machine.chip.neighbours(edge[1]) if q != edge[0])
    circuit = Circuit(3, (*(Operation("H", (q,)) for q in range(3)), Operation("CZ", (0, 1)), Operation("CZ", (1, 2))))
    circuit = replace(circuit, operations=(*circuit.operations, *(Operation("RX", (q,), 0.9) for q in range(3))))
    qubits = [*edge, third]
    plain = probabilities(Machine(machine.chip), circuit, qubits)
    for name in ("over_rotation", "phase_error", "zz", "readout_skew", "phases"):
        hidden = HiddenEffects(**{name: getattr(machine.hidden, name)})
        assert abs(probabilities(Machine(machine.chip, hidden), circuit, qubits) - plain).max() > 1e-4, name


def test_over_rotation_turns_a_pulse_too_far():
    chip = open_machine("perfect", 0).chip
    machine = Machine(chip, HiddenEffects(over_rotation={5: 0.1}))
    one = probabilities(machine, Circuit(1, (Operation("RX", (0,), 1.2),)), [5])[1]
    assert one == pytest.approx(np.sin(1.2 * 1.1 / 2) ** 2, abs=1e-6)


def test_zz_turns_a_spectator_by_the_state_of_its_neighbour():
    machine = Machine(open_machine("perfect", 0).chip, HiddenEffects(zz={(1, 2): 0.3}))
    # Qubit 2 stands on the equator while CZ acts on 0 and 1, which is |1>: RZZ(0.3) turns 2 by RZ(-0.3).
    turned = (Operation("X", (1,)), Operation("H", (2,)), Operation("CZ", (0, 1)), Operation("RX", (2,), np.pi / 2))
    # The last CZ is diagonal: it only joins qubit 2 to the others.
    found = probabilities(machine, Circuit(3, (*turned, Operation("CZ", (1, 2)))), [0, 1, 2])
    assert found.reshape(2, 2, 2).sum((0, 1))[1] == pytest.approx((1 + np.sin(0.3)) / 2, abs=1e-6)


def test_the_chip_drifts_with_the_number_of_the_job_and_comes_back():
    machine = open_machine("wukong", 0)
    qubit = best_blocks(machine.chip, 1, 1)[0]
    values = [probabilities(machine, Circuit(1, (Operation("H", (0,)),)), qubit, job_number=n)[0] for n in (0, 50, 200)]
    assert abs(values[0] - values[1]) > 1e-4
    assert values[0] == pytest.approx(values[2], abs=1e-12)


def test_outcomes_are_a_function_of_seed_program_and_job_number():
    machine, text = open_machine("wukong", 0), to_origin_ir(bound(ansatz.ring_cz(3)))
    first = run(machine, text, mapping=True)
    assert run(machine, text, mapping=True) == first
    assert run(machine, text, mapping=True, seed=1).counts != first.counts
    assert run(machine, text, mapping=True, job_number=1).counts != first.counts
    assert run(machine, text + "\n", mapping=True).counts != first.counts


def test_samples_follow_the_probabilities_and_classical_bit_0_is_the_last():
    machine, circuit = open_machine("clean", 0), bound(ansatz.ring_cz(4))
    qubits, shots = [0, 1, 7, 6], 100_000
    counts = run(machine, to_origin_ir(circuit, qubits), shots=shots).counts
    assert sum(counts.values()) == shots
    expected = probabilities(machine, circuit, qubits)
    for index, probability in enumerate(expected):
        key = int(f"{index:04b}"[::-1], 2)
        error = np.sqrt(probability * (1 - probability) / shots)
        assert abs(counts.get(key, 0) / shots - probability) < 5 * error


def test_groups_of_qubits_that_no_gate_joins_are_independent_and_may_fill_the_chip():
    machine = open_machine("clean", 0)
    rings = [
        [12 * band + 2 * part + step for step in (0, 1, 7, 13, 19, 18, 12, 6)]
        for band in (0, 2, 4)
        for part in range(3)
    ]
    circuit = bound(ansatz.ring_cz(8))
    joint = Circuit(72, tuple(op for ring in rings for op in on_chip(circuit, ring)))
    assert len({qubit for ring in rings for qubit in ring}) == 72
    outcome = run(machine, to_origin_ir(joint), shots=4000, optimise=True)
    assert outcome.num_measured == 72
    expected = probabilities(machine, circuit, rings[0], optimise=True).reshape([2] * 8)
    for ring in rings:
        for place, qubit in enumerate(ring):
            one = np.moveaxis(expected, place, 0)[1].sum()
            seen = sum(count for key, count in outcome.counts.items() if key >> qubit & 1) / 4000
            assert abs(seen - one) < 5 * np.sqrt(one * (1 - one) / 4000)


def test_amendment_takes_the_readout_errors_out_of_the_shares_and_not_of_the_counts():
    machine, text = open_machine("clean", 0), "QINIT 2\nCREG 2\nX q[0]\nMEASURE q[0],c[0]\nMEASURE q[1],c[1]"
    outcome = run(machine, text, shots=100_000, amend=True)
    assert outcome.counts[0b01] / 100_000 == pytest.approx(0.9325**2, abs=0.01)
    assert outcome.shares[0b01] == pytest.approx(0.9962, abs=0.006)  # what is left is the error of the pulse
    assert sum(outcome.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("num_qubits", [5, 6])
@pytest.mark.parametrize("family", ["ring_cz", "ring_crz"])
def test_mapping_runs_what_does_not_fit_the_grid_with_swaps(family, num_qubits):
    machine, circuit = open_machine("perfect", 0), bound(ansatz.ANSATZE[family](num_qubits))
    outcome = run(machine, to_origin_ir(circuit), shots=100_000, mapping=True)
    for index, probability in enumerate(exact(circuit)):
        seen = outcome.counts.get(int(f"{index:0{num_qubits}b}"[::-1], 2), 0) / 100_000
        assert abs(seen - probability) < 5 * np.sqrt(probability * (1 - probability) / 100_000) + 1e-9


def test_mapping_keeps_to_living_qubits_and_to_the_block_asked_for():
    machine, text = open_machine("wukong", 0), to_origin_ir(bound(ansatz.ring_cz(4)))
    assert set(run(machine, text, mapping=True).places.values()) <= set(machine.chip.qubits)
    block = best_blocks(machine.chip, 8, 2)[1]
    assert set(run(machine, text, mapping=True, block=tuple(block)).places.values()) <= set(block)
    with pytest.raises(DeviceError, match="No block of 4 connected living qubits"):
        run(machine, text, mapping=True, block=tuple(block[:3]))


def refused_programs():
    chip = open_machine("wukong", 0).chip
    dead = next(qubit for qubit in range(72) if qubit not in chip.qubits)
    edge = next(e for e, fidelity in chip.edges.items() if fidelity == 0 and set(e) <= set(chip.qubits))
    path = "".join(f"CZ q[{a}],q[{b}]\n" for a, b in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5)))
    row = "".join(f"CZ q[{q + 6}],q[{q + 7}]\n" for q in range(5)) + "CZ q[5],q[11]\nCZ q[11],q[17]\n"
    head, tail = "QINIT 72\nCREG 1\n", "MEASURE q[0],c[0]"
    return {
        "dead": (head + f"X q[{dead}]\nMEASURE q[{dead}],c[0]", {}, rf"Qubit {dead} is dead"),
        "edge": (head + f"CZ q[{edge[0]}],q[{edge[1]}]\nMEASURE q[{edge[0]}],c[0]", {}, "no living coupler"),
        "nothing": (head + "X q[0]", {}, "measures nothing"),
        "large": (head + path + row + tail, {"mapping": True}, "simulates at most 12"),
        "many": (head + path + "X q[71]\n" + tail, {"mapping": True, "block": (0,)}, "No block of"),
    }


@pytest.mark.parametrize("case", ["dead", "edge", "nothing", "large", "many"])
def test_programs_that_the_chip_cannot_run_say_why(case):
    text, options, says = refused_programs()[case]
    with pytest.raises(DeviceError, match=says):
        run(open_machine("wukong", 0), text, **options)


def test_amending_too_many_bits_is_refused():
    text = to_origin_ir(Circuit(13, ()))
    with pytest.raises(DeviceError, match="at most 12 bits"):
        run(open_machine("clean", 0), text, amend=True)


@pytest.mark.parametrize("seed", range(5))
def test_wukong_is_within_what_is_known_of_it(seed):
    chip = chips.wukong(seed)
    living = [edge for edge, fidelity in chip.edges.items() if fidelity > 0]
    assert (chip.num_qubits, len(chip.edges), len(chip.qubits)) == (72, 126, 66)
    assert {b - a for a, b in chip.edges} == {1, 6}
    assert all(set(edge) <= set(chip.qubits) for edge in living)
    assert sum(chip.edges[edge] == 0 and set(edge) <= set(chip.qubits) for edge in chip.edges) == 6
    assert all(0.952 <= chip.edges[edge] <= 0.983 for edge in living)
    for listed in chip.qubits.values():
        assert 0.923 <= listed.readout_fidelity <= 0.942
        assert 0.995 <= listed.gate_fidelity <= 0.9973
        assert 9 <= listed.t1 <= 17
        assert 1.1 <= listed.t2 <= 1.8


def test_another_seed_is_another_chip():
    assert chips.wukong(0) != chips.wukong(1)
    assert chips.wukong(3) == chips.wukong(3)


def test_best_blocks_are_connected_and_disjoint():
    chip = chips.wukong(0)
    blocks = best_blocks(chip, 8, 5)
    assert len({qubit for block in blocks for qubit in block}) == 40
    for block in blocks:
        reached = {block[0]}
        for _ in block:
            reached |= {n for q in reached for n in chip.neighbours(q) if n in block}
        assert reached == set(block)
