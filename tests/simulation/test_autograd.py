"""torch.func on everything here that has a gradient gives what loops of plain calls give, or one refusal."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.circuits.ansatz import cnot_chain
from qpeft.devices import LocalDevice, device_expectations
from qpeft.errors import GradientError, SimulationError
from qpeft.simulation import apply_circuit, expectations
from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError, SampleKey
from qpeft.simulation.noise.density import noisy_expectations
from qpeft.simulation.shots import sampled_expectations

# torch's own, when it first loads its rules for forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
RING = ansatz.ring_crz(3)
CLOSED = ansatz.ring_cz(3)
CHAIN = cnot_chain(2, 1)
NOISE = NoiseModel.uniform(
    3,
    qubit=QubitNoise(0.02, Damping(0.05, 0.1), ReadoutError(0.05, 0.12)),
    edge=EdgeNoise(0.1),
    edges=[(0, 1), (1, 2), (2, 0)],
)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


OPERATIONS = {
    "kernel": (lambda x, w: expectations(RING, x, w), RING.num_inputs, RING.num_weights, torch.float32),
    "torch": (lambda x, w: expectations(RING, x, w), RING.num_inputs, RING.num_weights, torch.float64),
    "closed": (lambda x, w: expectations(CLOSED, x, w), CLOSED.num_inputs, CLOSED.num_weights, torch.float32),
    "noisy": (lambda x, w: noisy_expectations(RING, x, w, NOISE), RING.num_inputs, RING.num_weights, torch.float32),
    "vectors": (lambda x, w: apply_circuit(CHAIN, x, w), 4, CHAIN.num_weights, torch.float64),
    # Half precision on both sides: types are changed inside the map.
    "bfloat16": (lambda x, w: expectations(RING, x, w), RING.num_inputs, RING.num_weights, torch.bfloat16),
}


@pytest.fixture(params=OPERATIONS)
def operation(request):
    """A function of rows (..., columns) and weights, five batches of four rows, and weights for each batch."""
    function, columns, num_weights, dtype = OPERATIONS[request.param]
    return function, numbers(5, 4, columns, dtype=dtype), numbers(5, num_weights, seed=1, dtype=dtype)


def loss(function, weights, rows):
    return function(rows, weights).square().sum()


def slopes(function, rows, weights):
    """Gradients of `loss` by rows and weights, by backward()."""
    rows, weights = rows.clone().requires_grad_(), weights.clone().requires_grad_()
    return torch.autograd.grad(loss(function, weights, rows), (rows, weights))


def test_vmap_is_a_loop(operation):
    function, rows, weights = operation
    by_rows = torch.stack([function(one, weights[0]) for one in rows])
    assert_close(vmap(function, (0, None))(rows, weights[0]), by_rows)
    assert_close(vmap(function, (1, None), out_dims=1)(rows, weights[0]), by_rows)
    assert_close(vmap(vmap(function, (0, None)), (0, None))(rows, weights[0]), by_rows)
    pairs = zip(rows, weights, strict=True)
    assert_close(vmap(function)(rows, weights), torch.stack([function(*pair) for pair in pairs]))
    over_weights = vmap(function, (None, 0))(rows, weights)
    assert_close(over_weights, torch.stack([function(rows, one) for one in weights]))
    assert_close(vmap(function, (0, None), chunk_size=2)(rows, weights[0]), by_rows)


def test_gradients_of_torch_func_are_those_of_backward(operation):
    function, rows, weights = operation
    by_rows, by_weights = slopes(function, rows, weights[0])
    found = grad(lambda w, x: loss(function, w, x), argnums=(0, 1))(weights[0], rows)
    assert_close(found, (by_weights, by_rows))
    values, back = vjp(function, rows, weights[0])
    assert_close(back(2 * values), (by_rows, by_weights))


def test_gradients_per_sample_are_a_loop(operation):
    function, rows, weights = operation
    expected = [slopes(function, one, weights[0]) for one in rows]
    each = vmap(grad(lambda w, x: loss(function, w, x), argnums=(1, 0)), (None, 0))(weights[0], rows)
    assert_close(each, tuple(map(torch.stack, zip(*expected, strict=True))))
    of_rows = vmap(grad(lambda x: loss(function, weights[0], x)))(rows)
    assert_close(of_rows, torch.stack([one for one, _ in expected]))
    ensemble = vmap(grad(lambda w: loss(function, w, rows)))(weights)
    assert_close(ensemble, torch.stack([slopes(function, rows, one)[1] for one in weights]))


def test_jacobians_are_rows_of_gradients(operation):
    function, rows, weights = operation
    for place in (0, 1):
        expected = torch.autograd.functional.jacobian(function, (rows[0], weights[0]))[place]
        assert_close(jacrev(function, argnums=place)(rows[0], weights[0]), expected)
        assert_close(jacrev(function, argnums=place, chunk_size=3)(rows[0], weights[0]), expected)


def test_a_jacobian_is_that_of_finite_differences():
    rows, weights, step = numbers(2, RING.num_inputs), numbers(RING.num_weights, seed=1), 1e-6
    moves = step * torch.eye(len(weights), dtype=torch.float64)
    ends = [torch.stack([expectations(RING, rows, weights + sign * move) for move in moves], -1) for sign in (1, -1)]
    found = jacrev(lambda w: expectations(RING, rows, w))(weights)
    assert_close(found, (ends[0] - ends[1]) / (2 * step), atol=1e-8, rtol=0)


def test_forward_mode_is_refused(operation):
    function, rows, weights = operation
    calls = [
        lambda: jvp(lambda w: function(rows, w), (weights[0],), (weights[0],)),
        lambda: jacfwd(lambda x: function(x, weights[0]))(rows),
        lambda: hessian(lambda w: loss(function, w, rows))(weights[0]),
    ]
    for call in calls:
        with pytest.raises(GradientError, match=r"no forward-mode derivative.*jacrev, or backward\(\)"):
            call()
    with forward_ad.dual_level(), pytest.raises(GradientError, match="no forward-mode derivative"):
        function(forward_ad.make_dual(rows, rows), weights[0])


def test_second_derivatives_are_refused_and_never_zero(operation):
    function, rows, weights = operation

    def penalty(w):
        return grad(lambda v: loss(function, v, rows))(w).square().sum()

    calls = [
        lambda: grad(penalty)(weights[0]),
        lambda: jacrev(jacrev(lambda w: loss(function, w, rows)))(weights[0]),
        lambda: vmap(grad(penalty))(weights),
        lambda: torch.autograd.functional.hessian(lambda w: loss(function, w, rows), weights[0]),
        lambda: torch.autograd.functional.jvp(lambda w: function(rows, w), weights[0], weights[0]),
    ]
    for call in calls:
        with pytest.raises(GradientError, match="first derivatives only"):
            call()


@pytest.mark.parametrize("place", [0, 1])
def test_gradients_by_one_of_both_alone_are_the_same(operation, place):
    function, rows, weights = operation
    both = [rows, weights[0]]
    both[place] = both[place].clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(function, both[1], both[0]), both[place])
    assert_close(found, slopes(function, rows, weights[0])[place])


def test_the_older_batches_of_torch_autograd_are_refused_naming_the_newer():
    weights = numbers(RING.num_weights)
    for dtype in (torch.float32, torch.float64):
        rows = numbers(2, RING.num_inputs, dtype=dtype)
        with pytest.raises(GradientError, match=r"vectorize=True.*Use torch\.func\.jacrev"):
            torch.autograd.functional.jacobian(
                lambda w, rows=rows: expectations(RING, rows, w), weights.to(dtype), vectorize=True
            )


def test_large_and_broken_angles_are_seen_inside_a_map():
    rows, weights = numbers(5, 4, 3), numbers(RING.num_weights)
    found = vmap(lambda x: expectations(RING, x + 4e6 * torch.pi, weights))(rows)
    assert_close(found, expectations(RING, rows, weights), atol=1e-7, rtol=0)
    rows[2, 1, 0] = torch.nan
    with pytest.raises(SimulationError, match="1 of 60 input angles are NaN"):
        vmap(lambda x: expectations(RING, x, weights))(rows)


def test_an_ensemble_of_modules_is_a_loop():
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.zeros(RING.num_weights))

        def forward(self, x):
            return expectations(RING, x, self.weights).sum(-1)

    layer, rows, weights = (
        Layer(),
        numbers(4, 3, dtype=torch.float32),
        numbers(5, RING.num_weights, dtype=torch.float32),
    )
    found = vmap(lambda w: functional_call(layer, {"weights": w}, (rows,)))(weights)
    assert_close(found, torch.stack([expectations(RING, rows, one).sum(-1) for one in weights]))


def test_a_circuit_without_gates_or_without_weights_is_mapped_too():
    rows = numbers(5, 3, 1)
    ry = Circuit(1, (Operation("RY", (0,), Input(0)),))
    none = torch.empty(0, dtype=torch.float64)
    assert_close(vmap(lambda x: expectations(ry, x, none))(rows), rows.cos())
    assert_close(grad(lambda x: expectations(ry, x, none).sum())(rows), -rows.sin())
    vectors = numbers(3, 4)
    assert_close(vmap(lambda v: apply_circuit(Circuit(2, ()), v, none))(vectors), vectors)
    assert_close(grad(lambda v: apply_circuit(Circuit(2, ()), v, none).sum())(vectors), torch.ones_like(vectors))
    constant = Circuit(1, (Operation("RY", (0,), Weight(0)),))
    found = vmap(lambda w: expectations(constant, torch.empty(2, 0, dtype=torch.float64), w))(rows[0])
    assert_close(found, rows[0].cos()[:, None].expand(3, 2, 1))


@pytest.mark.parametrize("gradient", ["parameter-shift", "simulated"])
def test_devices_have_first_derivatives_in_torch_func_and_refuse_the_rest(gradient):
    rows, weights = numbers(2, 3), numbers(RING.num_weights)

    def total(w, chosen=gradient):
        return device_expectations(RING, rows, w, LocalDevice(), None, gradient=chosen).values.square().sum()

    expected = grad(lambda w: expectations(RING, rows, w).square().sum())(weights)
    assert_close(grad(total)(weights), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(GradientError, match="have no gradient unless it is chosen"):
        grad(lambda w: total(w, None))(weights)
    with pytest.raises(GradientError, match="first derivatives only"):
        grad(lambda w: grad(total)(w).sum())(weights)
    with pytest.raises(GradientError, match="no forward-mode derivative"):
        jvp(total, (weights,), (weights,))
    for mapped in (lambda: vmap(total)(weights[None]), lambda: jacrev(lambda w: total(w)[None])(weights)):
        with pytest.raises(SimulationError, match=r"not mapped by torch\.func.*leading axes"):
            mapped()


def test_samples_have_the_gradient_that_was_asked_for_in_torch_func_or_refuse():
    rows, weights = numbers(2, 3), numbers(RING.num_weights)

    def total(w, gradient=None):
        return sampled_expectations(RING, rows, w, 50, SampleKey(0), gradient=gradient).values.sum()

    with pytest.raises(GradientError, match="Sampled values have no gradient"):
        grad(total)(weights)
    found = grad(lambda w: total(w, "straight-through"))(weights)
    assert_close(found, grad(lambda w: expectations(RING, rows, w).sum())(weights))
    with pytest.raises(GradientError, match="first derivatives only"):
        grad(lambda w: grad(lambda v: total(v, "straight-through"))(w).sum())(weights)
    with pytest.raises(SimulationError, match=r"not mapped by torch\.func.*leading axes"):
        vmap(lambda x: sampled_expectations(RING, x, weights, 5, SampleKey(0)).values)(rows)
