"""Products over pairs of axes against full matrices that numpy builds one by one."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from qpeft.errors import FactorizationError
from qpeft.tensor_networks import Modes, PairNetwork, factorize

SIZES = [
    pytest.param(36, 36, 2, id="two axes"),
    pytest.param(24, 24, 3, id="square"),
    pytest.param(48, 18, 3, id="shrinking"),
    pytest.param(12, 60, 3, id="growing"),
    pytest.param(64, 81, 4, id="one axis shrinks, others grow"),
    pytest.param(37, 101, 3, id="both sides padded"),
    pytest.param(1, 5, 2, id="a single input"),
]


@pytest.mark.parametrize(("in_features", "out_features", "num_axes"), SIZES)
def test_the_product_is_that_of_the_full_matrices(in_features, out_features, num_axes):
    network, matrices = _random(in_features, out_features, num_axes)
    expected = torch.from_numpy(_product(network, matrices))
    assert_close(network.dense(matrices), expected)
    x = torch.randn(2, 5, in_features, dtype=torch.float64)
    assert_close(network.apply(x, matrices), x @ expected.T)


def test_every_pair_has_a_matrix_and_the_last_axis_comes_first():
    network = PairNetwork(factorize(16, 4), factorize(16, 4))
    assert [step.axes for step in network.steps] == [(2, 3), (1, 3), (0, 3), (1, 2), (0, 2), (0, 1)]


def test_axes_shrink_when_first_touched_and_grow_when_last():
    network = PairNetwork(Modes(60, (5, 4, 3)), Modes(60, (3, 4, 5)))
    steps = [(step.axes, step.before, step.after) for step in network.steps]
    assert steps == [((1, 2), (4, 3), (4, 3)), ((0, 2), (5, 3), (3, 5)), ((0, 1), (3, 4), (3, 4))]


def test_nothing_in_between_is_larger_than_both_ends():
    for in_features in range(2, 60, 7):
        for out_features in range(2, 60, 5):
            network = PairNetwork(factorize(in_features, 4), factorize(out_features, 4))
            sizes, largest = list(network.inputs.factors), max(network.inputs.padded, network.outputs.padded)
            for step in network.steps:
                assert tuple(sizes[axis] for axis in step.axes) == step.before
                for axis, size in zip(step.axes, step.after, strict=True):
                    sizes[axis] = size
                assert math.prod(sizes) <= largest
            assert tuple(sizes) == network.outputs.factors


def test_no_vectors_give_no_vectors():
    network, matrices = _random(24, 18, 3)
    assert network.apply(torch.empty(2, 0, 24, dtype=torch.float64), matrices).shape == (2, 0, 18)


@pytest.mark.parametrize("axes", [((4,), (4,)), ((2, 2), (4, 2, 2))])
def test_one_axis_or_different_numbers_of_axes_are_refused(axes):
    with pytest.raises(FactorizationError, match="need two axes or more, as many for the inputs"):
        PairNetwork(*(Modes(math.prod(factors), factors) for factors in axes))


def _random(in_features, out_features, num_axes):
    network = PairNetwork(factorize(in_features, num_axes), factorize(out_features, num_axes))
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(step.shape, generator=generator, dtype=torch.float64) for step in network.steps]
    return network, matrices


def _product(network, matrices):
    """Each matrix as one on all axes, filled entry by entry; their product, cut to the widths."""
    sizes, product = network.inputs.factors, np.eye(network.inputs.padded)
    for step, matrix in zip(network.steps, matrices, strict=True):
        first, second = step.axes
        entries = matrix.numpy().reshape(*step.after, *step.before)
        after = list(sizes)
        after[first], after[second] = step.after
        full = np.zeros((*after, *sizes))
        for column in np.ndindex(*sizes):
            for a, b in np.ndindex(*step.after):
                row = list(column)
                row[first], row[second] = a, b
                full[(*row, *column)] = entries[a, b, column[first], column[second]]
        product, sizes = full.reshape(math.prod(after), math.prod(sizes)) @ product, tuple(after)
    return product[: network.outputs.width, : network.inputs.width].copy()
