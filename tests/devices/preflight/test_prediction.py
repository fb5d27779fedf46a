"""Predictions against closed forms and against PennyLane's density matrices, with circuits taken apart by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pennylane as qml
import pytest
import torch
from calibrations import calibration_of

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz, bind
from qpeft.circuits.native import to_native
from qpeft.devices.chip import Usability, depolarising_only, preflight
from qpeft.errors import DeviceError, NoiseError, ShotsError, SimulationError
from qpeft.simulation import expectations
from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError
from qpeft_emulator import chip as chips
from qpeft_emulator.density import outcome_probabilities
from qpeft_emulator.machine import Machine

PAULIS = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]
CHIP = NoiseModel.from_mappings(
    {
        4: QubitNoise(0.02, Damping(0.03, 0.05), ReadoutError(0.04, 0.09)),
        7: QubitNoise(0.05, Damping(0.01, 0.02), ReadoutError(0.02, 0.06)),
    },
    {(4, 7): EdgeNoise(0.08, (Damping(0.02, 0.01), Damping(0.04, 0.03)))},
)


def test_one_qubit_has_the_slope_and_offset_of_its_one_pulse():
    # RY RZ(0) RY: one pulse by x + 0.3. Z goes to (1 - p) ((1 - g) Z + g), then through the readout.
    gates = (Operation("RY", (0,), Input(0)), Operation("PHASE", (0,), 0.0), Operation("RY", (0,), Weight(0)))
    inputs = torch.linspace(-3, 3, 31)[:, None]
    found = preflight(Circuit(1, gates), inputs, torch.tensor([0.3]), CHIP, shots=500, block=[4])
    (signal,) = found.signals
    stretch = 1 - 0.04 - 0.09
    assert signal.line.slope == pytest.approx(stretch * 0.98 * 0.97, abs=1e-6)
    assert signal.line.offset == pytest.approx(stretch * 0.98 * 0.03 + 0.09 - 0.04, abs=1e-6)
    assert signal.line.correlation == pytest.approx(1, abs=1e-6)
    assert signal.line.residual == pytest.approx(0, abs=1e-6)
    exact = np.cos(np.linspace(-3, 3, 31) + 0.3)
    noisy = signal.line.slope * exact + signal.line.offset
    shot_noise = math.sqrt(np.mean(1 - noisy**2) / 500)
    assert signal.signal_to_noise == pytest.approx(signal.line.slope * exact.std() / shot_noise, rel=1e-5)
    assert (found.num_pulses, found.num_cz, found.rows, found.block) == (1, 0, 31, (4,))


def pennylane_values(inputs, angle, block):
    """Z of both qubits of RY(input) on both, CRZ(0, 1), RX(0.5) on both, in hand-made pulses with CHIP's noise."""
    qubits, edges = dict(CHIP.qubits), dict(CHIP.edges)
    edge = edges[4, 7]
    damping = dict(zip((4, 7), edge.damping, strict=True))
    pairs = [np.kron(a, b) for a, b in itertools.product(PAULIS, repeat=2)]
    shares = [1 - 15 / 16 * edge.depolarising] + [edge.depolarising / 16] * 15

    def relax(wire, amounts):
        qml.AmplitudeDamping(amounts.amplitude, wires=wire)
        qml.PhaseDamping(amounts.phase, wires=wire)

    def pulse(wire, *gates):
        for gate in gates:
            gate(wire)
        relax(wire, qubits[block[wire]].damping)
        qml.DepolarizingChannel(0.75 * qubits[block[wire]].depolarising, wires=wire)

    def flip():
        qml.CZ([0, 1])
        for wire in (0, 1):
            relax(wire, damping[block[wire]])
        qml.QubitChannel([math.sqrt(p) * k for p, k in zip(shares, pairs, strict=True)], wires=[0, 1])

    @qml.qnode(qml.device("default.mixed", wires=2))
    def circuit(x, y):
        pulse(0, lambda w: qml.RY(x, w))
        pulse(1, lambda w: qml.RY(y, w), lambda w: qml.RZ(angle / 2, w), qml.Hadamard)
        flip()
        pulse(1, lambda w: qml.RX(-angle / 2, w))
        flip()
        pulse(1, qml.Hadamard, lambda w: qml.RX(0.5, w))
        pulse(0, lambda w: qml.RX(0.5, w))
        return [qml.expval(qml.PauliZ(0)), qml.expval(qml.PauliZ(1))]

    values = np.array([circuit(*row) for row in inputs])
    readouts = [qubits[block[wire]].readout for wire in (0, 1)]
    stretch = np.array([1 - r.p1_given_0 - r.p0_given_1 for r in readouts])
    return values * stretch + np.array([r.p0_given_1 - r.p1_given_0 for r in readouts])


