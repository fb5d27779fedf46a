"""What a step's backward passes left behind: gradients of each module's circuits and their standard errors."""

import math

import pytest
import torch
from torch.testing import assert_close

import qpeft
from qpeft.adapters.qtha.quantum_device import GradientRecord
from qpeft.devices import DeviceGradients, LocalDevice, Spsa

NAME = "base_model.model.model.layers.1.self_attn.v_proj"


@pytest.fixture
def model(adapt, shake):
    return shake(adapt(num_qubits=2))


def train(model, tokens):
    model.zero_grad()
    model(tokens, labels=tokens).loss.backward()
    return model.get_submodule(NAME).qtha_branch["default"].middle.weights.grad.clone()


def test_a_record_has_the_gradients_of_the_weights_summed_over_passes(model, tokens):
    evaluator = qpeft.set_quantum_device(
        model, LocalDevice(), shots=50, gradient="parameter-shift", layers=["layers.1.self_attn.v_proj"]
    )
    assert evaluator.records == {}
    total = train(model, tokens[:1, :4]) + train(model, tokens[1:2, :4])
    (name,) = evaluator.records
    record = evaluator.records[name]
    assert name == f"{NAME}.default"
    assert record.passes == 2
    assert_close(record.weights, total)
    assert record.weight_errors.shape == total.shape
    assert 0.01 < record.relative_error < 10


def test_a_new_step_starts_new_records_and_keeps_the_old_ones_of_those_who_have_them(model, tokens):
    evaluator = qpeft.set_quantum_device(model, LocalDevice(), shots=50, gradient="simulated")
    train(model, tokens)
    before = evaluator.records
    assert len(before) == 4
    assert all(record.relative_error == 0 for record in before.values())
    evaluator.begin_step(1)
    assert evaluator.records == {}
    assert len(before) == 4


def test_unknown_errors_stay_unknown(model, tokens):
    evaluator = qpeft.set_quantum_device(model, LocalDevice(), shots=50, gradient=Spsa())
    train(model, tokens)
    assert all(math.isnan(record.relative_error) for record in evaluator.records.values())


def test_errors_of_passes_add_as_independent_ones_do():
    first = DeviceGradients(*(torch.full((1, 2), value) for value in (1.0, 2.0, 0.3, 0.6)))
    second = DeviceGradients(*(torch.full((1, 2), value) for value in (3.0, -1.0, 0.4, 0.8)))
    record = GradientRecord.empty(first)
    assert math.isnan(record.relative_error)
    record.add(first)
    record.add(second)
    assert_close(record.weights, torch.full((1, 2), 1.0))
    assert_close(record.weight_errors, torch.full((1, 2), 1.0))
    squares, variances = 2 * (1 + 4 + 9 + 1), 2 * (0.09 + 0.36 + 0.16 + 0.64)
    assert record.relative_error == pytest.approx(math.sqrt(variances / squares))
