"""Expectation values under noise: exact density matrices, batched, differentiable in inputs and weights.

A density matrix is held as its Pauli coefficients c_P = Tr(P rho): 4**num_qubits real float32 numbers per token, half
of what real and imaginary parts take, and every expectation value is one of them. Gates and channels are real matrices
on one or two of its axes (`gates`, `channels`). A channel has no stable inverse, so the backward pass cannot walk the
circuit back as the noiseless one does: per block of tokens it computes the states again, keeps those before gates with
a trained or fed-in angle, and takes the transposed matrices back. Between the passes only inputs and weights are kept.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Angle, Circuit, Input, Operation, Weight
from qpeft.errors import SimulationError
from qpeft.simulation.autograd import AbstractOperation, row_values
from qpeft.simulation.checks import check_angles, check_shapes
from qpeft.simulation.noise import channels
from qpeft.simulation.noise.channels import gate_noise, readout_row
from qpeft.simulation.noise.model import NoiseModel
from qpeft.simulation.threads import threads_for

MAX_QUBITS = 8
NUMBERS_PER_BLOCK = 2**18
"""Size of the state of one block of tokens, float32 numbers: 1 MiB."""
NUMBERS_KEPT = 2**24
"""Size of all states that a backward pass keeps at a time, 64 MiB; one token's states if those are larger."""


def noisy_expectations(
    circuit: Circuit,
    inputs: Float[Tensor, "*batch num_inputs"],
    weights: Float[Tensor, " num_weights"],
    noise: NoiseModel,
) -> Float[Tensor, "*batch num_observables"]:
    """Expectation value of every observable of `circuit` on a machine with this noise, for every row of `inputs`.

    Noise follows every gate as it stands in the circuit, but for the model's free ones; none is fused. Readout errors
    act on the qubits on which an observable has X, Y or Z. The values are means of infinitely many shots.

    Args:
        circuit: what to evaluate, on at most `MAX_QUBITS` qubits.
        inputs: angles in radians, one row per evaluation.
        weights: trained angles in radians, shared by all rows.
        noise: a model with every qubit of the circuit and every edge that it uses.

    Returns:
        Values in [-1, 1] in the order of `circuit.observables`, differentiable once in `inputs` and in `weights`.

    Raises:
        SimulationError: too many qubits, a shape that does not fit the circuit, NaN or infinite angles.
        NoiseError: the model lacks a qubit or an edge.
    """
    check_size(circuit)
    check_shapes(circuit, inputs, weights)
    noise.check_covers(circuit)
    flat = inputs.reshape(inputs.shape[:-1].numel(), circuit.num_inputs)
    values = row_values(_Noisy(circuit, noise), flat.float(), weights.float())
    return values.reshape(*inputs.shape[:-1], circuit.num_observables).to(inputs.dtype)


def check_size(circuit: Circuit) -> None:
    """Raises: SimulationError if the density matrix of the circuit has more than `MAX_QUBITS` qubits."""
    if circuit.num_qubits > MAX_QUBITS:
        raise SimulationError(
            f"Noise is simulated with density matrices of at most {MAX_QUBITS} qubits; got {circuit.num_qubits}, for "
            f"which one state of one token takes {4**circuit.num_qubits * 4 / 2**20:,.0f} MiB, and a gradient keeps "
            f"one per gate. Split the circuit, or use LinearNoise, which has no limit."
        )


def pauli_coefficients(circuit: Circuit, inputs: Tensor, weights: Tensor, noise: NoiseModel) -> Tensor:
    """Tr(P rho) of the final state before readout for every Pauli string P, (4, ..., 4, tokens): IXYZ of each qubit.

    Args:
        circuit: that is evaluated.
        inputs: (tokens, num_inputs), radians.
        weights: (num_weights,), radians.
        noise: of the gates.
    """
    state = _ground_state(circuit, inputs)
    for step in _steps(circuit, noise):
        state = step.forward(state, channels.angle_values(step.angle, inputs, weights))
    return state


@dataclass(frozen=True, eq=False)
class _Step:
    """A gate and the noise that follows it."""

    gate: channels.TrigonometricMatrix
    qubits: tuple[int, ...]
    angle: Angle | None

    @property
    def has_gradient(self) -> bool:
        return isinstance(self.angle, (Input, Weight))

    def forward(self, state: Tensor, angle: Tensor) -> Tensor:
        return channels.apply(self.gate, angle, state, self.qubits)

    def backward(self, costate: Tensor, angle: Tensor) -> Tensor:
        """The transposed matrix on the costate, the gradient with respect to the state after this step."""
        matrices = torch.from_numpy(self.gate.matrices).to(costate).mT
        return channels.apply_weighted(matrices, channels.functions(self.gate.frequencies, angle), costate, self.qubits)

    def slope(self, state: Tensor, costate: Tensor, angle: Tensor) -> Tensor:
        """Gradient with respect to the angle, same shape as `angle`, from the state before and the costate after."""
        before, after = channels.as_rows(state, self.qubits), channels.as_rows(costate, self.qubits)
        matrices = torch.from_numpy(self.gate.matrices).to(state)
        slopes = channels.slopes(self.gate.frequencies, angle)
        if angle.ndim == 0:
            overlap: Tensor = torch.tensordot(slopes, matrices, 1) * (after.flatten(1) @ before.flatten(1).T)
            return overlap.sum()
        products = (matrices.flatten(0, 1) @ before.flatten(1)).reshape(len(matrices), *before.shape)
        return (slopes * (products * after).sum((1, 2))).sum(0)


