"""How an adapter starts: without effect, with angles and features of sane size, and reproducibly."""

import pytest
import torch
from torch.testing import assert_close

from qpeft import QthaConfig
from qpeft.adapters.qtha.branch import QthaBranch


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 8, "num_qubits": 4, "fusion": "hadamard"},
        {"bottleneck": "frozen_circuit"},
        {"bottleneck": "mlp"},
        {"bottleneck": "none"},
        {"down": "dense", "up": "dense"},
        {"down": "frozen"},
        {"factor_init": "kaiming", "angle_init": "uniform"},
        {"target_modules": "all-linear"},
    ],
    ids=str,
)
def test_a_fresh_adapter_leaves_the_logits_exactly_as_they_were(make_model, adapt, tokens, kind, options):
    model = make_model(kind)
    with torch.no_grad():
        before = model(tokens).logits.clone()
        after = adapt(model, **options)(tokens).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("width", [64, 576, 896, 2048, 4096])
@pytest.mark.parametrize("down", ["mpo", "dense", "frozen"])
def test_unit_inputs_give_angles_of_a_third_of_unit_variance_and_features_of_that_order(width, down):
    branch = _fresh(QthaConfig(rank=8, down=down, init_seed=0), width)
    h, z = _features(branch, width)
    assert h.std().item() == pytest.approx(0.577, rel=0.02)
    assert 0.3 < z.std().item() < 0.9


@pytest.mark.parametrize("width", [101, 997])
def test_padded_widths_start_with_the_same_statistics(width):
    h, _ = _features(_fresh(QthaConfig(rank=6, inner_features=7, init_seed=0), width), width)
    assert h.std().item() == pytest.approx(0.577, rel=0.08)


def test_the_published_start_turns_angles_by_several_radians():
    """The method's released code: angles of standard deviation about 5.5, features before the operator about 11."""
    angles, features = [], []
    for seed in range(20):
        branch = _fresh(QthaConfig.paper(rank=10, init_seed=seed), 3584)
        h, z = _features(branch, 3584)
        angles.append(h.std())
        features.append((z @ branch.up.bottleneck).std())
    assert torch.stack(angles).median().item() == pytest.approx(5.5, rel=0.2)
    assert torch.stack(features).median().item() == pytest.approx(11, rel=0.2)


def test_the_circuit_has_a_slope_at_zero_by_default_and_none_in_the_published_form():
    slopes = {}
    for name, config in {"ours": QthaConfig(init_seed=0), "published": QthaConfig.paper(rank=8, init_seed=0)}.items():
        bottleneck = _fresh(config, 64).middle
        h = torch.zeros(1, 8, requires_grad=True)
        bottleneck(h).sum().backward()
        slopes[name] = h.grad.abs().max().item()
    assert slopes["ours"] > 0.5
    # RY(h) read by Z is even in h; random angles behind it give the published form some slope, a random one.
    even = _fresh(QthaConfig(encoding_offset=0.0, init_seed=0), 64).middle
    with torch.no_grad():
        even.weights.zero_()
        h = torch.randn(5, 8)
        assert_close(even(h), even(-h))


def test_trained_angles_start_near_zero_and_frozen_ones_anywhere():
    near = _fresh(QthaConfig(rank=12, depth=4, init_seed=0), 64).middle.weights
    frozen = _fresh(QthaConfig(rank=12, depth=4, bottleneck="frozen_circuit", init_seed=0), 64).middle.weights
    assert near.std().item() == pytest.approx(0.1, rel=0.2)
    assert frozen.abs().max().item() <= torch.pi
    assert frozen.std().item() == pytest.approx(torch.pi / 3**0.5, rel=0.2)
    assert not frozen.requires_grad


def test_the_init_seed_fixes_the_weights_whatever_was_drawn_before(adapt):
    torch.manual_seed(1)
    first = _adapter_weights(adapt(init_seed=5))
    torch.manual_seed(2)
    again = _adapter_weights(adapt(init_seed=5))
    other = _adapter_weights(adapt(init_seed=6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("bottleneck", ["circuit", "frozen_circuit", "mlp", "none"])
def test_an_init_seed_draws_nothing_from_the_global_generator(make_model, adapt, bottleneck):
    model = make_model()
    state = torch.get_rng_state()
    adapt(model, init_seed=5, bottleneck=bottleneck)
    assert torch.equal(state, torch.get_rng_state())


def test_without_an_init_seed_the_global_generator_decides(make_model, adapt):
    weights = []
    for seed in (1, 1, 2):
        model = make_model()
        torch.manual_seed(seed)
        weights.append(_adapter_weights(adapt(model, init_seed=None)))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_one_seed_gives_different_weights_to_different_layers(adapt):
    weights = _adapter_weights(adapt())
    first, second = (
        tensor for name, tensor in weights.items() if name.endswith("q_proj.qtha_branch.default.down.bottleneck")
    )
    assert not torch.equal(first, second)


def _fresh(config, width):
    branch = QthaBranch(config, width, width, rank=config.rank, scaling=1.0)
    generator = None if config.init_seed is None else torch.Generator().manual_seed(config.init_seed)
    branch.initialize(config, generator)
    return branch


@torch.no_grad()
def _features(branch, width):
    x = torch.randn(2000, width, generator=torch.Generator().manual_seed(99))  # not the seed of the weights
    down, _ = branch.effective_factors()
    h = x @ down.T
    return h, branch.bottleneck(h)


def _adapter_weights(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if "qtha_" in name}
