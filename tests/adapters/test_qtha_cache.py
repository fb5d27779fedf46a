"""Contracted factors are kept while evaluating, and never used after a weight changed."""

import copy
import io

import pytest
import torch
from torch.testing import assert_close

from qpeft import QthaConfig
from qpeft.adapters.qtha.branch import QthaBranch


@pytest.fixture
def branch():
    torch.manual_seed(0)
    config = QthaConfig(rank=4)
    branch = QthaBranch(config, 12, 10, rank=4, scaling=1.0)
    with torch.no_grad():
        for weight in branch.parameters():
            weight.normal_(std=0.5)
    return branch.eval()


@pytest.fixture
def contractions(branch, monkeypatch):
    """A list that grows with every contraction of the branch."""
    calls = []
    contract = branch._contract
    monkeypatch.setattr(branch, "_contract", lambda: calls.append(1) or contract())
    return calls


X = torch.linspace(-1, 1, 36).reshape(3, 12)


@torch.no_grad()
def test_evaluation_contracts_once(branch, contractions):
    first = branch(X)
    for _ in range(3):
        assert torch.equal(branch(X), first)
    assert len(contractions) == 1


def test_training_and_gradients_contract_every_time(branch, contractions):
    branch(X), branch(X)
    branch.train()
    with torch.no_grad():
        branch(X)
    assert len(contractions) == 3


def test_an_optimizer_step_without_a_forward_pass_is_seen(branch):
    optimizer = torch.optim.SGD(branch.parameters(), lr=0.1)
    branch(X).square().sum().backward()
    with torch.no_grad():
        before = branch(X)
    optimizer.step()
    _check_current(branch, before)


@torch.no_grad()
def test_an_in_place_copy_is_seen(branch):
    before = branch(X)
    branch.up.operator.cores[-1].copy_(torch.randn_like(branch.up.operator.cores[-1]))
    _check_current(branch, before)


@pytest.mark.parametrize("assign", [False, True])
@torch.no_grad()
def test_load_state_dict_is_seen(branch, assign):
    before = branch(X)
    # Twice when tensors are assigned: freed ones make room, and the next may come to lie where the first lay.
    for factor in (0.5, 2.0, 3.0):
        branch.load_state_dict({name: factor * w for name, w in branch.state_dict().items()}, assign=assign)
    _check_current(branch, before)


@torch.no_grad()
def test_new_tensors_at_the_address_of_old_ones_are_not_mistaken_for_them(branch):
    branch(X)
    held = branch._contracted.weights
    branch.load_state_dict({name: 2 * w for name, w in branch.state_dict().items()}, assign=True)
    now = {weight.data_ptr() for weight in branch.parameters()}
    assert now.isdisjoint(weight.data_ptr() for weight in held)


@torch.no_grad()
def test_replaced_data_is_seen(branch):
    before = branch(X)
    branch.down.bottleneck.data = branch.down.bottleneck.data * 2
    _check_current(branch, before)


@torch.no_grad()
def test_writing_into_data_is_seen_after_a_pass_in_training_mode(branch):
    before = branch(X)
    branch.down.bottleneck.data.mul_(2)
    branch.train()
    branch(X)
    branch.eval()
    _check_current(branch, before)


@torch.no_grad()
def test_another_type_is_seen(branch):
    before = branch(X)
    after = branch.double()(X.double())
    assert after.dtype == torch.float64
    assert_close(after.float(), before, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dense_factors_are_seen_to_change_too():
    branch = QthaBranch(QthaConfig(rank=4, down="dense", up="dense"), 12, 10, rank=4, scaling=1.0).eval()
    for weight in branch.parameters():
        weight.normal_(std=0.5)
    before = branch(X)
    branch.down.matrix.mul_(2)
    _check_current(branch, before)


@torch.inference_mode()
def test_weights_made_in_inference_mode_work_uncached():
    branch = QthaBranch(QthaConfig(rank=4), 12, 10, rank=4, scaling=1.0).eval()
    for weight in branch.parameters():
        weight.normal_(std=0.5)
    before = branch(X)
    branch.down.bottleneck.mul_(2)
    assert not torch.equal(branch(X), before)


def test_inference_mode_and_later_training_do_not_meet(branch):
    with torch.inference_mode():
        branch(X)
    branch.train()(X).sum().backward()
    assert branch.down.bottleneck.grad is not None


@torch.no_grad()
def test_copies_and_pickles_start_without_the_cache(branch):
    before = branch(X)
    for twin in (copy.deepcopy(branch), _pickled(branch)):
        assert twin._contracted is None
        assert torch.equal(twin(X), before)
        twin.down.bottleneck.mul_(2)
        _check_current(twin, before)
    assert torch.equal(branch(X), before)


@torch.no_grad()
def test_the_cache_is_no_part_of_what_is_saved(branch):
    names = set(branch.state_dict())
    branch(X)
    assert set(branch.state_dict()) == names


def _check_current(branch, before):
    with torch.no_grad():
        cached = branch(X)
        down, up = branch.down(), branch.up()
        expected = branch.bottleneck(X @ down.T) @ up
    assert torch.equal(cached, expected)
    assert not torch.equal(cached, before)


def _pickled(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)
