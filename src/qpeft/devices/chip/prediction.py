"""Predict what a chip would make of a circuit at given angles, from its calibration alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.circuits.native import FREE_GATES, native_circuit
from qpeft.devices.chip.blocks import block_calibration, find_blocks
from qpeft.errors import DeviceError, SimulationError
from qpeft.simulation import expectations
from qpeft.simulation.checks import check_angles, check_shots
from qpeft.simulation.noise import (
    Damping,
    EdgeNoise,
    NoiseModel,
    QubitNoise,
    depolarising_from_fidelity,
    noisy_expectations,
)
from qpeft.simulation.noise.channels import average_fidelity, gate_noise
from qpeft.simulation.noise.density import MAX_QUBITS

MAX_ROWS = 64
LEAST_SPREAD = 1e-6
"""Exact values that vary less than this say nothing about their angles."""
TOO_FEW_ROWS = "A prediction needs at least two rows of inputs, to see values vary"
RealArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """noisy = slope * exact + offset, by least squares.

    Attributes:
        slope, offset: of the line; slope 0 and the mean of the noisy values if the exact ones do not vary.
        correlation: of noisy and exact values, from -1 to 1; 0 if either does not vary.
        residual: standard deviation of what the line misses.
        spread: standard deviation of the exact values over the rows.
    """

    slope: float
    offset: float
    correlation: float
    residual: float
    spread: float


def fit_line(exact: npt.ArrayLike, noisy: npt.ArrayLike) -> Line:
    """Fit the line through pairs of values of one observable.

    Args:
        exact, noisy: one entry per row of inputs, (rows,).

    Raises: DeviceError if there are fewer than two pairs, or a value is not finite.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (exact, noisy))
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise DeviceError(f"A line needs at least two pairs of values; got shapes {x.shape} and {y.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DeviceError("A line is fitted to finite values; got NaN or infinite ones.")
    dx, dy = x - x.mean(), y - y.mean()
    spread, noisy_spread = float(x.std()), float(y.std())
    # A line through values at one place has no slope, and a correlation would be rounding.
    if spread < LEAST_SPREAD:
        return Line(0.0, float(y.mean()), 0.0, noisy_spread, spread)
    # Least squares: slope = cov(x, y) / var(x); correlation = cov(x, y) / sqrt(var(x) var(y)).
    slope = float(dx @ dy / (dx @ dx))
    scale = math.sqrt(float(dx @ dx) * float(dy @ dy))
    correlation = float(dx @ dy) / scale if scale else 0.0
    residual = float(np.sqrt(np.mean((dy - slope * dx) ** 2)))
    return Line(slope, float(y.mean() - slope * x.mean()), correlation, residual, spread)


class Usability(Enum):
    """How far an observable, or a circuit, can be used on a chip. The rule is in `of`."""

    USABLE = "usable"
    WEAK = "weak"
    UNUSABLE = "unusable"

    @classmethod
    def of(cls, signal_to_noise: float, correlation: float) -> Usability:
        """Return usable from SNR 3 and correlation 0.9 on, weak from SNR 1 and correlation 0.5 on, else unusable.

        SNR 3 means that 90 % of the variance of a value read is signal, SNR 1 that half of it is.
        """
        # Share of signal in the variance of a reading: SNR^2 / (1 + SNR^2).
        if signal_to_noise >= 3 and correlation >= 0.9:
            return cls.USABLE
        return cls.WEAK if signal_to_noise >= 1 and correlation >= 0.5 else cls.UNUSABLE

    @classmethod
    def reached_by_half(cls, found: Iterable[Usability]) -> Usability:
        """Return the best that at least half of them reach."""
        ranked = sorted(found, key=lambda one: one.rank)
        return ranked[(len(ranked) - 1) // 2]

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Usability).index(self)


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
        """Return the signal in values of every row.

        Args:
            observable: the Pauli string.
            exact, noisy: (rows,), in [-1, 1].
            shots: per circuit.

        Raises: DeviceError as `fit_line`.
        """
        # A shot reads +1 or -1 with mean z, so its variance is 1 - z^2. Corrected values may lie beyond 1.
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
        """Correlation of readings with exact values: shot noise blurs `line.correlation`."""
        # The noisy values vary with the exact ones along the line, and around it by what it misses.
        noisy_variance = (self.line.slope * self.line.spread) ** 2 + self.line.residual**2
        total = noisy_variance + self.shot_noise**2
        return self.line.correlation * math.sqrt(noisy_variance / total) if total else 0.0

    @property
    def verdict(self) -> Usability:
        return Usability.of(self.signal_to_noise, self.line.correlation)


@dataclass(frozen=True)
class Preflight:
    """Prediction for one circuit on one block of a chip.

    Attributes:
        block: the chip's qubit for every qubit of the circuit.
        shots: per circuit.
        rows: rows of inputs that it rests on.
        num_pulses, num_cz: pulses on one qubit and CZ that the circuit costs on the chip.
        signals: one per observable.
    """

    block: tuple[int, ...]
    shots: int
    rows: int
    num_pulses: int
    num_cz: int
    signals: tuple[Signal, ...]

    @property
    def verdict(self) -> Usability:
        """Return the best that at least half of the observables reach."""
        return Usability.reached_by_half(signal.verdict for signal in self.signals)

    @property
    def signal_to_noise(self) -> float:
        """Median over the observables."""
        return statistics.median(signal.signal_to_noise for signal in self.signals)

    @property
    def slope(self) -> float:
        """Mean over the observables."""
        return statistics.fmean(signal.line.slope for signal in self.signals)

    @property
    def correlation(self) -> float:
        """Mean over the observables, of infinitely many shots."""
        return statistics.fmean(signal.line.correlation for signal in self.signals)

    def __str__(self) -> str:
        head = f"{'observable':>12} {'slope':>7} {'offset':>7} {'corr':>6} {'misses':>7} {'std':>6} {'SNR':>7}  verdict"
        lines = [
            f"{signal.observable:>12} {signal.line.slope:7.3f} {signal.line.offset:+7.3f} "
            f"{signal.line.correlation:6.3f} {signal.line.residual:7.4f} {signal.line.spread:6.3f} "
            f"{signal.signal_to_noise:7.1f}  {signal.verdict.value}"
            for signal in self.signals
        ]
        about = (
            f"{self.verdict.value}: {self.num_pulses} pulses and {self.num_cz} CZ on qubits {list(self.block)}, "
            f"{self.shots:,} shots, from {self.rows} rows of inputs"
        )
        return "\n".join([about, head, *lines])


def preflight(
    circuit: Circuit,
    inputs: Float[Tensor, "*batch num_inputs"],
    weights: Float[Tensor, " num_weights"],
    calibration: NoiseModel,
    *,
    shots: int,
    block: Sequence[int] | None = None,
    max_rows: int = MAX_ROWS,
) -> Preflight:
    """Predict what the chip would make of `circuit` at these angles. Nothing is sent.

    The circuit is rewritten into the chip's own gates: one pulse for all gates in a row on one qubit, free rotations
    about Z, and CZ (a CRZ costs two). Noise of the calibration follows each pulse and each CZ, readout errors come
    last, and nothing corrects them.

    Args:
        circuit: on at most 8 qubits.
        inputs: angles that the adapter feeds in, radians, one row per evaluation.
        weights: trained angles, radians.
        calibration: of the chip, by the chip's own numbers; without what is dead.
        shots: per circuit, at least 1.
        block: the chip's qubit for every qubit of the circuit; by default the best one.
        max_rows: most rows that are used; of more, this many evenly spaced ones.

    Raises:
        SimulationError: more qubits than density matrices allow, angles that do not fit the circuit or are not finite.
        DeviceError: no block fits, the one given is of the wrong size, or there are fewer than two rows.
        NoiseError: the calibration lacks a qubit or coupler of the block.
        ShotsError: shots below 1.
    """
    check_shots(shots, "A chip samples", "For exact values use qpeft.simulation.expectations.")
    if max_rows < 2:
        raise DeviceError(f"{TOO_FEW_ROWS}; got max_rows={max_rows}.")
    if circuit.num_qubits > MAX_QUBITS:
        raise SimulationError(
            f"A prediction takes density matrices of at most {MAX_QUBITS} qubits; the circuit has "
            f"{circuit.num_qubits}. Split it: set num_qubits of the adapter to a smaller divisor of its rank."
        )
    check_angles(circuit, inputs, weights)
    chosen = find_blocks(circuit, calibration, most=1)[0] if block is None else tuple(block)
    if len(chosen) != circuit.num_qubits or len(set(chosen)) != len(chosen):
        raise DeviceError(f"The circuit needs a block of {circuit.num_qubits} different qubits; got {chosen}.")
    rows = inputs.detach().double().cpu().reshape(-1, circuit.num_inputs)
    if len(rows) < 2:
        raise DeviceError(f"{TOO_FEW_ROWS}; got {len(rows)}.")
    if len(rows) > max_rows:
        # From the whole range: neighbouring rows are tokens of one text, which are alike.
        rows = rows[torch.linspace(0, len(rows) - 1, max_rows).round().long()]
    angles = weights.detach().double().cpu()
    native, native_inputs = native_circuit(circuit, rows.tolist(), angles.tolist())
    # The chip's RZ is a change of phase, so no noise follows it, whatever the calibration says of pulses.
    noise = replace(block_calibration(calibration, chosen), free_gates=FREE_GATES)
    with torch.no_grad():
        exact = expectations(circuit, rows, angles).numpy()
        noisy = noisy_expectations(native, torch.from_numpy(native_inputs), torch.empty(0), noise).double().numpy()
    # Each RY of the native circuit is one pulse; what no row needs is not in it.
    names = [operation.gate_name for operation in native.operations]
    return Preflight(
        block=chosen,
        shots=shots,
        rows=len(rows),
        num_pulses=names.count("RY"),
        num_cz=names.count("CZ"),
        signals=tuple(
            Signal.of(observable, exact[:, column], noisy[:, column], shots)
            for column, observable in enumerate(circuit.observables)
        ),
    )


def depolarising_only(calibration: NoiseModel) -> NoiseModel:
    """Return a model in which every gate has the same average fidelity and errs by depolarising alone.

    A calibration lists fidelities and not mixtures of errors, so this is another reading; readout stays as it was.
    Dephasing spares Z, depolarising spares nothing, so of all mixtures with these fidelities that relax towards no
    particular value this one predicts the smallest slopes, or nearly so. The calibration as it is and this model give
    a range for what the chip may do.
    """
    # Damping of no strength: the whole loss of fidelity goes into depolarising.
    qubits = {}
    for index, noise in calibration.qubits:
        fidelity = average_fidelity(gate_noise(calibration, (index,)))
        qubits[index] = QubitNoise(depolarising_from_fidelity(fidelity, [Damping()]), readout=noise.readout)
    edges = {}
    for edge, _ in calibration.edges:
        fidelity = average_fidelity(gate_noise(calibration, edge))
        edges[edge] = EdgeNoise(depolarising_from_fidelity(fidelity, [Damping(), Damping()]))
    return replace(NoiseModel.from_mappings(qubits, edges), free_gates=calibration.free_gates)
