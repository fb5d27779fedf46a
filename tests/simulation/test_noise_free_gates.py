"""Gates that a machine does in software, without error."""

import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation
from qpeft.errors import NoiseError
from qpeft.simulation.noise import NoiseModel, QubitNoise, noisy_expectations
from qpeft.simulation.noise.outcomes import outcome_probabilities


def turned(num_free):
    free = [Operation("RZ", (0,), 0.3)] * num_free
    return Circuit(1, (Operation("RY", (0,), Input(0)), *free), ("X", "Z"))


def test_free_gates_act_but_make_no_error():
    angles = torch.linspace(-2, 2, 5)[:, None]
    noise = NoiseModel(((0, QubitNoise(depolarising=0.1)),), free_gates=frozenset({"RZ"}))
    values = noisy_expectations(turned(4), angles, torch.empty(0), noise)
    turn = torch.tensor(4 * 0.3)
    assert_close(values, 0.9 * torch.cat([angles.sin() * turn.cos(), angles.cos()], dim=1))
    bits = outcome_probabilities(turned(4), angles, torch.empty(0), "Z", noise)
    assert_close(bits[:, 0], (1 + 0.9 * angles[:, 0].cos()) / 2)


def test_models_with_other_free_gates_differ():
    qubits = ((0, QubitNoise(depolarising=0.1)),)
    free = NoiseModel(qubits, free_gates=frozenset({"RZ"}))
    assert free != NoiseModel(qubits)
    assert len({free, NoiseModel(qubits), NoiseModel(qubits, free_gates=frozenset({"RZ"}))}) == 2


def test_an_unknown_free_gate_is_an_error():
    with pytest.raises(NoiseError, match="no gate RPHI"):
        NoiseModel(((0, QubitNoise()),), free_gates=frozenset({"RPHI"}))
