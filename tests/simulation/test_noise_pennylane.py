"""Noisy values and gradients against PennyLane's default.mixed, channel by channel as textbooks write them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pennylane as qml
import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import GATES, Circuit, Input, Operation, Weight, ansatz
from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError, noisy_expectations

PENNYLANE = {
    "H": qml.Hadamard, "X": qml.X, "Y": qml.Y, "Z": qml.Z, "S": qml.S, "SDG": qml.adjoint(qml.S), "T": qml.T,
    "TDG": qml.adjoint(qml.T), "SX": qml.SX, "CNOT": qml.CNOT, "CY": qml.CY, "CZ": qml.CZ, "SWAP": qml.SWAP,
    "RX": qml.RX, "RY": qml.RY, "RZ": qml.RZ, "PHASE": qml.PhaseShift, "CRX": qml.CRX, "CRY": qml.CRY, "CRZ": qml.CRZ,
    "CPHASE": qml.ControlledPhaseShift, "RXX": qml.IsingXX, "RYY": qml.IsingYY, "RZZ": qml.IsingZZ,
}  # fmt: skip
PAULIS = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]


def relax(damping: Damping, qubit: int) -> None:
    qml.AmplitudeDamping(damping.amplitude, wires=qubit)
    qml.PhaseDamping(damping.phase, wires=qubit)


def noise_after(operation: Operation, noise: NoiseModel) -> None:
    if len(operation.qubits) == 1:
        qubit = dict(noise.qubits)[operation.qubits[0]]
        relax(qubit.damping, operation.qubits[0])
        qml.DepolarizingChannel(0.75 * qubit.depolarising, wires=operation.qubits[0])
        return
    low, high = sorted(operation.qubits)
    edge = dict(noise.edges)[low, high]
    relax(edge.damping[0], low)
    relax(edge.damping[1], high)
    strings = [np.kron(a, b) for a, b in itertools.product(PAULIS, repeat=2)]
    chances = [1 - edge.depolarising * 15 / 16] + [edge.depolarising / 16] * 15
    qml.QubitChannel([math.sqrt(p) * s for p, s in zip(chances, strings, strict=True)], wires=(low, high))


def misread(readout: ReadoutError, qubit: int) -> None:
    kept = np.diag([math.sqrt(1 - readout.p1_given_0), math.sqrt(1 - readout.p0_given_1)])
    raised = math.sqrt(readout.p1_given_0) * np.array([[0, 0], [1, 0]])
    lowered = math.sqrt(readout.p0_given_1) * np.array([[0, 1], [0, 0]])
    # Diagonal Kraus operators one by one, since a readout leaves no coherence.
    kraus = [np.diag([kept[0, 0], 0]), np.diag([0, kept[1, 1]]), raised, lowered]
    qml.QubitChannel(kraus, wires=qubit)


def pennylane_value(circuit, observable, noise, inputs, weights):
    @qml.qnode(qml.device("default.mixed", wires=circuit.num_qubits), interface="torch", diff_method="backprop")
    def value():
        for operation in circuit.operations:
            match operation.angle:
                case Input(index):
                    angles = [inputs[index]]
                case Weight(index):
                    angles = [weights[index]]
                case None:
                    angles = []
                case number:
                    angles = [number]
            PENNYLANE[operation.gate_name](*angles, wires=operation.qubits)
            noise_after(operation, noise)
        for qubit, letter in enumerate(observable):
            if letter in "XY":
                if letter == "Y":
                    qml.adjoint(qml.S)(qubit)
                qml.Hadamard(qubit)
            if letter != "I":
                misread(dict(noise.qubits)[qubit].readout, qubit)
        return qml.expval(qml.prod(*[qml.Z(q) for q, letter in enumerate(observable) if letter != "I"]))

    return value().real


def assert_agrees(circuit: Circuit, noise: NoiseModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.empty(2, circuit.num_inputs).uniform_(-3, 3, generator=generator).requires_grad_()
    weights = torch.empty(circuit.num_weights).uniform_(-3, 3, generator=generator).requires_grad_()
    pull = torch.empty(2, circuit.num_observables).uniform_(-1, 1, generator=generator)
    values = noisy_expectations(circuit, inputs, weights, noise)
    (values * pull).sum().backward()

    x, w = (t.detach().double().requires_grad_() for t in (inputs, weights))
    expected = torch.stack(
        [torch.stack([pennylane_value(circuit, o, noise, row, w) for o in circuit.observables]) for row in x]
    )
    (expected * pull).sum().backward()
    assert_close(values.double(), expected, atol=2e-6, rtol=0)
    for ours, theirs in ((inputs.grad, x.grad), (weights.grad, w.grad)):
        if theirs is not None:
            assert_close(ours.double(), theirs, atol=1e-5, rtol=0)


def random_noise(num_qubits: int, seed: int) -> NoiseModel:
    """Every number different, so that qubits or edges taken for one another show."""
    draw = np.random.default_rng(seed).uniform
    damping = lambda: Damping(amplitude=draw(0, 0.2), phase=draw(0, 0.2))  # noqa: E731
    readout = lambda: ReadoutError(p1_given_0=draw(0, 0.2), p0_given_1=draw(0, 0.2))  # noqa: E731
    return NoiseModel.from_mappings(
        {q: QubitNoise(draw(0, 0.1), damping(), readout()) for q in range(num_qubits)},
        {
            pair: EdgeNoise(draw(0, 0.2), (damping(), damping()))
            for pair in itertools.combinations(range(num_qubits), 2)
        },
    )


def random_circuit(num_qubits: int, num_gates: int, seed: int) -> Circuit:
    rng = np.random.default_rng(seed)
    names = [name for name, gate in GATES.items() if gate.num_qubits <= num_qubits]
    operations = []
    for _ in range(num_gates):
        gate = GATES[names[rng.integers(len(names))]]
        qubits = tuple(rng.permutation(num_qubits)[: gate.num_qubits].tolist())
        angles = [Input(int(rng.integers(2))), Weight(int(rng.integers(3))), float(rng.uniform(-3, 3))]
        operations.append(Operation(gate.name, qubits, angles[rng.integers(3)] if gate.is_parametrised else None))
    observables = tuple("".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(3))
    return Circuit(num_qubits, tuple(operations), (*observables, "Z" * num_qubits, "Z" + "I" * (num_qubits - 1)))


@pytest.mark.parametrize("name", list(GATES))
def test_each_gate_with_noise_after_it_agrees(name):
    gate = GATES[name]
    qubits = (2, 0)[: gate.num_qubits]
    before = [Operation("RY", (q,), Weight(q)) for q in range(3)] + [Operation("RX", (q,), Weight(q)) for q in range(3)]
    for angle in (Input(0), Weight(3)) if gate.is_parametrised else (None,):
        circuit = Circuit(3, (*before, Operation(name, qubits, angle)), ("ZII", "IIZ", "XIX", "YIZ"))
        assert_agrees(circuit, random_noise(3, seed=1), seed=2)


@pytest.mark.parametrize("family", ["ring_crz", "ring_cz", "ring_cnot"])
def test_ansatze_agree(family):
    assert_agrees(ansatz.ANSATZE[family](num_qubits=3), random_noise(3, seed=3), seed=4)


@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_agree(seed):
    circuit = random_circuit(num_qubits=1 + seed % 4, num_gates=14, seed=seed)
    circuit = Circuit(circuit.num_qubits, circuit.operations, tuple(o for o in circuit.observables if set(o) != {"I"}))
    assert_agrees(circuit, random_noise(circuit.num_qubits, seed), seed)
