"""Circuits sampled with a finite number of shots, as a quantum computer would, reproducibly and without stored state.

Bit strings are drawn from the exact joint distribution, so values of one circuit are correlated as on a machine. Random
numbers are a function of a `SampleKey` alone. Probabilities are computed in float64: rounding, which may depend on the
number of threads, then moves an outcome with a probability of about 1e-16 per outcome and shot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpeft.circuits import Circuit, Operation
from qpeft.errors import GradientError, ShotsError, SimulationError
from qpeft.simulation.expectations import expectations
from qpeft.simulation.noise import gates
from qpeft.simulation.noise.checks import check_angles
from qpeft.simulation.noise.counter import SampleKey, Stream

MAX_QUBITS = 20
NUMBERS_PER_BLOCK = 2**20
"""Tokens are handled in blocks of this many float64 numbers: 8 MiB for the state, as much for the shots."""

_TO_Z_BASIS = {"X": ("H",), "Y": ("SDG", "H"), "Z": ()}


class SampledValues(NamedTuple):
    """Means of samples, and how far they are off.

    Attributes:
        values: in [-1, 1], (*batch, num_observables).
        standard_errors: sqrt((1 - value**2) / (shots - 1)), same shape; 1 for a single shot, 0 for exact values.
    """

    values: Tensor
    standard_errors: Tensor


def sampled_expectations(
    circuit: Circuit,
    inputs: Float[Tensor, "*batch num_inputs"],
    weights: Float[Tensor, " num_weights"],
    shots: int | None,
    key: SampleKey,
    *,
    gradient: Literal["straight-through"] | None = None,
) -> SampledValues:
    """Expectation values estimated from `shots` samples, for every row of `inputs`.

    Observables are measured together where they agree on every qubit (`measurement_bases`): Z of all qubits is one
    circuit. Every basis is a circuit of its own and gets `shots` samples of its own.

    Args:
        circuit: what to sample, on at most `MAX_QUBITS` qubits.
        inputs: angles in radians, one row per circuit.
        weights: trained angles in radians, shared by all rows.
        shots: samples per circuit; `None` for exact values.
        key: names the random numbers: same key, same samples.
        gradient: None: asking for a gradient of the values raises. "straight-through": it is the gradient of the exact
            values at the same angles, which is that of the mean of the samples.

    Raises:
        ShotsError: shots below 1.
        GradientError: in the backward pass, if `gradient` is None and shots are finite.
        SimulationError: too many qubits, a shape that does not fit the circuit, NaN or infinite angles.
    """
    check_angles(circuit, inputs, weights)
    if shots is None:
        exact = expectations(circuit, inputs, weights)
        return SampledValues(exact, torch.zeros_like(exact))
    with torch.no_grad():
        mean = torch.zeros(*inputs.shape[:-1], circuit.num_observables, dtype=torch.float64, device=inputs.device)
        for stream, (basis, columns) in enumerate(measurement_bases(circuit.observables).items()):
            counts = _counts(_rotated(circuit, basis), inputs, weights, shots, Stream(key, stream))
            signs = torch.stack([_signs(circuit.observables[column], inputs.device) for column in columns], dim=1)
            mean[..., columns] = counts.double() @ signs / shots
        errors = ((1 - mean.square()) / (shots - 1)).sqrt() if shots > 1 else torch.ones_like(mean)
    values, standard_errors = mean.to(inputs.dtype), errors.to(inputs.dtype)
    if gradient == "straight-through":
        return SampledValues(_StraightThrough.apply(values, expectations(circuit, inputs, weights)), standard_errors)
    return SampledValues(_NoGradient.apply(values, inputs, weights), standard_errors)


def sampled_counts(
    circuit: Circuit,
    inputs: Float[Tensor, "*batch num_inputs"],
    weights: Float[Tensor, " num_weights"],
    shots: int,
    key: SampleKey,
) -> Int[Tensor, "*batch outcomes"]:
    """How often each bit string comes out when all qubits are measured in the Z basis; observables are not looked at.

    Args: as for `sampled_expectations`.

    Returns:
        Integers that sum to `shots`; outcome k is the bit string of k, its leftmost bit being qubit 0.

    Raises: as `sampled_expectations`; counts never have a gradient.
    """
    check_angles(circuit, inputs, weights)
    with torch.no_grad():
        return _counts(circuit, inputs, weights, shots, Stream(key))


def measurement_bases(observables: tuple[str, ...]) -> dict[str, list[int]]:
    """Bases in which the observables can be measured, as strings of X, Y, Z, and the observables read from each.

    Observables share a basis if on no qubit they have different letters other than I (qubit-wise commuting); each joins
    the first basis that it fits. Qubits that nobody asks about are measured in Z.
    """
    bases: list[tuple[str, list[int]]] = []
    for column, observable in enumerate(observables):
        for position, (basis, columns) in enumerate(bases):
            if all("I" in pair or pair[0] == pair[1] for pair in zip(basis, observable, strict=True)):
                merged = "".join(b if o == "I" else o for b, o in zip(basis, observable, strict=True))
                bases[position] = (merged, [*columns, column])
                break
        else:
            bases.append((observable, [column]))
    return {basis.replace("I", "Z"): columns for basis, columns in bases}


def _rotated(circuit: Circuit, basis: str) -> Circuit:
    """The circuit with gates at its end after which measuring Z is measuring `basis`."""
    changes = [Operation(name, (qubit,)) for qubit, letter in enumerate(basis) for name in _TO_Z_BASIS[letter]]
    return Circuit(circuit.num_qubits, (*circuit.operations, *changes))


def _counts(circuit: Circuit, inputs: Tensor, weights: Tensor, shots: int, stream: Stream) -> Tensor:
    if shots < 1:
        raise ShotsError(f"shots must be at least 1; got {shots}. For exact values pass shots=None.")
    if circuit.num_qubits > MAX_QUBITS:
        raise SimulationError(
            f"Sampling holds all amplitudes, for at most {MAX_QUBITS} qubits; got {circuit.num_qubits}, for which one "
            f"state of one token takes {2 ** (circuit.num_qubits + 4) / 2**20:,.0f} MiB."
        )
    flat = inputs.reshape(inputs.shape[:-1].numel(), circuit.num_inputs).double()
    tokens = max(1, NUMBERS_PER_BLOCK // max(2 * 2**circuit.num_qubits, shots))
    blocks = []
    for block in flat.split(tokens):
        cumulative = _probabilities(circuit, block, weights.double()).cumsum(1)
        draws = stream.uniforms(len(block), shots).to(flat.device) * cumulative[:, -1:]
        # right=True: the first outcome whose cumulative probability exceeds the draw, never one of probability 0.
        outcomes = torch.searchsorted(cumulative, draws, right=True).clamp(max=cumulative.shape[1] - 1)
        counts = torch.zeros(cumulative.shape, dtype=torch.int64, device=flat.device)
        blocks.append(counts.scatter_add_(1, outcomes, torch.ones_like(outcomes)))
    return torch.cat(blocks).reshape(*inputs.shape[:-1], 2**circuit.num_qubits)


def _probabilities(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Probability of every bit string, (tokens, 2**num_qubits), qubit 0 the most significant bit."""
    # Axis 0: real and imaginary parts; axis q + 1: qubit q; then tokens.
    state = inputs.new_zeros(2 ** (circuit.num_qubits + 1), len(inputs))
    state[0] = 1
    state = state.reshape(*[2] * (circuit.num_qubits + 1), len(inputs))
    for operation in circuit.operations:
        gate, axes = gates.on_amplitudes(operation.gate_name), (0, *(qubit + 1 for qubit in operation.qubits))
        state = gates.apply(gate, gates.angle_values(operation.angle, inputs, weights), state, axes)
    return state.square().sum(0).reshape(-1, len(inputs)).T.contiguous()


def _signs(observable: str, device: torch.device) -> Tensor:
    """+1 or -1 for every outcome: the product of the measured bits' signs, (2**num_qubits,)."""
    signs = torch.ones(1, dtype=torch.float64, device=device)
    for letter in observable:
        one = 1.0 if letter == "I" else -1.0
        signs = (signs[:, None] * signs.new_tensor([1.0, one])).flatten()
    return signs


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor, *_: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(_ctx: Any, *_: Tensor) -> Iterator[None]:
        raise GradientError(
            "Sampled values have no gradient. Pass gradient='straight-through' for that of the exact values, "
            "or sample under torch.no_grad()."
        )


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor, _exact: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad
