"""Zero-noise extrapolation: circuits with more noise on purpose, and the value at none by a polynomial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qpeft.circuits import Operation
from qpeft.circuits.decomposition import inverted
from qpeft.devices.mitigation.reading import AbstractMitigation, Readout
from qpeft.devices.mitigation.readout_inversion import ReadoutInversion
from qpeft.devices.protocol import CallKey, Capabilities, Measure
from qpeft.errors import DeviceError


@dataclass(frozen=True)
class ZeroNoise(AbstractMitigation):
    """Values at several strengths of the noise, extrapolated to none.

    A circuit G becomes G (G^-1 G)^k, which computes the same with 2 k + 1 times the gates (global unitary folding), and
    a polynomial of degree `order` in that scale is fitted by least squares; through as many points as it has
    coefficients it is Richardson's extrapolation. What does not grow with the number of gates is not taken out: readout
    errors, and errors that the inverse of a gate undoes, such as an angle that is off by the same share both ways.

    Args:
        scales: odd numbers of passes through the circuit, ascending; each is a circuit.
        order: degree of the polynomial, from 1 to len(scales) - 1.
        readout_inversion: applied at every scale first; None for none.

    Raises: DeviceError for scales or an order that cannot be used.
    Source: Temme et al., arXiv:1612.02058 (extrapolation); Giurgica-Tiron et al., arXiv:2005.10921 (folding).
    """

    scales: tuple[int, ...] = (1, 3, 5)
    order: int = 1
    readout_inversion: ReadoutInversion | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if not all(isinstance(scale, int) and scale > 0 and scale % 2 for scale in self.scales):
            raise DeviceError(
                f"Folding multiplies a circuit by odd numbers, such as 1, 3, 5; got scales={self.scales}."
            )
        if sorted(set(self.scales)) != list(self.scales):
            raise DeviceError(f"Scales are different and ascend; got {self.scales}.")
        if not 1 <= self.order < len(self.scales):
            raise DeviceError(
                f"A polynomial through {len(self.scales)} scale(s) has an order from 1 to {len(self.scales) - 1}; got "
                f"order={self.order}. Give more scales, or a lower order."
            )

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """Return the weight of the value at each scale: the fitted polynomial's value at 0 is linear in them."""
        return extrapolation_weights(self.scales, self.order)

    @property
    def num_calibration_circuits(self) -> int:
        """Circuits of the readout inversion."""
        return self.readout_inversion.num_calibration_circuits if self.readout_inversion else 0

    def check(self, capabilities: Capabilities) -> None:
        """Raise DeviceError if the device would simplify folded circuits to what they were, or as readout does."""
        if capabilities.simplifies_circuits:
            raise DeviceError(
                f"{capabilities.name} simplifies circuits, which undoes the folding of ZeroNoise, so nothing could be "
                "extrapolated. Switch that off (for origin: optimization=False; for ibm: optimization_level=0), or do "
                "without ZeroNoise."
            )
        if self.readout_inversion:
            self.readout_inversion.check(capabilities)

    def versions(self, operations: tuple[Operation, ...]) -> tuple[tuple[Operation, ...], ...]:
        """Return the circuit folded to each scale."""
        return tuple(folded(operations, scale) for scale in self.scales)

    def readout(self, measure: Measure, key: CallKey, *, num_qubits: int, shots: int | None) -> Readout | None:
        """Return that of the readout inversion, if there is one.

        Args:
            measure: sends what has to be measured.
            key: of the call that wants to know.
            num_qubits: of the circuit.
            shots: of the call; None for exact values.

        Raises: as the readout inversion.
        """
        if self.readout_inversion is None:
            return None
        return self.readout_inversion.readout(measure, key, num_qubits=num_qubits, shots=shots)


def folded(operations: Sequence[Operation], scale: int) -> tuple[Operation, ...]:
    """Return bound operations followed by (scale - 1) / 2 times their inverse and themselves; `scale` is odd."""
    # The ideal circuit is unchanged, G (G^-1 G)^k = G, while the chip pays for every gate in it.
    forth = tuple(operations)
    return forth + (inverted(forth) + forth) * (scale // 2)


def extrapolation_weights(scales: Sequence[int], order: int) -> tuple[float, ...]:
    """Return the weights of values at `scales` whose sum is the least-squares polynomial's value at 0."""
    # Coefficients are pinv(V) @ values with V[i, j] = scale_i**(order - j). The last is the constant term, the value at
    # 0, so the last row of pinv(V) holds the weights. The weights sum to 1: a constant is extrapolated to itself.
    return tuple(np.linalg.pinv(np.vander(np.array(scales, float), order + 1))[-1].tolist())