@dataclass(frozen=True)
class _Noisy(AbstractOperation):
    name = "noisy_expectations()"
    circuit: Circuit
    noise: NoiseModel

    @property
    def num_values(self) -> int:
        return self.circuit.num_observables

    def values(self, rows: Tensor, weights: Tensor) -> Tensor:
        check_angles(self.circuit, rows, weights)
        readout, blocks = _Readout(self.circuit, self.noise, rows), rows.split(_tokens_per_block(self.circuit))
        # Autocast would multiply the matrices in bfloat16.
        small = threads_for(len(rows) << 2 * self.circuit.num_qubits, rows.device)
        with torch.autocast(rows.device.type, enabled=False), small:
            return torch.cat(
                [readout.values(pauli_coefficients(self.circuit, block, weights, self.noise)) for block in blocks]
            )

    def gradients(self, kept: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        readout, steps = _Readout(self.circuit, self.noise, kept), _steps(self.circuit, self.noise)
        tokens = _tokens_per_block(self.circuit, states_kept=1 + sum(step.has_gradient for step in steps))
        input_grad, weight_grad = torch.zeros_like(kept), torch.zeros_like(weights)
        rows = zip(kept.split(tokens), grad.split(tokens), input_grad.split(tokens), strict=True)
        small = threads_for(len(kept) << 2 * self.circuit.num_qubits, kept.device)
        with torch.autocast(kept.device.type, enabled=False), small:
            for block, block_grad, block_input_grad in rows:
                states = _states_before_angles(self.circuit, steps, block, weights)
                costate = readout.costate(block_grad)
                for step in reversed(steps):
                    angle = channels.angle_values(step.angle, block, weights)
                    match step.angle:
                        case Input(index):
                            block_input_grad[:, index] += step.slope(states.pop(), costate, angle)
                        case Weight(index):
                            weight_grad[index] += step.slope(states.pop(), costate, angle)
                    costate = step.backward(costate, angle)
        return input_grad, weight_grad


class _Readout:
    """Observables as rows over the Pauli coefficients that they read, readout errors included."""

    def __init__(self, circuit: Circuit, noise: NoiseModel, like: Tensor) -> None:
        entries = [dict(_read_coefficients(observable, noise)) for observable in circuit.observables]
        columns = sorted({column for row in entries for column in row})
        rows = [[row.get(column, 0.0) for column in columns] for row in entries]
        self._rows, self._columns = like.new_tensor(rows), torch.tensor(columns, device=like.device)
        self._shape = (4,) * circuit.num_qubits

    def values(self, state: Tensor) -> Tensor:
        """(tokens, num_observables)."""
        return (self._rows @ state.flatten(0, -2)[self._columns]).T

    def costate(self, grad: Tensor) -> Tensor:
        """Gradient with respect to the state from that with respect to the values."""
        flat = grad.new_zeros(4 ** len(self._shape), len(grad))
        flat[self._columns] = self._rows.T @ grad.T
        return flat.reshape(*self._shape, len(grad))


def _read_coefficients(observable: str, noise: NoiseModel) -> Iterator[tuple[int, float]]:
    """Index and factor of each Pauli coefficient that measuring this observable reads."""
    rows = [readout_row(noise.qubit(qubit).readout, letter) for qubit, letter in enumerate(observable)]
    for choice in np.ndindex(*(2 if letter != "I" else 1 for letter in observable)):
        # Per qubit: 0 reads the letter itself, 1 reads the identity in its place.
        letters = [0 if other else "IXYZ".index(letter) for other, letter in zip(choice, observable, strict=True)]
        factor = float(np.prod([row[letter] for row, letter in zip(rows, letters, strict=True)]))
        if factor:
            yield int(np.ravel_multi_index(letters, (4,) * len(letters))), factor


@lru_cache(maxsize=128)
def _steps(circuit: Circuit, noise: NoiseModel) -> tuple[_Step, ...]:
    return tuple(
        _Step(_noisy_gate(operation, noise), operation.qubits, operation.angle) for operation in circuit.operations
    )


def _noisy_gate(operation: Operation, noise: NoiseModel) -> channels.TrigonometricMatrix:
    gate = channels.on_pauli_coefficients(operation.gate_name)
    free = operation.gate_name in noise.free_gates
    return gate if free else gate.followed_by(gate_noise(noise, operation.qubits))


def _ground_state(circuit: Circuit, inputs: Tensor) -> Tensor:
    """|0...0>: coefficient 1 for every string of I and Z, (4, ..., 4, tokens)."""
    qubits = string.ascii_lowercase[: circuit.num_qubits]
    zero = inputs.new_tensor([1.0, 0.0, 0.0, 1.0])
    state = torch.einsum(f"{','.join(qubits)}->{qubits}", *[zero] * circuit.num_qubits)
    return state.unsqueeze(-1).expand(*state.shape, len(inputs))


def _states_before_angles(circuit: Circuit, steps: tuple[_Step, ...], inputs: Tensor, weights: Tensor) -> list[Tensor]:
    state, kept = _ground_state(circuit, inputs), []
    for step in steps:
        if step.has_gradient:
            kept.append(state)
        state = step.forward(state, channels.angle_values(step.angle, inputs, weights))
    return kept


def _tokens_per_block(circuit: Circuit, *, states_kept: int = 1) -> int:
    numbers = min(NUMBERS_PER_BLOCK, NUMBERS_KEPT // states_kept)
    return max(1, numbers >> 2 * circuit.num_qubits)
