"""Cayley unitary adapters: their unitaries, and PEFT's OFT as the form with real amplitudes."""

import numpy as np
import pytest
import torch
from peft import OFTConfig, get_peft_model
from torch import nn
from torch.testing import assert_close

from qpeft import CayleyConfig
from qpeft.adapters.cayley import CayleyBranch
from qpeft.errors import AdapterError


def random_branch(config, blocks):
    branch = CayleyBranch(config, blocks).double()
    nn.init.normal_(branch.generators, std=0.5, generator=torch.Generator().manual_seed(0))
    return branch


def test_a_complex_block_is_the_cayley_map_of_a_skew_hermitian_matrix_on_pairs_of_features():
    branch = random_branch(CayleyConfig(num_qubits=2), 3)
    p = branch.generators.detach().numpy().reshape(3, 4, 4)
    upper, one = np.triu(p, 1), np.eye(4)
    a = upper - upper.transpose(0, 2, 1) + 1j * (np.tril(p) + np.tril(p, -1).transpose(0, 2, 1))
    assert np.allclose(a, -a.conj().transpose(0, 2, 1))
    u = np.linalg.inv(one - a) @ (one + a)
    assert_close(branch.unitaries().detach(), torch.from_numpy(u))
    assert np.allclose(u @ u.conj().transpose(0, 2, 1), one)

    x = np.random.default_rng(0).normal(size=(5, 26))  # 3 blocks of 8 features, and 2 that are left alone
    blocks = x[:, :24].reshape(5, 3, 2, 4)
    amplitudes = np.einsum("kij,bkj->bki", u, blocks[:, :, 0] + 1j * blocks[:, :, 1])
    turned = np.stack([amplitudes.real, amplitudes.imag], 2).reshape(5, 24)
    expected = np.concatenate([turned - x[:, :24], np.zeros((5, 2))], 1)
    assert_close(branch(torch.from_numpy(x)).detach(), torch.from_numpy(expected))


def test_with_real_amplitudes_it_is_oft_of_equal_size(one_linear):
    def adapted(config):
        torch.manual_seed(0)
        return get_peft_model(one_linear(16, 10), config).eval()

    ours = adapted(CayleyConfig(num_qubits=2, amplitudes="real", target_modules=["layer"]))
    theirs = adapted(
        OFTConfig(r=0, oft_block_size=4, target_modules=["layer"], use_cayley_neumann=False, init_weights=True)
    )
    mine, oft = ([weight for weight in model.parameters() if weight.requires_grad] for model in (ours, theirs))
    assert [weight.shape for weight in mine] == [weight.shape for weight in oft] == [(4, 6)]
    x = torch.randn(7, 16)
    values = 0.3 * torch.randn(4, 6)
    with torch.no_grad():
        mine[0].copy_(values)
        # Whether the map or its inverse is called U is a sign of the generator.
        found = []
        for sign in (1, -1):
            oft[0].copy_(sign * values)
            found.append((theirs(x) - ours(x)).abs().max())
    assert min(found) < 1e-5


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 36 * 64),  # 576 = 36 blocks of 16 features
        ({"amplitudes": "real"}, 72 * 28),
        ({"block_share": True}, 64),
        ({"num_blocks": 2, "num_qubits": 4}, 2 * 256),
    ],
)
def test_its_size_is_that_of_its_blocks(options, parameters):
    config = CayleyConfig(**options)
    branch = CayleyBranch(config, config.blocks_of("layer", 576))
    assert sum(weight.numel() for weight in branch.parameters()) == parameters


def test_blocks_that_share_a_unitary_are_turned_alike():
    branch = random_branch(CayleyConfig(num_qubits=1, block_share=True), 3)
    x = torch.randn(4, dtype=torch.float64)
    assert_close(branch(x.repeat(3)), branch(x.repeat(3))[:4].repeat(3))


def test_a_layer_narrower_than_a_block_is_refused(one_linear):
    with pytest.raises(AdapterError, match="lower num_qubits"):
        get_peft_model(one_linear(12, 10), CayleyConfig(num_qubits=3, target_modules=["layer"]))


@pytest.mark.parametrize("options", [{"num_qubits": 0}, {"num_qubits": 11}, {"amplitudes": "x"}, {"num_blocks": 0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(AdapterError):
        CayleyConfig(**options)
