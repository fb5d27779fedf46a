"""Gradients: that they reach everything, and stay the same under what trainers do to a model."""

import pytest
import torch
from torch.testing import assert_close

from qpeft import QthaConfig
from qpeft.adapters.qtha.branch import QthaBranch


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 8, "num_qubits": 4, "depth": 2},
        {"fusion": "hadamard"},
        {"ansatz": "ring_cz"},
        {"ansatz": "ring_cnot", "input_scaling": "tanh"},
        {"classical_path": False, "depth": 2},
        {"bottleneck": "mlp"},
        {"bottleneck": "none"},
        {"bottleneck": "frozen_circuit"},
        {"down": "dense", "up": "dense"},
    ],
    ids=str,
)
def test_gradients_reach_every_weight_once_up_is_not_zero(adapt, shake, tokens, options):
    model = shake(adapt(**options)).train()
    gradients = _gradients(model, tokens)
    silent = [name for name, grad in gradients.items() if grad is None or not grad.abs().max() > 0]
    assert silent == []


def test_with_up_at_zero_its_last_core_already_learns_and_the_rest_waits(adapt, tokens):
    gradients = _gradients(adapt().train(), tokens)
    moving = {name.split("default.")[-1] for name, grad in gradients.items() if grad.abs().max() > 0}
    assert moving == {"up.operator.cores.2"}


def test_with_dense_up_at_zero_the_matrix_already_learns(adapt, tokens):
    gradients = _gradients(adapt(up="dense").train(), tokens)
    moving = {name.split("default.")[-1] for name, grad in gradients.items() if grad.abs().max() > 0}
    assert moving == {"up.matrix"}


@pytest.mark.parametrize("bottleneck", ["circuit", "mlp"])
def test_gradients_of_a_branch_equal_finite_differences_of_its_equations(equations, bottleneck):
    config = QthaConfig(rank=3, bottleneck=bottleneck)
    branch = QthaBranch(config, 7, 6, rank=3, scaling=1.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in branch.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    x = torch.randn(4, 7, generator=generator)
    into = torch.randn(4, 6, generator=generator)
    branch(x).backward(into)
    step = 1e-3
    for weight in branch.parameters():
        along = torch.randn(weight.shape, generator=generator)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * step * along)
                values.append((equations(branch, config, x.double().numpy()) * into.numpy()).sum())
                weight.sub_(sign * step * along)
        slope = (values[0] - values[1]) / (2 * step)
        assert (weight.grad * along).sum().item() == pytest.approx(slope, rel=5e-3, abs=1e-3)


def test_base_weights_stay_frozen(adapt):
    trained = {name for name, weight in adapt().named_parameters() if weight.requires_grad}
    assert trained
    assert all("qtha_" in name for name in trained)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_equal_gradients(adapt, shake, tokens, use_reentrant):
    model = shake(adapt()).train()
    plain = _gradients(model, tokens)
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    checkpointed = _gradients(model, tokens)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_dropout_acts_in_training_and_not_in_evaluation(adapt, shake, tokens):
    plain, dropped = (shake(adapt(dropout=p)) for p in (0.0, 0.5))
    with torch.no_grad():
        assert torch.equal(plain.eval()(tokens).logits, dropped.eval()(tokens).logits)
        assert not torch.allclose(plain.train()(tokens).logits, dropped.train()(tokens).logits)


def test_a_bfloat16_base_has_a_float32_adapter_and_bfloat16_logits(make_model, adapt, shake, tokens):
    model = shake(adapt(make_model().bfloat16()))
    assert {weight.dtype for name, weight in model.named_parameters() if "qtha_" in name} == {torch.float32}
    logits = model(tokens).logits
    assert logits.dtype == torch.bfloat16
    reference = shake(adapt())(tokens).logits
    assert (logits - reference).abs().max() < 0.1 * reference.abs().max()


def test_a_branch_in_bfloat16_still_turns_by_float32_angles(one_linear):
    branch = QthaBranch(QthaConfig(rank=4), 12, 10, rank=4, scaling=1.0)
    branch.initialize(QthaConfig(rank=4), torch.Generator().manual_seed(0))
    bottleneck = branch.middle.bfloat16()
    h = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    values, exact = bottleneck(h), bottleneck(h.float())
    assert values.dtype == torch.bfloat16
    assert_close(values.float(), exact, atol=2**-8, rtol=0)  # no more than rounding the result


def test_autocast_rounds_no_more_than_the_wide_products(adapt, shake, tokens, equations):
    branch = QthaBranch(QthaConfig(rank=4), 64, 64, rank=4, scaling=1.0)
    branch.initialize(QthaConfig(rank=4), torch.Generator().manual_seed(0))
    h = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = branch.bottleneck(h)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, branch.bottleneck(h))


def test_autocast_trains_with_nearly_the_same_gradients(adapt, shake, tokens):
    model = shake(adapt()).train()
    plain = _gradients(model, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _gradients(model, tokens)
    for name in plain:
        assert rounded[name].dtype == torch.float32
        assert (plain[name] - rounded[name]).norm() < 0.15 * plain[name].norm(), name


def test_the_plain_trainer_of_transformers_trains_it(adapt, tokens, tmp_path):
    from transformers import Trainer, TrainingArguments

    model = adapt()
    rows = [{"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in tokens]
    options = TrainingArguments(
        str(tmp_path),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=2e-2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, options, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.02


def _gradients(model, tokens):
    model.zero_grad(set_to_none=True)
    model(tokens, labels=tokens).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
