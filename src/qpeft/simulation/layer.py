"""Circuits as modules of torch: `QuantumLayer`, and what it shares with the circuits inside adapters."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qpeft.circuits import Circuit
from qpeft.errors import SimulationError
from qpeft.simulation.expectations import expectations
from qpeft.simulation.noise.counter import SampleKey, Stream
from qpeft.simulation.shots import sampled_counts

Evaluate: TypeAlias = Callable[[Circuit, Tensor, Tensor], Tensor]
"""Circuit, angles (..., num_circuits, num_inputs), weights (num_circuits, num_weights) to all expectation values."""

Initializer: TypeAlias = str | Callable[[Tensor], Any] | Sequence[float] | Tensor

MAX_PROBABILITY_QUBITS = 12
"""Probabilities are made of the values of all strings of Z, of which 12 qubits have 4,096."""


class CircuitModule(nn.Module):
    """Circuits side by side, on the simulator or wherever `set_evaluator` says; `has_evaluator` tells which.

    A subclass calls `place_circuits` and has `weights`, (num_circuits, num_weights).
    """

    circuit: Circuit
    num_circuits: int
    weights: Tensor
    has_evaluator: bool

    def place_circuits(self, circuit: Circuit, num_circuits: int) -> None:
        """Take a circuit and how many of it stand side by side, each with weights of its own."""
        self.circuit, self.num_circuits = circuit, num_circuits
        self._key = register(circuit)
        self.set_evaluator(None)

    def set_evaluator(self, evaluate: Evaluate | None) -> None:
        """Let `evaluate` give the expectation values from now on; None for our simulator.

        Chosen at run time: neither saved nor copied with the module.
        """
        self._elsewhere = evaluate
        # torch.compile watches truth values, but not whether a function that it must not look into is None.
        self.has_evaluator = evaluate is not None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_elsewhere": None, "has_evaluator": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        register(self.circuit)

    def values(self, angles: Float[Tensor, "*batch all_inputs"]) -> Float[Tensor, "*batch all_observables"]:
        """Return the expectation values of all circuits at these angles, radians, circuit after circuit."""
        if self.has_evaluator:
            assert self._elsewhere is not None
            # All in one call, which on a device is one job.
            apart = angles.unflatten(-1, (self.num_circuits, self.circuit.num_inputs))
            return self._elsewhere(self.circuit, apart, self.weights).flatten(-2)
        if self.num_circuits == 1:
            return self._simulate(angles, self.weights.flatten())
        # Not chunks, of which there would be one for circuits without inputs.
        parts = angles.split_with_sizes([self.circuit.num_inputs] * self.num_circuits, dim=-1)
        return torch.cat([self._simulate(*part) for part in zip(parts, self.weights.unbind(), strict=True)], dim=-1)

    def _simulate(self, angles: Tensor, weights: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return traced_expectations(self._key, angles, weights)
        return expectations(self.circuit, angles, weights)


class QuantumLayer(CircuitModule):
    """A parametrised circuit as a layer: angles in, expectation values out, weights trained like any others.

        layer = QuantumLayer(ansatz.ring_crz(4, depth=2))
        layer(torch.randn(32, 10, 4))                              # (32, 10, 4): Z of every qubit

    `set_quantum_device(layer_or_model, device, ...)` puts its circuits onto a quantum computer. state_dict, pickle,
    copy, torch.compile and torch.func work as for any module.

    Args:
        circuit: with its observables; `Circuit.from_...` and `qpeft.circuits.exchange` take those of others.
        num_circuits: how many of it stand side by side, each on its own slice of the inputs, with weights of its own.
        init: of the weights: 'near_zero' (normal, standard deviation 0.1), 'uniform' in [-pi, pi], 'zeros'; a function
            that fills a tensor in place, as those of torch.nn.init; or the values, (num_weights,) or (num_circuits,
            num_weights).
        trainable: whether weights are parameters, or a buffer that stays as it is.
        generator: of random weights; None for torch's global one.
        device, dtype: of the weights, as for any layer of torch.

    Shapes: inputs (*batch, num_circuits * circuit.num_inputs), radians; values (*batch, num_circuits *
    circuit.num_observables), in [-1, 1] and the type of the inputs. Half precision is computed in float32.

    Raises: SimulationError for an unknown init, values of another shape, or fewer circuits than one; when called, for
        inputs of another width, complex or whole ones, and as `expectations`.
    """

    def __init__(
        self,
        circuit: Circuit,
        *,
        num_circuits: int = 1,
        init: Initializer = "near_zero",
        trainable: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(circuit, Circuit):
            raise SimulationError(
                f"QuantumLayer takes a Circuit; got {type(circuit).__name__}. qpeft.circuits.exchange turns "
                "circuits of Qiskit, PennyLane and OpenQASM into one."
            )
        if num_circuits < 1:
            raise SimulationError(f"num_circuits must be at least 1; got {num_circuits}.")
        self.place_circuits(circuit, num_circuits)
        weights = torch.empty(num_circuits, circuit.num_weights, device=device, dtype=dtype)
        if trainable:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights)
        self.init = init
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Give the weights their first values, as `init` says."""
        match self.init:
            case "near_zero":
                nn.init.normal_(self.weights, std=0.1, generator=generator)
            case "uniform":
                nn.init.uniform_(self.weights, -math.pi, math.pi, generator=generator)
            case "zeros":
                nn.init.zeros_(self.weights)
            case str():
                raise SimulationError(
                    f"init is 'near_zero', 'uniform' or 'zeros', a function or the values; got {self.init!r}."
                )
            case _ if callable(self.init):
                self.init(self.weights)
            case _:
                given = torch.as_tensor(self.init).to(self.weights)
                if given.shape not in ((self.circuit.num_weights,), tuple(self.weights.shape)):
                    raise SimulationError(
                        f"init has the shape {tuple(given.shape)}; the weights have {tuple(self.weights.shape)}, or "
                        f"({self.circuit.num_weights},) for the same in every circuit."
                    )
                self.weights.copy_(given)

    def forward(self, inputs: Float[Tensor, "*batch all_inputs"] | None = None) -> Tensor:
        """Return the expectation values of every row of inputs; of the weights alone where the circuit has no input."""
        angles = self._angles(inputs)
        # Angles in half precision would be off by up to 0.004 radians.
        exact = angles.to(torch.promote_types(angles.dtype, torch.float32))
        return self.values(exact).to(angles.dtype)

    def probabilities(
        self, inputs: Float[Tensor, "*batch all_inputs"] | None = None
    ) -> Float[Tensor, "*batch num_circuits outcomes"]:
        """Return the probability of every bit string, qubit 0 leftmost; exact, and differentiable as the values are.

        Raises: SimulationError for more than 12 qubits, or if the circuits are on a device.
        """
        self._check_simulated("probabilities")
        if self.circuit.num_qubits > MAX_PROBABILITY_QUBITS:
            raise SimulationError(
                f"Probabilities are computed for up to {MAX_PROBABILITY_QUBITS} qubits; the circuit has "
                f"{self.circuit.num_qubits}. samples() has no such limit, and observables ask for less."
            )
        # A distribution is its own Fourier transform over bits: p(b) = mean over strings s of (-1)^(s.b) <Z^s>.
        strings = tuple("".join(letters) for letters in product("IZ", repeat=self.circuit.num_qubits))[1:]
        all_strings = replace(self.circuit, observables=strings)
        parts = self._parts(self._angles(inputs)).unbind(-2)
        values = [expectations(all_strings, *part) for part in zip(parts, self.weights.unbind(), strict=True)]
        transformed = torch.nn.functional.pad(torch.stack(values, dim=-2), (1, 0), value=1.0)
        for _ in range(self.circuit.num_qubits):
            # One bit after another, the last axis first; after all of them each is in its place again.
            even, odd = transformed.unflatten(-1, (-1, 2)).unbind(-1)
            transformed = torch.cat([even + odd, even - odd], dim=-1) / 2
        return transformed

    @torch.no_grad()
    def samples(
        self, inputs: Float[Tensor, "*batch all_inputs"] | None = None, *, shots: int, seed: int = 0
    ) -> Int[Tensor, "*batch num_circuits shots num_qubits"]:
        """Return measured bits in the Z basis, independent of each other. The same seed gives the same bits.

        Args:
            inputs: as for `forward`.
            shots: per row and circuit.
            seed: of the random numbers.

        Raises: ShotsError for fewer than one shot; SimulationError for more than 20 qubits, or circuits on a device.
        """
        self._check_simulated("samples")
        num_qubits, found = self.circuit.num_qubits, []
        parts = self._parts(self._angles(inputs)).unbind(-2)
        for number, (angles, weights) in enumerate(zip(parts, self.weights.unbind(), strict=True)):
            key = SampleKey(seed=seed, module=f"circuit {number}")
            counts = sampled_counts(self.circuit, angles, weights, shots, key).reshape(-1, 2**num_qubits)
            outcomes = torch.arange(2**num_qubits, device=counts.device).repeat(len(counts))
            ordered = outcomes.repeat_interleave(counts.flatten()).reshape(-1, shots)
            # Counts forget the order of the shots, and whoever takes the first few wants a fair part of them.
            order = Stream(SampleKey(seed=seed, module=f"order {number}")).uniforms(*ordered.shape).argsort(1)
            shuffled = ordered.gather(1, order.to(ordered.device)).reshape(*angles.shape[:-1], shots)
            found.append(shuffled)
        places = torch.arange(num_qubits - 1, -1, -1, device=found[0].device)
        return torch.stack(found, dim=-2)[..., None] >> places & 1

    def extra_repr(self) -> str:
        """Return the sizes, for `print(model)`."""
        circuit = self.circuit
        return (
            f"num_qubits={circuit.num_qubits}, num_circuits={self.num_circuits}, in_features="
            f"{self.num_circuits * circuit.num_inputs}, out_features={self.num_circuits * circuit.num_observables}"
        )

    def _angles(self, inputs: Tensor | None) -> Tensor:
        """Return the inputs, or a row of none for a circuit that has none. Raises: SimulationError, as the class."""
        wanted = self.num_circuits * self.circuit.num_inputs
        if inputs is None and not wanted:
            return self.weights.new_empty(0)
        if inputs is None or inputs.shape[-1:] != (wanted,) or not inputs.dtype.is_floating_point:
            got = "none" if inputs is None else f"{inputs.dtype} of shape {tuple(inputs.shape)}"
            raise SimulationError(
                f"The layer takes real numbers of shape (..., {wanted}), {self.circuit.num_inputs} angle(s) for each "
                f"of {self.num_circuits} circuit(s); got {got}."
            )
        return inputs

    def _parts(self, angles: Tensor) -> Float[Tensor, "*batch num_circuits num_inputs"]:
        apart: Tensor = angles.unflatten(-1, (self.num_circuits, self.circuit.num_inputs))
        return apart

    def _check_simulated(self, name: str) -> None:
        """Raises: SimulationError if the circuits run elsewhere, where nothing gives these."""
        if self.has_evaluator:
            raise SimulationError(
                f"{name}() are the simulator's, and this layer's circuits are on a device. Call device.run, or "
                "set_quantum_device(layer, None) first."
            )


