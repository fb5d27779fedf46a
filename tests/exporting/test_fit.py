"""Linear maps from sums over tokens, against least squares on the tokens themselves."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from qpeft import LorettaConfig, QthaConfig
from qpeft.errors import DataError
from qpeft.exporting.low_rank import Moments, collect_moments, fit_bottleneck, linear_bottleneck
from qpeft.exporting.updates import adapted_layers

NAME = "model.layers.1.self_attn.v_proj"


@pytest.fixture(params=["linear", "hadamard"])
def model(request, trained):
    """The tiny model with a circuit in it, its paths added or multiplied."""
    return trained(QthaConfig(rank=4, target_modules=["q_proj", "v_proj"], fusion=request.param))


@pytest.fixture
def layer(model):
    return adapted_layers(model)[NAME]


def test_gathering_moments_evaluates_no_circuit_twice_and_leaves_the_branch_as_it_was(model, layer, texts, monkeypatch):
    branch = layer.branch("default")
    sent = []
    branch.middle.register_forward_pre_hook(lambda _, inputs: sent.append(inputs[0][..., 0].numel()))
    before = dict(branch.__dict__)
    moments = collect_moments(model, {NAME: branch}, texts[:3])[NAME]
    assert sum(sent) == moments.tokens == sum(len(one.input_ids) for one in texts[:3])
    assert branch.__dict__.keys() == before.keys()


@pytest.fixture
def activations(model, layer, texts):
    """h (tokens, rank) and the update (tokens, out_features) of one layer, token by token."""
    seen = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        for one in texts:
            model(input_ids=torch.tensor([one.input_ids]))
        handle.remove()
        x, branch = torch.cat(seen), layer.branch("default")
        return (x @ branch.down().T).double().numpy(), branch(x).double().numpy()


@pytest.fixture
def fit(model, layer, texts):
    """A function from the kind of constant to (fit, its matrix and constant in the layer's output)."""
    branch = layer.branch("default")
    moments = collect_moments(model, {NAME: branch}, texts)[NAME]

    def make(constant):
        with torch.no_grad():
            up = branch.effective_factors()[1]
            found = fit_bottleneck(moments, up, constant)
            out = branch.scaling * up.T.double()
        return found, (out @ found.matrix).numpy(), (out @ found.constant).numpy()

    return make


def test_with_a_constant_it_is_least_squares_with_an_intercept(fit, activations):
    h, update = activations
    with_one = np.concatenate([h, np.ones((len(h), 1))], axis=1)
    expected, *_ = np.linalg.lstsq(with_one, update, rcond=None)
    found, matrix, constant = fit("keep")
    assert_allclose(matrix, expected[:-1].T, atol=1e-4 * abs(expected).max())
    assert_allclose(constant, expected[-1], atol=1e-4 * abs(expected).max())
    left, mean_square = update - with_one @ expected, (update**2).sum()
    assert_allclose(found.explained, 1 - (left**2).sum() / ((update - update.mean(0)) ** 2).sum(), rtol=1e-5)
    assert_allclose(found.missed, np.sqrt((left**2).sum() / mean_square), rtol=1e-4)
    assert_allclose(found.constant_share, np.sqrt(len(h) * (expected[-1] ** 2).sum() / mean_square), rtol=1e-4)
    assert found.tokens == len(h)
    assert found.missed > 1e-3


def test_absorbed_it_is_least_squares_through_the_origin(fit, activations):
    h, update = activations
    expected, *_ = np.linalg.lstsq(h, update, rcond=None)
    found, matrix, constant = fit("absorb")
    assert_allclose(matrix, expected.T, atol=1e-4 * abs(expected).max())
    assert not constant.any()
    left = ((update - h @ expected) ** 2).sum() / (update**2).sum()
    assert_allclose(found.missed, np.sqrt(left), rtol=1e-4)


def test_dropped_it_misses_the_constant_as_well(fit, activations):
    h, update = activations
    found, matrix, constant = fit("drop")
    assert_allclose(matrix, fit("keep")[1])
    assert not constant.any()
    assert_allclose(found.missed, np.sqrt(((update - h @ matrix.T) ** 2).sum() / (update**2).sum()), rtol=1e-4)
    assert found.missed > fit("absorb")[0].missed > fit("keep")[0].missed


def test_directions_that_h_never_takes_do_no_harm():
    draw = np.random.default_rng(0)
    h = draw.normal(size=(200, 3)) @ draw.normal(size=(3, 5))
    z = np.sin(h) + draw.normal(size=5)
    moments = Moments(5)
    for half in (slice(0, 90), slice(90, None)):
        moments.add(torch.tensor(h[half]), torch.tensor(z[half]))
    found = fit_bottleneck(moments, torch.eye(5), "keep")
    with_one = np.concatenate([h, np.ones((200, 1))], axis=1)
    expected, *_ = np.linalg.lstsq(with_one, z, rcond=1e-10)
    assert_allclose(h @ found.matrix.numpy().T + found.constant.numpy(), with_one @ expected, atol=1e-8)
    assert found.matrix.abs().max() < 10


def test_too_little_text_is_refused():
    moments = Moments(4)
    moments.add(torch.randn(5, 4), torch.randn(5, 4))
    with pytest.raises(DataError, match="5 tokens of calibration text do not determine a linear map of rank 4"):
        fit_bottleneck(moments, torch.eye(4), "keep")


@pytest.mark.parametrize(
    ("config", "is_linear"),
    [
        (QthaConfig(rank=4, bottleneck="none"), True),
        (LorettaConfig(rank=4, bond_dimension=5, num_modes=2), True),
        (QthaConfig(rank=4), False),
        (QthaConfig(rank=4, bottleneck="mlp"), False),
        (QthaConfig(rank=4, bottleneck="frozen_circuit", classical_path=False), False),
    ],
    ids=["no bottleneck", "loretta", "circuit", "mlp", "frozen circuit"],
)
def test_linear_bottlenecks_are_told_from_others(trained, config, is_linear):
    branch = adapted_layers(trained(config))[NAME].branch("default")
    fit = linear_bottleneck(branch)
    assert (fit is not None) == is_linear
    if fit is not None:
        h = torch.randn(7, 4)
        torch.testing.assert_close(branch.bottleneck(h), h @ fit.matrix.T.float())