@qml.qnode(qml.device("default.qubit", wires=2))
def ideal_values(x, y):
    qml.RY(x, 0)
    qml.RY(y, 1)
    qml.CRZ(1.3, [0, 1])
    qml.RX(0.5, 0)
    qml.RX(0.5, 1)
    return [qml.expval(qml.PauliZ(0)), qml.expval(qml.PauliZ(1))]


@pytest.mark.parametrize("block", [(4, 7), (7, 4)])
def test_a_controlled_rotation_agrees_with_density_matrices_of_its_pulses(block):
    gates = [Operation("RY", (0,), Input(0)), Operation("RY", (1,), Input(1)), Operation("CRZ", (0, 1), Weight(0))]
    circuit = Circuit(2, (*gates, Operation("RX", (0,), 0.5), Operation("RX", (1,), 0.5)))
    inputs = np.random.default_rng(1).uniform(-3, 3, (12, 2))
    found = preflight(circuit, torch.from_numpy(inputs), torch.tensor([1.3]), CHIP, shots=100, block=block)
    noisy = pennylane_values(inputs, 1.3, block)
    exact = np.array([ideal_values(*row) for row in inputs])
    for column, signal in enumerate(found.signals):
        slope, offset = np.polyfit(exact[:, column], noisy[:, column], 1)
        assert signal.line.slope == pytest.approx(slope, abs=1e-5)
        assert signal.line.offset == pytest.approx(offset, abs=1e-5)
        correlation = np.corrcoef(exact[:, column], noisy[:, column])[0, 1]
        assert signal.line.correlation == pytest.approx(correlation, abs=1e-5)
        missed = noisy[:, column] - slope * exact[:, column] - offset
        assert signal.line.residual == pytest.approx(missed.std(), abs=1e-5)
    assert (found.num_pulses, found.num_cz) == (5, 2)


def drawn(*shape, seed=0):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * math.pi


