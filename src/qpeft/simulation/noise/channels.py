"""Noise channels as Pauli transfer matrices: real matrices that act on the Pauli coefficients of a density matrix.

With rho = 2**-n sum_P c_P P, a channel maps the vector c to R c, R[a, b] = Tr(P_a channel(P_b)) / 2**n. Order of the
Paulis of one qubit: I, X, Y, Z. Source: Greenbaum, Introduction to quantum gate set tomography, arXiv:1509.02921, 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qpeft.errors import NoiseError
from qpeft.simulation.noise.model import Damping, NoiseModel, ReadoutError

RealMatrix = npt.NDArray[np.float64]


def damping_channel(damping: Damping) -> RealMatrix:
    """Amplitude and phase damping of one qubit, (4, 4): X and Y shrink, Z shrinks towards |0>."""
    decayed, coherent = damping.amplitude, math.sqrt((1 - damping.amplitude) * (1 - damping.phase))
    channel = np.diag([1.0, coherent, coherent, 1 - decayed])
    channel[3, 0] = decayed
    return channel


def depolarising_channel(probability: float, num_qubits: int) -> RealMatrix:
    """rho -> (1 - p) rho + p I / 2**n, (4**n, 4**n): every Pauli but the identity shrinks by 1 - p."""
    return np.diag([1.0] + [1 - probability] * (4**num_qubits - 1))


def gate_noise(noise: NoiseModel, qubits: tuple[int, ...]) -> RealMatrix:
    """What follows a gate on these qubits, (4**len(qubits), 4**len(qubits)): damping, then depolarising.

    Raises: NoiseError if the model lacks the qubit or edge.
    """
    if len(qubits) == 1:
        qubit = noise.qubit(qubits[0])
        return depolarising_channel(qubit.depolarising, 1) @ damping_channel(qubit.damping)
    edge = noise.edge(*qubits)
    first, second = (damping_channel(damping) for damping in edge.damping)
    return depolarising_channel(edge.depolarising, 2) @ np.kron(first, second)


def readout_row(readout: ReadoutError, letter: str) -> npt.NDArray[np.float64]:
    """Which Pauli coefficients of a qubit are read when `letter` is measured, (4,).

    A measured Pauli P, +1 for bit 0 and -1 for bit 1, comes out as (1 - p10 - p01) P + (p01 - p10) I, with
    p10 = p(1|0) and p01 = p(0|1). The change of basis before the measurement of X or Y is taken as free of noise.
    """
    row = np.zeros(4)
    if letter == "I":
        row[0] = 1.0
    else:
        row["IXYZ".index(letter)] = 1 - readout.p1_given_0 - readout.p0_given_1
        row[0] = readout.p0_given_1 - readout.p1_given_0
    return row


def average_fidelity(channel: RealMatrix) -> float:
    """Average gate fidelity of noise, (4**num_qubits, 4**num_qubits), against doing nothing.

    Source: as `depolarising_from_fidelity`, whose inverse it is.
    """
    dimension = math.isqrt(len(channel))
    return float((np.trace(channel) / dimension + 1) / (dimension + 1))


def depolarising_from_fidelity(fidelity: float, damping: Sequence[Damping]) -> float:
    """The depolarising probability with which a gate reaches an average gate fidelity, its damping being counted in.

    Calibrations state fidelity and T1, T2 side by side, and the first contains the second: with this probability,
    damping followed by depolarising has exactly this fidelity. 0 if damping alone costs more than that.

    Args:
        fidelity: average gate fidelity, as randomised benchmarking measures it.
        damping: one entry per qubit of the gate: `[Damping()]` for a one-qubit gate with no damping of its own.

    Raises: NoiseError if the fidelity is below that of a fully depolarising gate, 1 / 2**num_qubits, or above 1.
    Source: Nielsen, arXiv:quant-ph/0205035: F = (d F_process + 1) / (d + 1), F_process = Tr(R) / d**2.
    """
    dimension = 2 ** len(damping)
    if not 1 / dimension <= fidelity <= 1:
        raise NoiseError(
            f"The fidelity of a gate on {len(damping)} qubit(s) is from {1 / dimension} to 1; got {fidelity}. "
            f"Leave out qubits and edges that are dead."
        )
    trace = dimension * ((dimension + 1) * fidelity - 1)
    trace_of_damping = math.prod(float(np.trace(damping_channel(entry))) for entry in damping)
    if trace_of_damping <= 1:  # only the identity survives, nothing is left to depolarise
        return 0.0
    return float(max(0.0, 1 - (trace - 1) / (trace_of_damping - 1)))
