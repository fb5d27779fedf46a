"""Quantum-PEFT as we reconstruct it: its equations, sizes and start, and what padding costs."""

import math

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close

from qpeft import QuantumPeftConfig
from qpeft.adapters.build import count_layers
from qpeft.adapters.quantum_peft import CircuitColumns, QuantumPeftBranch
from qpeft.errors import AdapterError


@pytest.mark.parametrize(("in_features", "out_features"), [(24, 30), (32, 64), (3, 7), (2, 2)])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_update_is_u_lambda_v_transposed(in_features, out_features, depth):
    config = QuantumPeftConfig(rank=2, alpha=6.0, depth=depth)
    branch = _random(QuantumPeftBranch(config, in_features, out_features, rank=2, scaling=3.0))
    u = dense_unitary(branch.up, depth)[:out_features, :2]
    v = dense_unitary(branch.down, depth)[:in_features, :2]
    expected = torch.from_numpy(6.0 / 2 * u @ np.diag(branch.strengths.detach().numpy()) @ v.T)
    assert_close(branch.matrix(), expected, atol=1e-12, rtol=0)
    x = torch.randn(5, in_features, dtype=torch.float64)
    assert_close(branch(x), x @ expected.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("widths", "options", "parameters"),
    [
        ((1024, 1024), {"depth": 1}, 2 * (3 * 10 - 2) + 8),
        ((576, 192), {}, (9 * 10 - 8) + (9 * 8 - 8) + 8),
        ((576, 576), {"rank": 5, "depth": 2}, 2 * (5 * 10 - 4) + 5),
        ((2, 1), {"rank": 1, "depth": 3}, (7 - 6) + (7 - 6) + 1),
    ],
)
def test_an_adapter_has_the_parameters_of_its_formula(one_linear, widths, options, parameters):
    with torch.device("meta"):
        model = one_linear(*widths)
    (kind,) = count_layers(model, QuantumPeftConfig(target_modules=["layer"], **options))
    assert kind.parameters == parameters


def test_columns_are_orthonormal_where_the_width_is_a_power_of_two():
    columns = _started(8, 256)
    assert_close(columns @ columns.T, torch.eye(8), atol=1e-5, rtol=0)


def test_cut_columns_lose_what_stood_below_the_cut():
    whole, cut = _started(8, 1024), _started(8, 576)
    lost = whole[:, 576:] @ whole[:, 576:].T
    assert_close(cut @ cut.T, torch.eye(8) - lost, atol=1e-5, rtol=0)
    assert lost.diagonal().min() > 0.01  # or nothing would have been tested


def test_a_fresh_adapter_has_dense_columns_and_no_strength():
    branch = QuantumPeftBranch(QuantumPeftConfig(), 512, 128, rank=8, scaling=2.0)
    branch.initialize(torch.Generator().manual_seed(0))
    down, _ = branch.effective_factors()
    assert torch.count_nonzero(branch.strengths) == 0
    assert down.abs().max() < 0.7
    assert (down.abs() > 1e-3).float().mean() > 0.8


def test_every_angle_and_strength_learns(one_linear, train):
    model = get_peft_model(one_linear(), QuantumPeftConfig(rank=3, target_modules=["layer"], init_seed=0))
    losses = train(model, learning_rate=0.05)
    assert losses[-1] < 0.9 * losses[0]
    trained = {name.split(".default.")[1]: w for name, w in model.named_parameters() if w.requires_grad}
    assert trained.keys() == {"down.angles", "up.angles", "strengths"}
    assert all(weight.grad.abs().min() > 0 for weight in trained.values())


def test_a_lora_of_its_rank_is_exact_and_of_less_is_not(one_linear, is_lora_of):
    model = _random(get_peft_model(one_linear(), QuantumPeftConfig(rank=4, target_modules=["layer"])))
    assert is_lora_of(model, rank=4)
    assert not is_lora_of(model, rank=3)


def test_a_new_strength_is_seen_where_factors_are_kept(one_linear):
    model = _random(get_peft_model(one_linear(), QuantumPeftConfig(rank=2, target_modules=["layer"])))
    layer, x = model.base_model.model.layer, torch.randn(3, 12, dtype=torch.float64)
    with torch.no_grad():
        update = layer.update("default", x)
        layer.branch("default").strengths.mul_(2)
        assert_close(layer.update("default", x), 2 * update)


def test_a_rank_above_the_smaller_width_is_refused_with_the_layers_name(one_linear):
    config = QuantumPeftConfig(rank=11, target_modules=["layer"])
    with pytest.raises(AdapterError, match=r"rank 11 .* 10 x 12 .*'layer': set rank, .* to 10 at most"):
        get_peft_model(one_linear(), config)


@pytest.mark.parametrize("options", [{"depth": 0}, {"depth": True}, {"rank": -1}, {"alpha": math.inf}])
def test_values_out_of_range_are_refused_by_name(options):
    with pytest.raises(AdapterError, match=next(iter(options))):
        QuantumPeftConfig(**options)


def dense_unitary(columns, depth):
    """The circuit's whole matrix: RY everywhere, then CZ and RY on even and on odd pairs in turn, by np.kron."""
    n = max(1, math.ceil(math.log2(columns.width)))
    angles = iter(columns.angles.detach().double().numpy())
    full = _kron(_ry(next(angles)) for _ in range(n))
    for _ in range(depth):
        for first in (0, 1):
            pairs = [(a, a + 1) for a in range(first, n - 1, 2)]
            turned = {qubit: _ry(next(angles)) for pair in pairs for qubit in pair}
            for a, _b in pairs:
                signs = _kron(np.diag([1, 1, 1, -1]) if q == a else np.eye(2) for q in range(n) if q != a + 1)
                full = signs @ full
            full = _kron(turned.get(q, np.eye(2)) for q in range(n)) @ full
    assert next(angles, None) is None
    return full


def _kron(matrices):
    full = np.eye(1)
    for matrix in matrices:
        full = np.kron(full, matrix)
    return full


def _ry(angle):
    cos, sin = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([[cos, -sin], [sin, cos]])


@torch.no_grad()
def _started(rank, width):
    columns = CircuitColumns(rank, width, depth=4)
    columns.initialize(torch.Generator().manual_seed(1))
    return columns()


def _random(module):
    torch.manual_seed(4)
    module.double().eval()
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.5)
    return module
