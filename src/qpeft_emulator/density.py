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
    """Return the probability of every bit string of the measured qubits.

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
    # Coefficients are expectations of Pauli strings, one axis of size 4 (I, X, Y, Z) per qubit. In |0...0> they are 1
    # for every string of I and Z, and 0 for the others.
    zero = np.array([1, 0, 0, 1], dtype=np.float64 if len(qubits) <= MAX_QUBITS_FLOAT64 else np.float32)
    state: RealArray = np.ones((), dtype=zero.dtype)
    for _ in qubits:
        state = np.multiply.outer(state, zero)
    for gate in native:
        if isinstance(gate, Pulse):
            # Turns about Z are free and perfect: the control electronics count later phases from another zero.
            matrix = _about_z(gate.before + gate.after)
            if gate.angle:
                angle = gate.angle * (1 + machine.over_rotation(gate.qubit, job_number))
                pulse = np.eye(4)
                pulse[[1, 1, 3, 3], [1, 3, 1, 3]] = [
                    math.cos(angle),
                    math.sin(angle),
                    -math.sin(angle),
                    math.cos(angle),
                ]
                noise = gate_noise(machine.gate_noise, (gate.qubit,))
                matrix = np.asarray(noise @ _about_z(gate.after) @ pulse @ _about_z(gate.before))
            state = _apply(matrix, state, [axes[gate.qubit]])
            continue
        pair = gate.qubits
        phase = _pauli_matrix("CPHASE", math.pi + machine.phase_error(pair))
        flip = gate_noise(machine.gate_noise, pair) @ _pauli_matrix("RZZ", machine.zz(pair)) @ phase
        state = _apply(flip, state, [axes[qubit] for qubit in pair])
        # Cross-talk: the CZ leaves an RZZ on every other living coupler of its two qubits. Neighbours outside this
        # group are simulated apart, so theirs is left out.
        spectators = {
            (min(qubit, neighbour), max(qubit, neighbour))
            for qubit in pair
            for neighbour in machine.chip.neighbours(qubit)
            if neighbour in axes and machine.zz((qubit, neighbour))
        } - {(min(pair), max(pair))}
        for edge in sorted(spectators):
            state = _apply(_pauli_matrix("RZZ", machine.zz(edge)), state, [axes[qubit] for qubit in edge])
    # First the qubits that nobody reads, of which the trace is taken, since each shrinks what is left: the
    # trace keeps the strings with an I there.
    unread = tuple(0 if qubit not in measured else slice(None) for qubit in qubits)
    state = state[unread]
    left = [qubit for qubit in qubits if qubit in measured]
    for qubit in left:
        errors = machine.readout(qubit, job_number)
        confusion = np.array([[1 - errors.p1_given_0, errors.p0_given_1], [errors.p1_given_0, 1 - errors.p0_given_1]])
        # (2, 4): p(0) = (I + Z) / 2 and p(1) = (I - Z) / 2, then misread.
        reading = np.asarray(confusion @ np.array([[0.5, 0, 0, 0.5], [0.5, 0, 0, -0.5]]))
        state = _apply(reading, state, [left.index(qubit)])
    ordered = state.transpose([left.index(qubit) for qubit in measured]).astype(np.float64).reshape(-1)
    positive = np.clip(ordered, 0.0, None)  # rounding can leave an impossible outcome at -1e-17
    return np.asarray(positive / positive.sum())


@lru_cache(maxsize=4096)
def _pauli_matrix(gate_name: str, angle: float) -> RealArray:
    """Return a gate on Pauli coefficients, (16, 16); kept, since a chip has a few hundred different angles in all."""
    gate = channels.on_pauli_coefficients(gate_name)
    weights = channels.functions(gate.frequencies, torch.tensor(angle, dtype=torch.float64)).numpy()
    return np.asarray(np.tensordot(weights, gate.matrices, 1))


def _about_z(angle: float) -> RealArray:
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return matrix


def _apply(matrix: RealArray, state: RealArray, axes: Sequence[int]) -> RealArray:
    """Return the state after a matrix on some of its axes, the first being the slowest in the matrix."""
    count, size = len(axes), 4
    block = matrix.reshape(-1, *[size] * count).astype(state.dtype, copy=False)
    if count == 1:
        return np.moveaxis(np.tensordot(block, state, (1, axes[0])), 0, axes[0])
    whole = block.reshape(*[size] * count, *[size] * count)
    moved = np.tensordot(whole, state, (list(range(count, 2 * count)), list(axes)))
    return np.moveaxis(moved, list(range(count)), list(axes))
