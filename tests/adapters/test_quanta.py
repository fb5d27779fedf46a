"""QuanTA: its equations, published sizes and start, what stays frozen, and axes that fit the model."""

import itertools

import numpy as np
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from qpeft import QuantaConfig
from qpeft.adapters.build import count_layers
from qpeft.adapters.load import load_adapter
from qpeft.adapters.quanta import QuantaBranch
from qpeft.errors import AdapterError

LLAMA2_7B = 6_738_415_616
"""Parameters of LLaMA2-7B, with 32 layers of width 4096."""


@pytest.mark.parametrize("num_vectors", [2, 40])
def test_the_update_is_one_contraction_of_all_pairs_less_the_first_one(num_vectors):
    config = QuantaConfig(axes=[[4, 3, 2, 2]], num_axes=4, alpha=0.5)
    branch = _random(QuantaBranch(config, 48, 48))
    starts = [start.numpy() for start in branch.starts]
    moved = [start + d.detach().numpy() for start, d in zip(starts, branch.differences, strict=True)]
    expected = torch.from_numpy(0.5 * (_contract(moved) - _contract(starts)))
    assert_close(branch.matrix(), expected)
    x = torch.randn(num_vectors, 48, dtype=torch.float64)
    assert_close(branch(x), x @ expected.T)


@pytest.mark.parametrize(("in_features", "out_features"), [(48, 18), (12, 60), (37, 101)])
def test_few_vectors_and_many_are_updated_alike(in_features, out_features):
    branch = _random(QuantaBranch(QuantaConfig(num_axes=3), in_features, out_features))
    x = torch.randn(3, 60, in_features, dtype=torch.float64)
    assert_close(torch.stack([branch(row[None])[0] for row in x.reshape(-1, in_features)]), branch(x).flatten(0, 1))


def test_its_size_is_the_published_one(one_linear):
    config = QuantaConfig(axes=[[16, 8, 8, 4]], num_axes=4, target_modules=["layer"])
    with torch.device("meta"):
        model = one_linear(4096, 4096)
    (kind,) = count_layers(model, config)
    assert kind.parameters == sum((m * n) ** 2 for m, n in itertools.combinations((16, 8, 8, 4), 2)) == 43_008
    assert round(100 * 2 * 32 * kind.parameters / LLAMA2_7B, 3) == 0.041


@pytest.mark.parametrize(
    ("in_features", "out_features", "parameters"),
    [
        (576, 576, 3 * 16**2 + 6 * 12**2 + 9**2),  # axes 4, 4, 4, 3, 3
        (576, 192, 4 * 9 + 6 * 8 + 4 * 8**2 + 6**2 + 2 * 12**2 + 16**2),  # to 4, 4, 3, 2, 2
    ],
)
def test_default_sizes_follow_from_the_axes(one_linear, in_features, out_features, parameters):
    with torch.device("meta"):
        model = one_linear(in_features, out_features)
    (kind,) = count_layers(model, QuantaConfig(target_modules=["layer"]))
    assert kind.parameters == parameters


@pytest.mark.parametrize(("in_features", "out_features"), [(576, 576), (576, 192), (192, 576), (997, 1009)])
@pytest.mark.parametrize("num_axes", [2, 5])
def test_starts_keep_the_variance_of_unit_inputs(in_features, out_features, num_axes):
    branch = QuantaBranch(QuantaConfig(num_axes=num_axes), in_features, out_features)
    branch.initialize("orthogonal", torch.Generator().manual_seed(0))
    x = torch.randn(500, in_features, generator=torch.Generator().manual_seed(1))
    assert branch.network.apply(x, branch.starts).var().item() == pytest.approx(1, rel=0.1)


def test_published_starts_divide_the_variance_by_three_for_every_pair():
    branch = QuantaBranch(QuantaConfig(axes=[[16, 8, 8, 4]], num_axes=4), 4096, 4096)
    branch.initialize("kaiming", torch.Generator().manual_seed(0))
    x = torch.randn(20, 4096, generator=torch.Generator().manual_seed(1))
    assert branch.network.apply(x, branch.starts).var().item() == pytest.approx(3.0**-6, rel=0.2)


@pytest.mark.parametrize("init", ["orthogonal", "kaiming"])
def test_every_pair_learns_from_the_first_step_and_starts_stay(one_linear, init):
    model = get_peft_model(one_linear(), QuantaConfig(num_axes=3, init=init, target_modules=["layer"], init_seed=0))
    branch = model.base_model.model.layer.branch("default")
    starts = [start.clone() for start in branch.starts]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert {id(weight) for weight in trained} == {id(weight) for weight in branch.differences}
    x, wanted = torch.randn(40, 12), torch.randn(40, 10)
    optimizer = torch.optim.Adam(trained, lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - wanted).square().mean()
        loss.backward()
        assert all(weight.grad.abs().max() > 0 for weight in trained)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(map(torch.equal, branch.starts, starts))


def test_the_update_has_full_rank():
    branch = _random(QuantaBranch(QuantaConfig(), 192, 192))
    assert sum(weight.numel() for weight in branch.parameters()) < 8 * (192 + 192)
    assert np.linalg.matrix_rank(branch.matrix().detach().numpy()) == 192


@pytest.mark.parametrize("num_vectors", [2, 100])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_small_update_survives_bfloat16(num_vectors, autocast):
    branch = QuantaBranch(QuantaConfig(num_axes=3), 48, 48)
    branch.initialize("orthogonal", torch.Generator().manual_seed(0))
    for difference in branch.differences:
        torch.nn.init.normal_(difference, std=1e-3)
    branch.bfloat16()
    x = torch.randn(num_vectors, 48).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        update = branch(x)
    exact = branch.double()(x.double())
    # T x and S x are about 1, and agree to far more than the eight bits of bfloat16.
    assert exact.abs().max() < 0.05
    assert_close(update.double(), exact, atol=0.02 * exact.abs().max().item(), rtol=0)


def test_a_file_without_a_start_is_refused(make_model, tmp_path):
    options = {"num_axes": 3, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    get_peft_model(make_model(), QuantaConfig(**options)).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    del weights[next(name for name in weights if name.endswith("start_1"))]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match=r"missing adapter keys.*start_1"):
        load_adapter(make_model(), tmp_path)


def test_axes_of_one_width_are_those_given_for_it():
    branch = QuantaBranch(QuantaConfig(axes=[[6, 8], [2, 9]], num_axes=2), 48, 18)
    assert [tuple(d.shape) for d in branch.differences] == [(18, 48)]
    assert "in_axes=(6, 8), out_axes=(2, 9)" in repr(branch)


def test_a_width_without_axes_is_refused_with_a_proposal(one_linear):
    config = QuantaConfig(axes=[[4, 3]], num_axes=2, target_modules=["layer"])
    with pytest.raises(AdapterError, match=r"axes has factors of 12, but a layer has width 10.*such as \[5, 2\]"):
        get_peft_model(one_linear(12, 10), config)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_axes": 1}, "num_axes must be at least 2"),
        ({"alpha": float("inf")}, "alpha must be a finite number"),
        ({"init": "zeros"}, "init must be one of orthogonal, kaiming; got 'zeros'"),
        ({"axes": []}, "axes must hold a list for each width"),
        ({"axes": [[16, 8, 8, 4]]}, r"axes \[16, 8, 8, 4\] are 4, but num_axes is 5: make them equal"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(AdapterError, match=sentence):
        QuantaConfig(**options)


def _contract(matrices):
    """All six pairs of the axes 4, 3, 2, 2 in one einsum; capitals are the axes after the first matrix on them."""
    tensors = [
        matrix.reshape(*sizes, *sizes)
        for matrix, sizes in zip(matrices, [(2, 2), (3, 2), (4, 2), (3, 2), (4, 2), (4, 3)], strict=True)
    ]
    # Axes a b c d: (c, d), (b, d), (a, d), (b, c), (a, c), (a, b).
    full = np.einsum("CDcd,BEbD,AFaE,GHBC,IJAH,KLIG->KLJFabcd", *tensors, optimize=True)
    return full.reshape(48, 48)


def _random(branch):
    torch.manual_seed(4)
    branch.initialize("orthogonal", None)
    branch.double()
    for difference in branch.differences:
        torch.nn.init.normal_(difference, std=0.3)
    return branch
