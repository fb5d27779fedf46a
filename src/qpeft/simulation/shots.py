"""Circuits sampled with a finite number of shots, as a quantum computer would, reproducibly and without stored state.

Bit strings are drawn from the joint distribution, so values of one circuit are correlated as on a machine. Random
numbers are a function of a `SampleKey` alone. Probabilities are computed in float64: rounding, which may depend on the
number of threads, then moves an outcome with a probability of about 1e-16 per possible outcome and shot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import GradientError
from qpeft.simulation.autograd import FirstOrder
from qpeft.simulation.checks import check_angles, check_shots
from qpeft.simulation.expectations import expectations
from qpeft.simulation.noise.counter import SampleKey, Stream
from qpeft.simulation.noise.density import noisy_expectations
from qpeft.simulation.noise.model import NoiseModel
from qpeft.simulation.noise.outcomes import outcome_probabilities

NUMBERS_PER_BLOCK = 2**20
"""Tokens are handled in blocks of this many float64 numbers: 8 MiB for the state, as much for the shots."""


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
    noise: NoiseModel | None = None,
    gradient: Literal["straight-through"] | None = None,
) -> SampledValues:
    """Expectation values estimated from `shots` samples, for every row of `inputs`.

    Observables are measured together where they agree on every qubit (`measurement_bases`): Z of all qubits is one
    circuit. Every basis is a circuit of its own and gets `shots` samples of its own.

    Args:
        circuit: what to sample, on at most 20 qubits, with noise 8.
        inputs: angles in radians, one row per circuit.
        weights: trained angles in radians, shared by all rows.
        shots: samples per circuit; `None` for exact values.
        key: names the random numbers: same key, same samples.
        noise: of the machine; None for a perfect one.
        gradient: None: asking for a gradient of sampled values raises. "straight-through": it is the gradient of the
            exact values (with the same noise) at the same angles, of which the samples are unbiased estimates.

    Raises:
        ShotsError: shots that are no whole number of at least 1.
        GradientError: in the backward pass, if `gradient` is None and shots are finite.
        SimulationError: too many qubits, a shape that does not fit the circuit, NaN or infinite angles.
        NoiseError: the noise model lacks a qubit or an edge.
    """
    if gradient not in (None, "straight-through"):
        raise GradientError(f"gradient is None or 'straight-through'; got {gradient!r}.")
    check_angles(circuit, inputs, weights)
    if shots is None:
        exact = _exact(circuit, inputs, weights, noise)
        return SampledValues(exact, torch.zeros_like(exact))
    shots = check_shots(shots, "These values are samples", "For exact values pass shots=None.")
    mean = torch.zeros(*inputs.shape[:-1], circuit.num_observables, dtype=torch.float64, device=inputs.device)
    for stream, (basis, columns) in enumerate(measurement_bases(circuit.observables).items()):
        signs = torch.stack([_signs(circuit.observables[column], inputs.device) for column in columns], dim=1)
        # Block by block: counts of all rows at once would be as large as all their states.
        counts = _counts(circuit, inputs, weights, shots, Stream(key, stream), basis, noise)
        sums = torch.cat([block.double() @ signs for block in counts])
        mean[..., columns] = sums.reshape(*inputs.shape[:-1], len(columns)) / shots
    errors = ((1 - mean.square()) / (shots - 1)).sqrt() if shots > 1 else torch.ones_like(mean)
    values = mean.to(inputs.dtype)
    if gradient == "straight-through":
        values = _StraightThrough.apply(values, _exact(circuit, inputs, weights, noise))
    else:
        values = _NoGradient.apply(values, inputs, weights)
    return SampledValues(values, errors.to(inputs.dtype))


def sampled_counts(
    circuit: Circuit,
    inputs: Float[Tensor, "*batch num_inputs"],
    weights: Float[Tensor, " num_weights"],
    shots: int,
    key: SampleKey,
    *,
    noise: NoiseModel | None = None,
) -> Int[Tensor, "*batch outcomes"]:
    """How often each bit string comes out when all qubits are measured in the Z basis; observables are not looked at.

    Args:
        circuit, inputs, weights, shots, key, noise: as for `sampled_expectations`.

    Returns:
        Integers that sum to `shots`; outcome k is the bit string of k, its leftmost bit being qubit 0.

    Raises: as `sampled_expectations`; counts never have a gradient.
    """
    check_angles(circuit, inputs, weights)
    shots = check_shots(shots, "Counts are samples", "Exact values are those of expectations().")
    counts = _counts(circuit, inputs, weights, shots, Stream(key), "Z" * circuit.num_qubits, noise)
    return torch.cat(list(counts)).reshape(*inputs.shape[:-1], 2**circuit.num_qubits)


def sampled(probabilities: Float[Tensor, "rows outcomes"], stream: Stream, shots: int) -> Int[Tensor, "rows outcomes"]:
    """How often each outcome comes out, row after row, from as many numbers of the stream as there are shots.

    Numbers are drawn in blocks, so that memory does not grow with the shots; how large they are changes no sample.

    Args:
        probabilities: float64, rows of sum 1 up to rounding.
        stream: of the random numbers, which is used up by rows * shots.
        shots: per row, at least 1.
    """
    cumulative = probabilities.cumsum(1)
    counts = torch.zeros(cumulative.shape, dtype=torch.int64, device=cumulative.device)
    rows = max(1, NUMBERS_PER_BLOCK // shots)
    for own, own_counts in zip(cumulative.split(rows), counts.split(rows), strict=True):
        for first in range(0, shots, NUMBERS_PER_BLOCK):
            numbers = stream.uniforms(len(own), min(NUMBERS_PER_BLOCK, shots - first)).to(own.device)
            # right=True: the first outcome whose cumulative probability exceeds the draw, never one of probability 0.
            outcomes = torch.searchsorted(own, numbers * own[:, -1:], right=True).clamp(max=own.shape[1] - 1)
            own_counts.scatter_add_(1, outcomes, torch.ones_like(outcomes))
    return counts


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


def _exact(circuit: Circuit, inputs: Tensor, weights: Tensor, noise: NoiseModel | None) -> Tensor:
    if noise is None:
        return expectations(circuit, inputs, weights)
    return noisy_expectations(circuit, inputs, weights, noise)


@torch.no_grad()
def _counts(
    circuit: Circuit,
    inputs: Tensor,
    weights: Tensor,
    shots: int,
    stream: Stream,
    basis: str,
    noise: NoiseModel | None,
) -> Iterator[Tensor]:
    """Of one block of rows after another, (rows, 2**num_qubits)."""
    flat = inputs.reshape(inputs.shape[:-1].numel(), circuit.num_inputs).double()
    numbers = 2 * 2**circuit.num_qubits if noise is None else 4**circuit.num_qubits
    for block in flat.split(max(1, NUMBERS_PER_BLOCK // numbers)):
        yield sampled(outcome_probabilities(circuit, block, weights.double(), basis, noise), stream, shots)


def _signs(observable: str, device: torch.device) -> Tensor:
    """+1 or -1 for every outcome: the product of the measured bits' signs, (2**num_qubits,)."""
    signs = torch.ones(1, dtype=torch.float64, device=device)
    for letter in observable:
        one = 1.0 if letter == "I" else -1.0
        signs = (signs[:, None] * signs.new_tensor([1.0, one])).flatten()
    return signs


class _NoGradient(FirstOrder):
    @staticmethod
    def forward(values: Tensor, *_angles: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(_ctx: Any, _inputs: tuple[Any, ...], _output: Tensor) -> None:
        pass

    @staticmethod
    def backward(_ctx: Any, *_grads: Tensor) -> Tensor:
        raise GradientError(
            "Sampled values have no gradient. Pass gradient='straight-through' for that of the exact values, "
            "or sample under torch.no_grad()."
        )


class _StraightThrough(FirstOrder):
    @staticmethod
    def forward(values: Tensor, _exact_values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(_ctx: Any, _inputs: tuple[Any, ...], _output: Tensor) -> None:
        pass

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad
