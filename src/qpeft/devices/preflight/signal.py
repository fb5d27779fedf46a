"""How much of an observable is left on a chip, against the noise of its shots, and what to call that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from qpeft.devices.preflight.lines import Line, RealArray, fit_line


class Verdict(Enum):
    """What an observable, or a circuit, is good for on a chip. The rule is in `of`."""

    USABLE = "usable"
    WEAK = "weak"
    UNUSABLE = "unusable"

    @classmethod
    def of(cls, signal_to_noise: float, correlation: float) -> Verdict:
        """Usable from SNR 3 and correlation 0.9 on, weak from SNR 1 and correlation 0.5 on, else unusable.

        SNR 3 means that 90 % of the variance of a value read is signal, SNR 1 that half of it is.
        """
        if signal_to_noise >= 3 and correlation >= 0.9:
            return cls.USABLE
        return cls.WEAK if signal_to_noise >= 1 and correlation >= 0.5 else cls.UNUSABLE

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Signal:
    """One observable over the rows of inputs.

    Attributes:
        observable: the Pauli string.
        line: noisy values, of infinitely many shots, against exact ones.
        shot_noise: sqrt((1 - z^2) / shots), root mean square over the rows; z the noisy value.
    """

    observable: str
    line: Line
    shot_noise: float

    @classmethod
    def of(cls, observable: str, exact: RealArray, noisy: RealArray, shots: int) -> Signal:
        """From values of every row, (rows,). Raises: DeviceError as `fit_line`."""
        variance = float((1 - noisy**2).clip(min=0).mean()) / shots
        return cls(observable, fit_line(exact, noisy), math.sqrt(variance))

    @property
    def signal_to_noise(self) -> float:
        """slope * std(exact) / shot noise; infinite if every shot gives the same."""
        signal = self.line.slope * self.line.spread
        if self.shot_noise == 0:
            return math.copysign(math.inf, signal) if signal else 0.0
        return signal / self.shot_noise

    @property
    def expected_correlation(self) -> float:
        """Correlation with exact values that readings of so many shots have: shot noise blurs `line.correlation`."""
        noisy_variance = (self.line.slope * self.line.spread) ** 2 + self.line.residual**2
        total = noisy_variance + self.shot_noise**2
        return self.line.correlation * math.sqrt(noisy_variance / total) if total else 0.0

    @property
    def verdict(self) -> Verdict:
        return Verdict.of(self.signal_to_noise, self.line.correlation)