def test_a_chip_without_errors_keeps_everything():
    circuit, perfect = ansatz.ring_crz(4), NoiseModel.uniform(4)
    found = preflight(circuit, drawn(20, 4), drawn(circuit.num_weights, seed=1), perfect, shots=1000)
    for signal in found.signals:
        assert (signal.line.slope, signal.line.correlation) == (pytest.approx(1, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert found.verdict is Usability.USABLE


@pytest.mark.parametrize("name", ansatz.ANSATZE)
def test_the_emulated_chip_does_what_its_true_noise_predicts(name):
    """Against the emulator's own engine, which runs every row by itself in pulses, on a chip that hides nothing."""
    chip, block, inputs = chips.clean(), (8, 9, 15, 14), drawn(4, 4)
    circuit = ansatz.ANSATZE[name](4, 2)
    weights = drawn(circuit.num_weights, seed=1)
    found = preflight(circuit, inputs, weights, calibration_of(chip), shots=1000, block=block)
    values = []
    for row in inputs:
        bound = bind(circuit, row.tolist(), weights.tolist())
        on_chip = [
            replace(operation, qubits=tuple(block[q] for q in operation.qubits)) for operation in bound.operations
        ]
        native = to_native(on_chip, optimise=True)
        bits = outcome_probabilities(Machine(chip), native, sorted(block), block, 0).reshape(2, 2, 2, 2)
        values.append([np.subtract(*bits.sum(axis=tuple({0, 1, 2, 3} - {q}))) for q in range(4)])
    exact = expectations(circuit, inputs, weights).numpy()
    for column, signal in enumerate(found.signals):
        slope, offset = np.polyfit(exact[:, column], np.array(values)[:, column], 1)
        assert signal.line.slope == pytest.approx(slope, abs=1e-5)
        assert signal.line.offset == pytest.approx(offset, abs=1e-5)


def test_depolarising_alone_keeps_fidelities_and_predicts_less():
    circuit = ansatz.ring_cz(2)
    listed = NoiseModel.from_mappings(
        {0: QubitNoise(0.01, Damping(0, 0.05), ReadoutError(0.1, 0.2)), 1: QubitNoise(0.01, Damping(0, 0.05))},
        {(0, 1): EdgeNoise(0.02, (Damping(0, 0.1), Damping(0, 0.2)))},
    )
    other = depolarising_only(listed)
    assert other.qubit(0).readout == ReadoutError(0.1, 0.2)
    # F = (d F_process + 1) / (d + 1) by hand. One qubit: of I, X, Y, Z remain 1, s, s, 1, times 0.99 but for I.
    shrunk = math.sqrt(0.95)
    fidelity = ((1 + 0.99 * (2 * shrunk + 1)) / 2 + 1) / 3
    assert 1 - other.qubit(0).depolarising / 2 == pytest.approx(fidelity)
    traces = (2 + 2 * math.sqrt(0.9)) * (2 + 2 * math.sqrt(0.8))
    fidelity = ((1 + 0.98 * (traces - 1)) / 4 + 1) / 5
    assert 1 - other.edge(0, 1).depolarising * 3 / 4 == pytest.approx(fidelity)
    weights, inputs = drawn(circuit.num_weights, seed=1), drawn(20, 2)
    high, low = (preflight(circuit, inputs, weights, model, shots=10) for model in (listed, other))
    assert low.slope < high.slope


def test_a_chip_of_noise_leaves_nothing():
    noise = NoiseModel.uniform(4, edge=EdgeNoise(depolarising=0.9))
    circuit = ansatz.ring_cz(4)
    found = preflight(circuit, drawn(20, 4), drawn(circuit.num_weights, seed=1), noise, shots=1000)
    assert found.signal_to_noise < 1
    assert found.verdict is Usability.UNUSABLE
    assert str(found).startswith("unusable: 8 pulses and 4 CZ on qubits [")


def test_the_default_block_is_the_best_one_and_rows_are_thinned_evenly():
    circuit, calibration = ansatz.ring_cz(4), calibration_of(chips.wukong(2))
    weights, inputs = drawn(circuit.num_weights, seed=1), drawn(41, 4)
    found = preflight(circuit, inputs, weights, calibration, shots=100, max_rows=5)
    again = preflight(circuit, inputs[::10], weights, calibration, shots=100, block=found.block)
    assert found == again
    edges = {edge for edge, _ in calibration.edges}
    assert all(tuple(sorted((found.block[q], found.block[(q + 1) % 4]))) in edges for q in range(4))


def test_any_leading_axes_of_inputs_are_rows():
    circuit, weights = ansatz.ring_cz(2), drawn(4, seed=1)
    inputs = drawn(3, 4, 2)
    flat = preflight(circuit, inputs.reshape(12, 2), weights, CHIP, shots=100)
    assert preflight(circuit, inputs, weights, CHIP, shots=100) == flat


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"circuit": ansatz.ring_cz(9)}, SimulationError, "at most 8 qubits; the circuit has 9.*divisor of its rank"),
        ({"shots": 0}, ShotsError, "at least 1; got 0"),
        ({"inputs": drawn(1, 2)}, DeviceError, "two rows of inputs.*got 1"),
        ({"max_rows": 1}, DeviceError, "two rows of inputs.*max_rows=1"),
        ({"block": [4]}, DeviceError, "a block of 2 different qubits"),
        ({"block": [4, 4]}, DeviceError, "a block of 2 different qubits"),
        ({"block": [4, 5]}, NoiseError, "says nothing about qubit 5"),
        ({"inputs": drawn(5, 3)}, SimulationError, "2 input angle"),
        ({"inputs": drawn(5, 2) / 0}, SimulationError, "NaN or infinite"),
        ({"calibration": NoiseModel.uniform(2, edges=[])}, DeviceError, "No place was found"),
    ],
)
def test_what_cannot_be_predicted_says_why(change, error, message):
    circuit = ansatz.ring_cz(2)
    given = {"circuit": circuit, "inputs": drawn(5, 2), "calibration": CHIP, "shots": 100, "block": None} | change
    weights = drawn(given["circuit"].num_weights)
    with pytest.raises(error, match=message):
        preflight(given.pop("circuit"), given.pop("inputs"), weights, given.pop("calibration"), **given)