# `expectations` as an operator of torch, so that torch.compile and torch.export take it into their graphs as it is.
#
# Without it, compilers would try to trace the simulator's own machinery. Operators take no circuits as arguments, only
# tensors, numbers and text: a circuit goes by a key that depends on nothing but what it computes.

_CIRCUITS: dict[str, Circuit] = {}


def register(circuit: Circuit) -> str:
    """Return the key of a circuit for `traced_expectations`, the same in every process."""
    key = hashlib.sha256(repr(circuit).encode()).hexdigest()[:16]
    _CIRCUITS[key] = circuit
    return key


def traced_expectations(key: str, angles: Tensor, weights: Tensor) -> Tensor:
    """Return `expectations` of the circuit that is registered as `key`, with the same shapes.

    Args:
        key: under which the circuit was registered.
        angles: (*batch, num_inputs), radians.
        weights: (num_weights,), radians.
    """
    values: Tensor = torch.ops.qpeft.expectations(key, angles, weights)
    return values


def _values(key: str, angles: Tensor, weights: Tensor) -> Tensor:
    return expectations(_CIRCUITS[key], angles, weights)


def _values_shape(key: str, angles: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG001
    return angles.new_empty((*angles.shape[:-1], _CIRCUITS[key].num_observables))


def _gradients(key: str, angles: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = angles.detach().requires_grad_(), weights.detach().requires_grad_()
        return torch.autograd.grad(expectations(_CIRCUITS[key], *leaves), leaves, grad)


def _gradients_shape(key: str, angles: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG001
    return torch.empty_like(angles), torch.empty_like(weights)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.key, *tensors = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return None, *torch.ops.qpeft.expectation_gradients(ctx.key, *ctx.saved_tensors, grad)


_operator = torch.library.custom_op(
    "qpeft::expectations", _values, mutates_args=(), schema="(str key, Tensor angles, Tensor weights) -> Tensor"
)
_operator.register_fake(_values_shape)
_operator.register_autograd(_backward, setup_context=_remember)

# Not a `custom_op`: within those, autograd records nothing, and it is autograd that gives the gradients here.
torch.library.define(
    "qpeft::expectation_gradients", "(str key, Tensor angles, Tensor weights, Tensor grad) -> (Tensor, Tensor)"
)
torch.library.impl("qpeft::expectation_gradients", "default", _gradients)
torch.library.register_fake("qpeft::expectation_gradients", _gradients_shape)
