"""Outcome probabilities of one group of qubits on a machine: exact density matrices, as Pauli coefficients.

The engine of `simulation.noise` serves gradients and stops at 8 qubits. This one runs a program once, without gradients
and with errors that differ from gate to gate, and reaches 12 qubits: 4**12 numbers are 64 MiB in float32. Up to
8 qubits it works in float64; above, in float32, whose rounding is far below the sampling error of the shots allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from qpeft.circuits.native import NativeGate, Pulse
from qpeft.simulation.noise import channels
from qpeft.simulation.noise.channels import gate_noise
from qpeft_emulator.machine import Machine

MAX_QUBITS = 12
MAX_QUBITS_FLOAT64 = 8

RealArray = npt.NDArray[np.floating]


def outcome_probabilities(
    machine: Machine,
    native: Sequence[NativeGate],
    qubits: Sequence[int],
    measured: Sequence[int],
    job_number: int,
) -> npt.NDArray[np.float64]:
    """Probability of every bit string of the measured qubits.

    Args:
        machine: what it runs on.
        native: gates on `qubits` of the chip.
        qubits: at most `MAX_QUBITS`, all of them alive.
        measured: those of them that are read, first the leftmost bit.
        job_number: says how far the machine has drifted.

    Returns:
        (2**len(measured),), sum 1.
    """
    axes = {qubit: axis for axis, qubit in enumerate(qubits)}
    state = _ground_state(len(qubits))
    for gate in native:
        for matrix, acted_on in _steps(machine, gate, axes, job_number):
            state = _apply(matrix, state, [axes[qubit] for qubit in acted_on])
    # First the qubits that nobody reads, of which the trace is taken, since each shrinks what is left.
    unread = tuple(0 if qubit not in measured else slice(None) for qubit in qubits)
    state = state[unread]
    left = [qubit for qubit in qubits if qubit in measured]
    for qubit in left:
        state = _apply(_reading(machine, qubit, job_number), state, [left.index(qubit)])
    ordered = state.transpose([left.index(qubit) for qubit in measured]).astype(np.float64).reshape(-1)
    positive = np.clip(ordered, 0.0, None)  # rounding can leave an impossible outcome at -1e-17
    return np.asarray(positive / positive.sum())


def _steps(
    machine: Machine, gate: NativeGate, axes: dict[int, int], job_number: int
) -> list[tuple[RealArray, tuple[int, ...]]]:
    """Matrices on Pauli coefficients, and the qubits that they act on."""
    if isinstance(gate, Pulse):
        return [(_turn(machine, gate, job_number), (gate.qubit,))]
    spectators = {
        (min(qubit, neighbour), max(qubit, neighbour))
        for qubit in gate.qubits
        for neighbour in machine.chip.neighbours(qubit)
        if neighbour in axes and machine.zz((qubit, neighbour))
    } - {(min(gate.qubits), max(gate.qubits))}
    cross_talk = [(_pauli_matrix("RZZ", machine.zz(edge)), edge) for edge in sorted(spectators)]
    return [(_controlled_z(machine, gate.qubits), gate.qubits), *cross_talk]


def _turn(machine: Machine, gate: Pulse, job_number: int) -> RealArray:
    if not gate.angle:
        return _about_z(gate.before + gate.after)
    pulse = _about_y(gate.angle * (1 + machine.over_rotation(gate.qubit, job_number)))
    noise = gate_noise(machine.gate_noise, (gate.qubit,))
    return np.asarray(noise @ _about_z(gate.after) @ pulse @ _about_z(gate.before))


def _controlled_z(machine: Machine, qubits: tuple[int, int]) -> RealArray:
    phase = _pauli_matrix("CPHASE", math.pi + machine.phase_error(qubits))
    return np.asarray(gate_noise(machine.gate_noise, qubits) @ _pauli_matrix("RZZ", machine.zz(qubits)) @ phase)


@lru_cache(maxsize=4096)
def _pauli_matrix(gate_name: str, angle: float) -> RealArray:
    """(16, 16)"""
    gate = channels.on_pauli_coefficients(gate_name)
    weights = channels.functions(gate.frequencies, torch.tensor(angle, dtype=torch.float64)).numpy()
    return np.asarray(np.tensordot(weights, gate.matrices, 1))


def _about_z(angle: float) -> RealArray:
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return matrix


def _about_y(angle: float) -> RealArray:
    matrix = np.eye(4)
    matrix[[1, 1, 3, 3], [1, 3, 1, 3]] = [math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)]
    return matrix


def _reading(machine: Machine, qubit: int, job_number: int) -> RealArray:
    """(2, 4): from the coefficients of I, X, Y, Z to the probabilities of reading 0 and 1."""
    errors = machine.readout(qubit, job_number)
    confusion = np.array([[1 - errors.p1_given_0, errors.p0_given_1], [errors.p1_given_0, 1 - errors.p0_given_1]])
    return np.asarray(confusion @ np.array([[0.5, 0, 0, 0.5], [0.5, 0, 0, -0.5]]))


def _ground_state(num_qubits: int) -> RealArray:
    """|0...0>: coefficient 1 for every string of I and Z, one axis of size 4 per qubit."""
    zero = np.array([1, 0, 0, 1], dtype=np.float64 if num_qubits <= MAX_QUBITS_FLOAT64 else np.float32)
    state = np.ones((), dtype=zero.dtype)
    for _ in range(num_qubits):
        state = np.multiply.outer(state, zero)
    return state


def _apply(matrix: RealArray, state: RealArray, axes: Sequence[int]) -> RealArray:
    """A matrix on some axes of the state, the first being the slowest in the matrix."""
    count, size = len(axes), 4
    block = matrix.reshape(-1, *[size] * count).astype(state.dtype, copy=False)
    if count == 1:
        return np.moveaxis(np.tensordot(block, state, (1, axes[0])), 0, axes[0])
    whole = block.reshape(*[size] * count, *[size] * count)
    moved = np.tensordot(whole, state, (list(range(count, 2 * count)), list(axes)))
    return np.moveaxis(moved, list(range(count)), list(axes))
