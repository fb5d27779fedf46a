"""What a QTHA layer computes: the published equations with dense matrices, for every combination of blocks."""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

from qpeft import QthaConfig
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.layer import QthaLayer

FACTORS = list(product(("mpo", "dense"), ("mpo", "dense")))
BOTTLENECKS = [
    {
        "bottleneck": bottleneck,
        "classical_path": classical,
        "fusion": fusion,
        "input_scaling": scaling,
        "num_qubits": num_qubits,
    }
    for bottleneck, classical, fusion, scaling, num_qubits in product(
        ("circuit", "frozen_circuit", "mlp", "none"),
        (True, False),
        ("linear", "hadamard"),
        ("none", "tanh"),
        (None, 2),
    )
    if (classical or (bottleneck != "none" and fusion == "linear"))
    and not (bottleneck == "none" and fusion == "hadamard")
    and (bottleneck in ("circuit", "frozen_circuit") or (scaling, num_qubits) == ("none", None))
]
CIRCUITS = [
    {"ansatz": ansatz, "depth": depth, "reupload": reupload, "rank": rank, "encoding_offset": offset}
    for ansatz, (depth, reupload), rank, offset in product(
        ("ring_crz", "ring_cz", "ring_cnot"), ((1, True), (2, True), (2, False)), (1, 2, 3), (0.0, 1.2)
    )
]
CONTROLS = [
    {"rank": 4, "bottleneck": "hilbert"},
    {"rank": 7, "bottleneck": "hilbert", "fusion": "hadamard"},
    {"rank": 4, "bottleneck": "mlp", "mlp_layers": 3},
    {"rank": 4, "bottleneck": "constant"},
    {"rank": 5, "bottleneck": "constant", "fusion": "hadamard"},
    {"rank": 3, "bottleneck": "mlp", "mlp_layers": 4, "classical_path": False},
    {"rank": 4, "bottleneck": "sinusoid"},
    {"rank": 4, "bottleneck": "sinusoid", "depth": 2, "classical_path": False},
    {"rank": 3, "bottleneck": "sinusoid", "ansatz": "ring_cz"},
    {"rank": 4, "bottleneck": "sinusoid", "ansatz": "ring_cnot", "depth": 2, "num_qubits": 2},
    {"rank": 4, "bottleneck": "tanh", "ansatz": "ring_cnot"},
    {"rank": 4, "bottleneck": "classical_form", "ansatz": "ring_cz"},
    {"rank": 6, "bottleneck": "classical_form", "ansatz": "ring_cz", "num_qubits": 2, "input_scaling": "tanh"},
    {"rank": 2, "bottleneck": "classical_form", "ansatz": "ring_cz", "num_qubits": 1, "fusion": "hadamard"},
    {"rank": 4, "bottleneck": "none", "classical_path": False},
    {"rank": 4, "down": "bare_mpo", "up": "bare_mpo"},
    {"rank": 7, "down": "bare_mpo", "up": "dense", "bottleneck": "none", "classical_path": False, "bond_dimension": 3},
    {"rank": 4, "down": "mpo", "up": "bare_mpo", "inner_features": 5, "bottleneck": "hilbert"},
]


def _name(options):
    return "-".join(f"{value}" for value in options.values())


@pytest.mark.parametrize("options", BOTTLENECKS, ids=_name)
@pytest.mark.parametrize(("down", "up"), FACTORS)
def test_branch_equals_the_published_equations(equations, down, up, options):
    _check(equations, {"rank": 4, "down": down, "up": up, **options})


@pytest.mark.parametrize("options", CIRCUITS, ids=_name)
def test_branch_equals_the_equations_for_every_circuit(equations, options):
    _check(equations, options)


@pytest.mark.parametrize("options", CONTROLS, ids=str)
def test_branch_equals_the_equations_for_every_control(equations, options):
    _check(equations, options, std=0.9)


@pytest.mark.parametrize(("in_features", "out_features"), [(13, 101), (97, 16)])
def test_branch_equals_the_equations_at_padded_widths(equations, in_features, out_features):
    _check(equations, {"rank": 3, "bond_dimension": 3, "inner_features": 5}, in_features, out_features)


def test_layer_adds_alpha_over_rank_times_the_branch(equations):
    config = QthaConfig(rank=4, alpha=6.0)
    base = torch.nn.Linear(12, 10)
    layer = QthaLayer(base, "layer", "default")
    layer.update_layer("default", config)
    branch = _randomize(layer.qtha_branch["default"])
    x = torch.randn(2, 3, 12)
    update = equations(branch, config, x.double().numpy().reshape(6, 12)).reshape(2, 3, 10)
    assert_close(layer(x), base(x) + 1.5 * torch.from_numpy(update).float(), atol=1e-5, rtol=1e-5)


def test_a_circuit_reads_no_further_than_its_own_slice_of_h():
    config = QthaConfig(rank=6, num_qubits=3)
    bottleneck = _randomize(QthaBranch(config, 12, 10, rank=6, scaling=1.0)).middle
    h = torch.randn(5, 6)
    other = torch.cat([h[:, :3], torch.randn(5, 3)], dim=1)
    assert_close(bottleneck(h)[:, :3], bottleneck(other)[:, :3])
    assert not torch.allclose(bottleneck(h)[:, 3:], bottleneck(other)[:, 3:])


@pytest.mark.parametrize("batch", [(), (0,), (1,), (2, 3), (2, 1, 4)])
def test_any_batch_shape_passes_a_branch(batch):
    branch = _randomize(QthaBranch(QthaConfig(rank=4), 12, 10, rank=4, scaling=1.0))
    assert branch(torch.randn(*batch, 12)).shape == (*batch, 10)


def test_tanh_scaling_keeps_angles_within_a_quarter_turn_of_the_offset():
    branch = _randomize(
        QthaBranch(QthaConfig(rank=4, input_scaling="tanh", encoding_offset=0.3), 12, 10, rank=4, scaling=1.0)
    )
    angles = branch.middle.angles(100 * torch.randn(50, 4))
    assert (angles - 0.3).abs().max() <= torch.pi / 2 + 1e-6


def _check(equations, options, in_features=12, out_features=10, std=0.5):
    config = QthaConfig(**options)
    branch = _randomize(QthaBranch(config, in_features, out_features, rank=config.rank, scaling=1.0), std)
    x = torch.randn(5, in_features)
    expected = torch.from_numpy(equations(branch, config, x.double().numpy()))
    assert expected.abs().max() > 1e-3
    assert_close(branch(x).double(), expected, atol=2e-5, rtol=2e-5)


def _randomize(branch, std=0.5):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in (*branch.parameters(), *branch.buffers()):
            weight.normal_(std=std)
    return branch
