"""Matrix product operators against dense matrices built core by core with numpy."""

import math
import string
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qpeft.errors import FactorizationError
from qpeft.tensor_networks import MatrixProductOperator, Modes, factorize, mpo_parameter_count

SIZES = [
    pytest.param(16, 60, 3, 4, id="exact"),
    pytest.param(8, 97, 3, 5, id="wide side padded"),
    pytest.param(97, 16, 3, 2, id="narrow side padded"),
    pytest.param(37, 101, 3, 3, id="both sides padded"),
    pytest.param(16, 81, 4, 3, id="four cores"),
    pytest.param(8, 24, 2, 3, id="two cores"),
    pytest.param(5, 7, 1, 9, id="one core, no bond"),
    pytest.param(1, 1, 3, 2, id="a single entry"),
    pytest.param(8, 30, 3, 1, id="bond dimension 1"),
]


@pytest.mark.parametrize(("narrow", "wide", "num_cores", "bond_dimension"), SIZES)
def test_left_multiply_equals_the_dense_operator(narrow, wide, num_cores, bond_dimension):
    operator = _operator(narrow, wide, num_cores, bond_dimension)
    matrix = torch.randn(6, narrow, dtype=torch.float64)
    assert_close(operator.left_multiply(matrix), matrix @ _dense(operator))


@pytest.mark.parametrize(("narrow", "wide", "num_cores", "bond_dimension"), SIZES)
def test_dense_is_the_operator_as_a_matrix(narrow, wide, num_cores, bond_dimension):
    operator = _operator(narrow, wide, num_cores, bond_dimension)
    assert_close(operator.dense(), _dense(operator))


def test_left_multiply_takes_no_rows():
    assert _operator(8, 12, 3, 2).left_multiply(torch.empty(0, 8, dtype=torch.float64)).shape == (0, 12)


@pytest.mark.parametrize(("narrow", "wide", "num_cores", "bond_dimension"), SIZES[:4])
def test_gradients_of_matrix_and_cores_equal_finite_differences(narrow, wide, num_cores, bond_dimension):
    operator = _operator(narrow, wide, num_cores, bond_dimension)
    matrix = torch.randn(2, narrow, dtype=torch.float64, requires_grad=True)

    def multiply(matrix, *cores):
        names = [name for name, _ in operator.named_parameters()]
        return torch.func.functional_call(_Multiply(operator), _prefixed(names, cores), (matrix,))

    assert torch.autograd.gradcheck(multiply, (matrix, *operator.parameters()), fast_mode=True)


@pytest.mark.parametrize(("wide", "published"), [(3584, 4576), (512, 2432)])
def test_parameter_count_is_the_published_one(wide, published):
    modes = factorize(256, 4), factorize(wide, 4)
    assert mpo_parameter_count(*modes, bond_dimension=8) == published
    assert mpo_parameter_count(*reversed(modes), bond_dimension=8) == published


@pytest.mark.parametrize(("narrow", "wide", "num_cores", "bond_dimension"), SIZES)
def test_parameter_count_is_that_of_the_cores_and_of_the_formula(narrow, wide, num_cores, bond_dimension):
    operator = _operator(narrow, wide, num_cores, bond_dimension)
    bonds = [1] + [bond_dimension] * (num_cores - 1) + [1]
    modes = zip(operator.narrow.factors, operator.wide.factors, strict=True)
    formula = sum(bonds[k] * bonds[k + 1] * n * w for k, (n, w) in enumerate(modes))
    assert sum(core.numel() for core in operator.cores) == formula
    assert mpo_parameter_count(operator.narrow, operator.wide, bond_dimension=bond_dimension) == formula


@pytest.mark.parametrize(("narrow", "wide", "num_cores", "bond_dimension"), [(256, 4096, 4, 8), (16, 4096, 3, 8)])
def test_forward_and_backward_never_form_an_inner_by_width_matrix(narrow, wide, num_cores, bond_dimension):
    rank = 8
    operator = _operator(narrow, wide, num_cores, bond_dimension)
    matrix = torch.randn(rank, narrow, dtype=torch.float64, requires_grad=True)
    with _LargestTensor() as largest:
        operator.left_multiply(matrix).square().sum().backward()
    assert largest.numel < narrow * wide
    # The last step holds rank x (wide modes so far) x (what is left of the bond and the narrow modes).
    assert largest.numel <= rank * wide * max(bond_dimension, narrow**0.5)


def test_the_largest_tensor_is_seen():
    """The claim above rests on this mode noticing a dense operator."""
    operator = _operator(16, 4096, 3, 8)
    with _LargestTensor() as largest:
        operator.dense()
    assert largest.numel >= 16 * 4096


@pytest.mark.parametrize(("narrow", "products", "copies"), [(8, 3, 1), (16, 3, 6)])
def test_few_operations_contract_a_matrix_as_high_as_the_operator_is_narrow(narrow, products, copies):
    operator, matrix = _operator(narrow, 1536, 3, 9), torch.randn(8, narrow, dtype=torch.float64)
    with _Operations() as operations:
        operator.left_multiply(matrix)
    assert operations.count("mm") == products
    assert operations.count("clone") <= copies


def test_cores_of_different_number_are_refused():
    with pytest.raises(FactorizationError, match="as many modes as it has cores"):
        MatrixProductOperator(Modes(8, (4, 2)), Modes(8, (2, 2, 2)), bond_dimension=2)


def test_bond_dimension_below_one_is_refused():
    with pytest.raises(FactorizationError, match="bond_dimension must be at least 1; got 0"):
        MatrixProductOperator(factorize(8, 2), factorize(8, 2), bond_dimension=0)


def test_print_shows_modes_and_bond():
    assert "narrow=(2, 2, 2), wide=(4, 3, 2), bond_dimension=3" in repr(_operator(8, 24, 3, 3))


class _Multiply(torch.nn.Module):
    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def forward(self, matrix):
        return self.operator.left_multiply(matrix)


class _LargestTensor(TorchDispatchMode):
    """Notes the number of entries of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))])
        return out


def _prefixed(names, tensors):
    return {f"operator.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}


def _operator(narrow, wide, num_cores, bond_dimension):
    torch.manual_seed(0)
    modes = factorize(narrow, num_cores), factorize(wide, num_cores)
    operator = MatrixProductOperator(*modes, bond_dimension=bond_dimension).double()
    for core in operator.cores:
        torch.nn.init.normal_(core)
    return operator


def _dense(operator):
    """The operator by one einsum over all cores, rows and columns cut to their widths."""
    letters = iter(string.ascii_letters)
    bonds = [next(letters) for _ in range(len(operator.cores) + 1)]
    narrow, wide, terms = "", "", []
    for left, right in pairwise(bonds):
        n, w = next(letters), next(letters)
        narrow, wide = narrow + n, wide + w
        terms.append(left + n + w + right)
    cores = [core.detach().numpy() for core in operator.cores]
    full = np.einsum(f"{','.join(terms)}->{narrow}{wide}", *cores, optimize=True)
    matrix = full.reshape(math.prod(operator.narrow.factors), math.prod(operator.wide.factors))
    return torch.from_numpy(matrix[: operator.narrow.width, : operator.wide.width].copy())


class _Operations(TorchDispatchMode):
    """Notes the names of operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def count(self, name):
        return self.names.count(name)
