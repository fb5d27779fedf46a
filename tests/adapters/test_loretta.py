"""LoRETTA: its equations, sizes and start, and what a matrix for an update allows and refuses."""

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.testing import assert_close

from qpeft import LorettaConfig
from qpeft.adapters.build import count_layers
from qpeft.adapters.loretta import LorettaBranch, LorettaLayer
from qpeft.errors import AdapterError, NotMergeableError


@pytest.mark.parametrize(("in_features", "out_features"), [(24, 30), (31, 64), (7, 6)])
@pytest.mark.parametrize("num_modes", [1, 2, 3])
def test_the_update_is_the_product_of_two_trains(in_features, out_features, num_modes):
    config = LorettaConfig(rank=3, alpha=6.0, bond_dimension=4, num_modes=num_modes)
    branch = _random(LorettaBranch(config, in_features, out_features, rank=3, scaling=2.0))
    expected = 6.0 / 3 * dense_train(branch.up, out_features).T @ dense_train(branch.down, in_features)
    assert_close(branch.matrix(), torch.from_numpy(expected), atol=1e-12, rtol=1e-10)
    x = torch.randn(5, in_features, dtype=torch.float64)
    assert_close(branch(x), x @ torch.from_numpy(expected).T, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(
    ("width", "options", "parameters"),
    [
        (768, {}, 8 * 8 + 8 * 12 * 8 + 8 * 8 * 8 + 8 * 8),  # modes 12, 8, 8
        (768, {"rank": 5, "bond_dimension": 5}, 5 * 5 + 5 * 12 * 5 + 5 * 8 * 5 + 5 * 8),
        (4096, {"num_modes": 4}, 8 * 8 + 3 * 8 * 8 * 8 + 8 * 8),  # modes 8, 8, 8, 8
        (4096, {"rank": 2, "num_modes": 1}, 2 * 8 + 8 * 4096),
    ],
)
def test_a_train_has_one_core_for_the_rank_and_one_for_each_mode(one_linear, width, options, parameters):
    with torch.device("meta"):
        model = one_linear(width, width)
    (kind,) = count_layers(model, LorettaConfig(target_modules=["layer"], **options))
    assert kind.parameters == 2 * parameters


def test_h_starts_with_the_variance_that_lora_has():
    branch = LorettaBranch(LorettaConfig(), 768, 768, rank=8, scaling=2.0)
    branch.initialize(torch.Generator().manual_seed(0))
    down, up = branch.effective_factors()
    x = torch.randn(2000, 768, generator=torch.Generator().manual_seed(1))
    assert (x @ down.T).var().item() == pytest.approx(1 / 3, rel=0.25)
    assert torch.count_nonzero(up) == 0


def test_all_cores_learn_once_the_last_has_moved(one_linear, train):
    model = get_peft_model(one_linear(), LorettaConfig(target_modules=["layer"], init_seed=0))
    losses = train(model, learning_rate=0.02)
    assert losses[-1] < 0.8 * losses[0]
    assert all(w.grad.abs().max() > 0 for w in model.parameters() if w.requires_grad)


def test_a_lora_of_its_rank_is_exact_and_of_less_is_not(one_linear, is_lora_of):
    model = _random(get_peft_model(one_linear(), LorettaConfig(rank=4, target_modules=["layer"])))
    assert is_lora_of(model, rank=4)
    assert not is_lora_of(model, rank=3)


def test_a_rank_above_the_bond_dimension_is_refused():
    with pytest.raises(AdapterError, match="set rank to 4 or bond_dimension to 6"):
        LorettaConfig(rank=6, bond_dimension=4)


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"num_modes": -1}, {"bond_dimension": True}, {"alpha": float("nan")}, {"dropout": 1.0}]
)
def test_values_out_of_range_are_refused_by_name(options):
    with pytest.raises(AdapterError, match=next(iter(options))):
        LorettaConfig(**options)


def test_one_of_two_merged_leaves_the_other_to_be_merged():
    layer = _layer(nn.Linear(12, 10), "first", "second")
    layer.merge(adapter_names=["first"])
    with pytest.warns(UserWarning, match="additionally merging second"):
        layer.merge(adapter_names=["first", "second"])
    assert layer.merged_adapters == ["first", "second"]
    layer.unmerge()
    assert not layer.merged


@torch.no_grad()
def test_safe_merge_refuses_what_is_not_finite_and_changes_nothing():
    layer = _layer(nn.Linear(12, 10), "first")
    before = layer.base_layer.weight.clone()
    layer.branch("first").down.bottleneck[0, 0] = float("nan")
    with pytest.raises(
        AdapterError, match=r"NaNs detected in the merged weights. The adapter first seems to be broken.*'some.layer'"
    ):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.base_layer.weight, before)
    assert not layer.merged


def test_a_quantized_weight_is_not_merged_into():
    linear = nn.Linear(12, 10)
    linear.weight = nn.Parameter(torch.zeros(10, 12, dtype=torch.int8), requires_grad=False)
    with pytest.raises(NotMergeableError, match=r"'some.layer' is a Tensor of torch.int8.*without quantization"):
        _layer(linear, "first").merge()


def dense_train(factor, width):
    """A train as a (rank, width) matrix in float64, entry by entry from its cores' matrices."""
    cores = [core.detach().double().numpy() for core in factor.operator.cores]
    full = factor.bottleneck.detach().double().numpy()[:, None, :]  # rank, modes so far, bond
    for core in cores:
        first = core is cores[0]
        matrices = core[0].transpose(1, 0, 2) if first else core[:, 0].transpose(1, 0, 2)  # mode, bond, bond
        full = np.stack([full @ matrix for matrix in matrices], axis=2).reshape(len(full), -1, core.shape[-1])
    return full[:, :width, 0]


def _layer(linear, *names):
    layer = LorettaLayer(linear, "some.layer", names[0])
    for name in names:
        layer.update_layer(name, LorettaConfig(rank=2, bond_dimension=3, target_modules=["layer"]))
        branch = layer.branch(name)
        branch.float()
        nn.init.normal_(branch.up.operator.cores[-1])
    return layer


def _random(module):
    torch.manual_seed(4)
    module.double().eval()
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.5)
    return module
