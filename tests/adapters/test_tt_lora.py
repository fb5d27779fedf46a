"""TT-LoRA: its train against one contraction of all cores, published sizes, and its start."""

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close

from qpeft import TtLoraConfig
from qpeft.adapters.build import count_layers
from qpeft.adapters.tt_lora import TtLoraBranch
from qpeft.errors import AdapterError


@pytest.mark.parametrize(
    ("modes", "indices", "order"),
    [
        pytest.param([[4, 3], [5, 2]], "ap,pbq,qcr,rd", "cdba", id="two modes a side"),
        pytest.param([[4, 3, 2], [6, 5]], "ap,pbq,qcr,rds,se", "decba", id="three modes and two"),
        pytest.param([[12], [10]], "ap,pb", "ba", id="one mode a side: LoRA"),
    ],
)
def test_the_update_is_one_contraction_of_the_train(modes, indices, order):
    in_features, out_features = (int(np.prod(factors)) for factors in modes)
    branch = _random(TtLoraBranch(TtLoraConfig(modes=modes), in_features, out_features, rank=3, scaling=2.0))
    full = np.einsum(f"{indices}->{order}", *_train(branch), optimize=True)
    expected = torch.from_numpy(2.0 * full.reshape(out_features, in_features))
    assert_close(branch.matrix(), expected)
    x = torch.randn(5, in_features, dtype=torch.float64)
    assert_close(branch(x), x @ expected.T)


def test_widths_without_balanced_modes_are_cut_from_padded_ones():
    branch = _random(TtLoraBranch(TtLoraConfig(num_modes=2), 37, 101, rank=3, scaling=1.0))
    full = np.einsum("ap,pbq,qcr,rd->cdba", *_train(branch))
    padded = full.reshape(full.shape[0] * full.shape[1], -1)
    assert padded.shape > (101, 37)
    assert_close(branch.matrix(), torch.from_numpy(padded[:101, :37].copy()))


@pytest.mark.parametrize(
    ("in_features", "out_features", "shape"),
    [
        # q and v of Llama-3.2-1B with the shapes of the published code, rank 5.
        (2048, 2048, [16, 8, 4, 4, 4, 4, 8, 16]),
        (2048, 512, [16, 8, 4, 4, 2, 16, 16]),
    ],
)
def test_its_size_is_the_published_formula(one_linear, in_features, out_features, shape):
    modes = [[16, 8, 4, 4]] + ([] if out_features == in_features else [[16, 16, 2]])
    with torch.device("meta"):
        model = one_linear(in_features, out_features)
    (kind,) = count_layers(model, TtLoraConfig(rank=5, modes=modes, target_modules=["layer"]))
    bonds = [1, *[5] * (len(shape) - 1), 1]
    assert kind.parameters == sum(bonds[k] * size * bonds[k + 1] for k, size in enumerate(shape))


@pytest.mark.parametrize(
    ("in_features", "out_features", "parameters"),
    [(576, 576, 2 * (64 * (8 + 8) + 8 * 9)), (576, 192, 64 * (8 + 8) + 8 * 9 + 64 * (4 + 6) + 8 * 8)],
)
def test_default_modes_ascend_to_the_ends(one_linear, in_features, out_features, parameters):
    with torch.device("meta"):
        model = one_linear(in_features, out_features)
    (kind,) = count_layers(model, TtLoraConfig(target_modules=["layer"]))
    assert kind.parameters == parameters


@pytest.mark.parametrize("num_modes", [1, 2, 4])
def test_h_starts_with_the_variance_that_lora_has(num_modes):
    branch = TtLoraBranch(TtLoraConfig(num_modes=num_modes), 768, 768, rank=8, scaling=2.0)
    branch.initialize(torch.Generator().manual_seed(0))
    down, up = branch.effective_factors()
    x = torch.randn(2000, 768, generator=torch.Generator().manual_seed(1))
    assert (x @ down.T).var().item() == pytest.approx(1 / 3, rel=0.25)
    assert torch.count_nonzero(up) == 0


def test_all_cores_learn_once_the_last_has_moved(one_linear, train):
    model = get_peft_model(one_linear(), TtLoraConfig(target_modules=["layer"], init_seed=0))
    losses = train(model, learning_rate=0.02)
    assert losses[-1] < 0.8 * losses[0]
    assert all(weight.grad.abs().max() > 0 for weight in model.parameters() if weight.requires_grad)


def test_ranks_of_single_layers_follow_the_pattern(make_model):
    options = {"rank_pattern": {"v_proj": 2}, "target_modules": ["q_proj", "v_proj"]}
    with torch.device("meta"):
        model = make_model()
    kinds = {kind.name: kind.parameters for kind in count_layers(model, TtLoraConfig(rank=4, num_modes=1, **options))}
    assert kinds == {"q_proj": 4 * (32 + 32), "v_proj": 2 * (32 + 16)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "rank must be a whole number of at least 1"),
        ({"num_modes": 0}, "num_modes must be a whole number of at least 1"),
        ({"modes": []}, "modes must hold a list for each width"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(AdapterError, match=sentence):
        TtLoraConfig(**options)


def test_a_width_without_modes_is_refused_with_a_proposal(one_linear):
    config = TtLoraConfig(modes=[[4, 3]], num_modes=2, target_modules=["layer"])
    with pytest.raises(AdapterError, match=r"modes has factors of 12, but a layer has width 10.*such as \[5, 2\]"):
        get_peft_model(one_linear(12, 10), config)


def _train(branch):
    """Cores in the order of the train, without bonds of size 1: (end, bond), (bond, mode, bond), ..., (bond, end)."""
    cores = []
    for factor in (branch.down, branch.up):
        first, *others = [core.detach().numpy() for core in factor.operator.cores]
        # The first core's narrow mode is the bond in the middle of the train.
        cores.append([first[0], *(core[:, 0] for core in others)])
    down, up = cores
    whole = [core.transpose(2, 1, 0) for core in reversed(down)] + up
    return [whole[0][0], *whole[1:-1], whole[-1][..., 0]]


def _random(branch):
    torch.manual_seed(4)
    branch.double()
    with torch.no_grad():
        for weight in branch.parameters():
            weight.normal_(std=0.5)
    return branch
