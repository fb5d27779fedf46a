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
        """Raise DeviceError if the device does something that spoils the method, saying how to switch it off."""

    @abstractmethod
    def versions(self, operations: tuple[Operation, ...]) -> tuple[tuple[Operation, ...], ...]:
        """Return what is sent in place of a bound circuit, in the order of `weights`."""

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
    """Raise DeviceError if this is neither None nor a mitigation, or one that the device spoils."""
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
            if not slope >= MIN_SLOPE:  # in this form NaN is refused too
                zero, one = self.means[:, qubit]
                raise DeviceError(
                    f"Readout of qubit {qubit} of the circuit cannot be inverted: a mean sign of {zero:.3f} for 0 and "
                    f"{one:.3f} for 1 hardly tells them apart. Use other qubits, or more shots."
                )

    @classmethod
    def of(cls, errors: Sequence[ReadoutError]) -> Readout:
        """Return the readout of known errors, one per qubit."""
        # The mean sign of a qubit that is 0 is P(0|0) - P(1|0), and of one that is 1 P(0|1) - P(1|1).
        means = np.array([[1 - 2 * e.p1_given_0 for e in errors], [2 * e.p0_given_1 - 1 for e in errors]])
        return cls(means, np.zeros_like(means))

    @property
    def slopes(self) -> Values:
        """By which a qubit's true sign shrinks, (num_qubits,)."""
        slopes: Values = (self.means[0] - self.means[1]) / 2
        return slopes

    @property
    def offsets(self) -> Values:
        """Return what readout errors add to Z expectations, (num_qubits,)."""
        offsets: Values = (self.means[0] + self.means[1]) / 2
        return offsets


def signs(results: Distribution) -> Values:
    """Return the sign of every bit of every bit string, +1 for 0, (len(results), num_qubits)."""
    # All strings at once: a Python loop over 10,000 of them would take longer than everything after it.
    bits = np.frombuffer("".join(results).encode(), dtype=np.uint8).reshape(len(results), -1)
    return np.asarray(1 - 2 * (bits.astype(np.float64) - ord("0")))


def read(
    results: Sequence[Distribution],
    weights: Sequence[float],
    observables: Sequence[str],
    readout: Readout | None,
    shots: int | None,
) -> tuple[Values, Values]:
    """Return values, (num_observables,), and covariances of their errors, (num_observables, num_observables).

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
    weight = np.array(weights)
    # Of every version: means of the observables (o,), of their products two by two (o, o), and by qubit the means
    # without that qubit (o, q), with o observables on q qubits.
    means, seconds, others = [], [], []
    for result in results:
        shares, bits = np.fromiter(result.values(), float, len(result)), signs(result)
        if readout is None:
            # The sign of a product is the parity of the ones that it reads.
            products = 1.0 - 2.0 * ((bits < 0).astype(np.float64) @ reads.T % 2)
            others.append(np.zeros(reads.shape))
            means.append(shares @ products)
            seconds.append((shares[:, None] * products).T @ products)
            continue
        # E[sign] = slope * z + offset for each qubit, so (sign - offset) / slope is an unbiased stand-in for z. Readout
        # errors are independent, so a product of stand-ins is unbiased for the product, however the z are correlated.
        factors = (bits - readout.offsets) / readout.slopes
        products = np.where(reads, factors[:, None], 1.0).prod(2)
        weighted = (shares[:, None] * products).T
        means.append(weighted.sum(1))
        seconds.append(weighted @ products)
        # Factors are never 0: slopes are at least MIN_SLOPE, so offsets stay below 1.
        others.append(weighted @ (1 / factors))
    mean, second = np.stack(means), np.stack(seconds)
    values = weight @ mean
    covariances = np.zeros((len(reads), len(reads)))
    if shots == 1:
        covariances += np.diag(weight**2 @ np.diagonal(second, axis1=1, axis2=2))
    elif shots is not None:
        # Without bias: (E[ab] - E[a] E[b]) / (shots - 1). Versions are sampled apart, so their weights are squared.
        covariances += np.tensordot(weight**2, second - mean[:, :, None] * mean[:, None], 1) / (shots - 1)
    if readout is not None:
        # All versions share one readout, so its errors add up before they are squared, not after. With slope
        # (m0 - m1) / 2 and offset (m0 + m1) / 2, the derivative of a product by m0 is -(other + value) / (2 slope) and
        # by m1 (value - other) / (2 slope), for each qubit that is read; `other` is the product without that qubit.
        other = np.tensordot(weight, np.stack(others), 1)
        changes = other + values[:, None], other - values[:, None]
        by_zeros, by_ones = (np.where(reads, change / (2 * readout.slopes), 0) for change in changes)
        zeros, ones = readout.variances
        covariances += (by_zeros * zeros) @ by_zeros.T + (by_ones * ones) @ by_ones.T
    return values, covariances
