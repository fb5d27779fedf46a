"""What every method of error mitigation says: which circuits it sends, and how values are read from their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpeft.circuits import Operation
from qpeft.devices.protocol import CallKey, Capabilities, Distribution, Measure
from qpeft.errors import DeviceError
from qpeft.simulation.noise import ReadoutError


class AbstractMitigation(ABC):
    """A way to better values from a noisy device, for more circuits or more shots.

    Each circuit is sent in one or several versions, and a value is linear in their results: the sum over versions of
    weight times mean, over bit strings, of the product of the signs of the qubits read. A sign is +1 for bit 0 and -1
    for bit 1 as it comes, or with `readout` (sign - offset) / slope.
    """

    @property
    @abstractmethod
    def weights(self) -> tuple[float, ...]:
        """Weight of each version of a circuit, sum 1: as many circuits are sent in place of one."""

    @property
    @abstractmethod
    def num_calibration_circuits(self) -> int:
        """Circuits sent besides, once per number of qubits and not per call."""

    @abstractmethod
    def check(self, capabilities: Capabilities) -> None:
        """Raises: DeviceError if the device does something that spoils the method, saying how to switch it off."""

    @abstractmethod
    def versions(self, operations: tuple[Operation, ...]) -> tuple[tuple[Operation, ...], ...]:
        """What is sent in place of a bound circuit, in the order of `weights`."""

    @abstractmethod
    def readout(self, measure: Measure, key: CallKey, *, num_qubits: int, shots: int | None) -> Readout | None:
        """Return how signs are read from the qubits of a circuit; None for as they come.

        Args:
            measure: runs whatever has to be measured for this, where the circuit runs.
            key: of the call that wants to know.
            num_qubits: of the circuit.
            shots: of the call; None for exact values.

        Raises: what `measure` raises.
        """


def check_suits(mitigation: object, capabilities: Capabilities) -> None:
    """Raises: DeviceError if this is neither None nor a mitigation, or one that the device spoils."""
    if mitigation is None:
        return
    if not isinstance(mitigation, AbstractMitigation):
        raise DeviceError(
            f"mitigation is an object such as ReadoutInversion() or ZeroNoise(), or None; got {mitigation!r}."
        )
    mitigation.check(capabilities)


# Values and standard errors from the distributions of a circuit's versions; numbers only, nothing is sent here.


Values = npt.NDArray[np.float64]
Reads = npt.NDArray[np.bool_]
"""Whether an observable reads a qubit, (num_observables, num_qubits)."""
MIN_SLOPE = 0.1
"""Below, correcting would multiply the error of a value by more than ten for each qubit read."""


@dataclass(frozen=True)
class Readout:
    """Mean of the sign that is read off each qubit, +1 for bit 0, when it is 0 and when it is 1.

    Attributes:
        means: (2, num_qubits), in [-1, 1]: of qubits that are 0, and of those that are 1.
        variances: of these means, same shape; 0 where they are known.

    Raises: DeviceError if a qubit hardly tells 0 from 1.
    """

    means: Values
    variances: Values

    def __post_init__(self) -> None:
        for qubit, slope in enumerate(self.slopes):
            if not slope >= MIN_SLOPE:
                zero, one = self.means[:, qubit]
                raise DeviceError(
                    f"Readout of qubit {qubit} of the circuit cannot be inverted: a mean sign of {zero:.3f} for 0 and "
                    f"{one:.3f} for 1 hardly tells them apart. Use other qubits, or more shots."
                )

    @classmethod
    def of(cls, errors: Sequence[ReadoutError]) -> Readout:
        """From known errors, one per qubit."""
        means = np.array([[1 - 2 * e.p1_given_0 for e in errors], [2 * e.p0_given_1 - 1 for e in errors]])
        return cls(means, np.zeros_like(means))

    @property
    def slopes(self) -> Values:
        """By which a qubit's true sign shrinks, (num_qubits,)."""
        slopes: Values = (self.means[0] - self.means[1]) / 2
        return slopes

    @property
    def offsets(self) -> Values:
        """What is added to it, (num_qubits,)."""
        offsets: Values = (self.means[0] + self.means[1]) / 2
        return offsets


def signs(results: Distribution) -> Values:
    """Sign of every bit of every bit string, +1 for 0, (len(results), num_qubits)."""
    bits = np.frombuffer("".join(results).encode(), dtype=np.uint8).reshape(len(results), -1)
    return np.asarray(1 - 2 * (bits.astype(np.float64) - ord("0")))


def read(
    results: Sequence[Distribution],
    weights: Sequence[float],
    observables: Sequence[str],
    readout: Readout | None,
    shots: int | None,
) -> tuple[Values, Values]:
    """Value of every observable, (num_observables,), and covariances of their errors, one row and column for each.

    The spread of a version's means is estimated from its own bit strings; that of the readout's means is passed on by
    their derivatives. All values with one readout share this second part, so averaging them does not shrink it.

    Args:
        results: of every version of one circuit.
        weights: of the versions.
        observables: Pauli strings; every letter but I is read as Z.
        readout: of the circuit's qubits; None if signs are taken as they come.
        shots: of every version; None for exact distributions. One shot says nothing of its spread: the mean squares
            stand for the variances then, and there is no correlation.
    """
    reads = np.array([[letter != "I" for letter in observable] for observable in observables])
    parts = [_moments(result, reads, readout) for result in results]
    means, seconds, others = (np.stack(part) for part in zip(*parts, strict=True))
    weight = np.array(weights)
    values = weight @ means
    covariances = np.zeros((len(reads), len(reads)))
    if shots == 1:
        covariances += np.diag(weight**2 @ np.diagonal(seconds, axis1=1, axis2=2))
    elif shots is not None:
        covariances += np.tensordot(weight**2, seconds - means[:, :, None] * means[:, None], 1) / (shots - 1)
    if readout is not None:
        covariances += _from_readout(values, np.tensordot(weight, others, 1), reads, readout)
    return values, covariances


def _moments(result: Distribution, reads: Reads, readout: Readout | None) -> tuple[Values, Values, Values]:
    """Means of the observables, means of their products two by two, and by qubit the means without that qubit.

    Shapes (num_observables,), (num_observables, num_observables) and (num_observables, num_qubits).
    """
    shares = np.fromiter(result.values(), float, len(result))
    if readout is None:
        products = 1.0 - 2.0 * ((signs(result) < 0).astype(np.float64) @ reads.T % 2)
        return shares @ products, (shares[:, None] * products).T @ products, np.zeros(reads.shape)
    factors = (signs(result) - readout.offsets) / readout.slopes
    products = np.where(reads, factors[:, None], 1.0).prod(2)
    weighted = (shares[:, None] * products).T
    # Factors are never 0: slopes are at least MIN_SLOPE, so offsets stay below 1.
    return weighted.sum(1), weighted @ products, weighted @ (1 / factors)


def _from_readout(values: Values, others: Values, reads: Reads, readout: Readout) -> Values:
    """Covariances that uncertain means of the readout add to values, (num_observables, num_observables).

    With slope (m0 - m1) / 2 and offset (m0 + m1) / 2, the derivative of a product by m0 is -(other + value) / (2 slope)
    and by m1 (value - other) / (2 slope), for each qubit that is read; `other` is the product without it.
    """
    changes = others + values[:, None], others - values[:, None]
    by_zeros, by_ones = (np.where(reads, change / (2 * readout.slopes), 0) for change in changes)
    zeros, ones = readout.variances
    return np.asarray((by_zeros * zeros) @ by_zeros.T + (by_ones * ones) @ by_ones.T)
