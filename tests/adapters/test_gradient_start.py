"""Adapters that start in the directions of the gradient."""

import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close

import qpeft
from qpeft import LorettaConfig, QthaConfig
from qpeft.errors import AdapterError
from qpeft.models import load_model

TARGETS = {"target_modules": ["q_proj", "down_proj"], "init_seed": 0, "init": "gradient"}
DENSE = QthaConfig(rank=3, down="dense", up="dense", num_qubits=3, **TARGETS)
CONFIGS = {
    "dense": DENSE,
    "frozen": QthaConfig(rank=3, down="frozen", up="dense", **TARGETS),
    "mpo": QthaConfig(rank=4, **TARGETS),
    "bare": QthaConfig(rank=4, down="bare_mpo", up="bare_mpo", **TARGETS),
    "loretta": LorettaConfig(rank=4, bond_dimension=4, num_modes=2, **TARGETS),
}


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 90, (2, 12), generator=generator) for _ in range(3)]
    return [{"input_ids": one, "labels": one.where(torch.arange(12) > 4, -100)} for one in ids]


def gradients(model_folder, batches, name):
    """dL/dW as autograd makes it for a weight that is trained, mean over batches."""
    base = load_model(str(model_folder)).eval()
    weight = base.get_submodule(name).weight.requires_grad_()
    total = sum(torch.autograd.grad(base(**batch).loss, weight)[0] for batch in batches)
    return (total / len(batches)).double()


def spanned(rows, gradient):
    inside = torch.linalg.qr(rows.double().T).Q
    return float((gradient @ inside).square().sum() / gradient.square().sum())


@pytest.mark.parametrize("name", ["dense", "frozen"])
def test_dense_rows_are_the_first_right_singular_vectors_of_the_gradient(tiny_model, batches, name):
    model = get_peft_model(load_model(str(tiny_model)), CONFIGS[name])
    shares = qpeft.start_from_gradient(model, batches)
    for layer, share in shares.items():
        down = model.get_submodule(layer).branch("default").down().detach().double()
        gradient = gradients(tiny_model, batches, layer.removeprefix("base_model.model."))
        values, vectors = torch.linalg.svd(gradient)[1:]
        along = torch.nn.functional.normalize(down, dim=1) @ vectors[:3].T
        assert_close(along.abs(), torch.eye(3, dtype=torch.float64), atol=1e-3, rtol=0)
        assert share == pytest.approx(float(values[:3].square().sum() / values.square().sum()), rel=1e-4)


@pytest.mark.parametrize("name", ["mpo", "bare", "loretta"])
def test_tensor_networks_span_more_of_the_gradient_than_at_random(tiny_model, batches, name):
    model = get_peft_model(load_model(str(tiny_model)), CONFIGS[name])
    layers = [n for n, m in model.named_modules() if n.endswith(("q_proj", "down_proj"))]
    before = {layer: model.get_submodule(layer).branch("default").down().detach() for layer in layers}
    shares = qpeft.start_from_gradient(model, batches)
    for layer in layers:
        gradient = gradients(tiny_model, batches, layer.removeprefix("base_model.model."))
        down = model.get_submodule(layer).branch("default").down().detach()
        assert spanned(down, gradient) == pytest.approx(shares[layer], rel=1e-3)
        assert shares[layer] > 1.5 * spanned(before[layer], gradient)
        assert down.norm() == pytest.approx(float(before[layer].norm()), rel=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_model_gives_what_it_gave_and_the_same_start_twice(tiny_model, batches, config):
    base = load_model(str(tiny_model)).eval()
    models = []
    for _ in range(2):
        model = get_peft_model(load_model(str(tiny_model)), config)
        qpeft.start_from_gradient(model, batches)
        models.append(model)
        torch.randn(1)  # the global numbers have no say
    with torch.no_grad():
        assert torch.equal(models[0].eval()(**batches[0]).logits, base(**batches[0]).logits)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None


def test_a_trained_adapter_is_refused_and_kept(tiny_model, batches):
    model = get_peft_model(load_model(str(tiny_model)), DENSE)
    branch = next(module for module in model.modules() if isinstance(module, torch.nn.Module) and hasattr(module, "up"))
    torch.nn.init.ones_(branch.up.matrix)
    before = branch.down().clone()
    with pytest.raises(AdapterError, match="Start a fresh one"):
        qpeft.start_from_gradient(model, batches)
    assert torch.equal(branch.down(), before)


def test_batches_without_labels_are_refused(tiny_model, batches):
    model = get_peft_model(load_model(str(tiny_model)), DENSE)
    with pytest.raises(AdapterError, match="need labels"):
        qpeft.start_from_gradient(model, [{"input_ids": batches[0]["input_ids"]}])


def test_an_unknown_start_is_refused():
    with pytest.raises(AdapterError, match="'random' or 'gradient'"):
        QthaConfig(init="zero")
