"""What a chip would make of a circuit at given angles, from its calibration alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.circuits.native_batch import FREE_GATES, native_circuit
from qpeft.devices.placement import block_calibration, find_blocks
from qpeft.devices.preflight.signal import Signal, Verdict
from qpeft.errors import DeviceError, SimulationError
from qpeft.simulation import expectations
from qpeft.simulation.checks import check_angles, check_shots
from qpeft.simulation.noise import NoiseModel, noisy_expectations
from qpeft.simulation.noise.density import MAX_QUBITS

MAX_ROWS = 64


@dataclass(frozen=True)
class Preflight:
    """Prediction for one circuit on one block of a chip.

    Attributes:
        block: the chip's qubit for every qubit of the circuit.
        shots: per circuit.
        rows: rows of inputs that it rests on.
        pulses, flips: pulses on one qubit and CZ that the circuit costs on the chip.
        signals: one per observable.
    """

    block: tuple[int, ...]
    shots: int
    rows: int
    pulses: int
    flips: int
    signals: tuple[Signal, ...]

    @property
    def verdict(self) -> Verdict:
        """The best that at least half of the observables reach."""
        ranked = sorted((signal.verdict for signal in self.signals), key=lambda verdict: verdict.rank)
        return ranked[(len(ranked) - 1) // 2]

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
            f"{self.verdict.value}: {self.pulses} pulses and {self.flips} CZ on qubits {list(self.block)}, "
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
    """What the chip would make of `circuit` at these angles. Nothing is sent.

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
        max_rows: of more rows so many are used, evenly spaced.

    Raises:
        SimulationError: more qubits than density matrices allow, angles that do not fit the circuit or are not finite.
        DeviceError: no block fits or the one given is none, or fewer than two rows.
        NoiseError: the calibration lacks a qubit or coupler of the block.
        ShotsError: shots below 1.
    """
    _check(circuit, shots, max_rows)
    check_angles(circuit, inputs, weights)
    chosen = find_blocks(circuit, calibration, most=1)[0] if block is None else tuple(block)
    if len(chosen) != circuit.num_qubits or len(set(chosen)) != len(chosen):
        raise DeviceError(f"The circuit needs a block of {circuit.num_qubits} different qubits; got {chosen}.")
    rows = _evenly_spaced(inputs.detach().double().cpu().reshape(-1, circuit.num_inputs), max_rows)
    angles = weights.detach().double().cpu()
    native, native_inputs = native_circuit(circuit, rows.tolist(), angles.tolist())
    noise = replace(block_calibration(calibration, chosen), free_gates=FREE_GATES)
    with torch.no_grad():
        exact = expectations(circuit, rows, angles).numpy()
        noisy = noisy_expectations(native, torch.from_numpy(native_inputs), torch.empty(0), noise).double().numpy()
    names = [operation.gate_name for operation in native.operations]
    return Preflight(
        block=chosen,
        shots=shots,
        rows=len(rows),
        pulses=names.count("RY"),
        flips=names.count("CZ"),
        signals=tuple(
            Signal.of(observable, exact[:, column], noisy[:, column], shots)
            for column, observable in enumerate(circuit.observables)
        ),
    )


def _evenly_spaced(rows: Tensor, max_rows: int) -> Tensor:
    """Raises: DeviceError if there are fewer than two."""
    if len(rows) < 2:
        raise DeviceError(f"A prediction needs at least two rows of inputs, to see values vary; got {len(rows)}.")
    if len(rows) <= max_rows:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, max_rows).round().long()]


def _check(circuit: Circuit, shots: int, max_rows: int) -> None:
    check_shots(shots, "A chip samples", "For exact values use qpeft.simulation.expectations.")
    if max_rows < 2:
        raise DeviceError(
            f"A prediction needs at least two rows of inputs, to see values vary; got max_rows={max_rows}."
        )
    if circuit.num_qubits > MAX_QUBITS:
        raise SimulationError(
            f"A prediction takes density matrices of at most {MAX_QUBITS} qubits; the circuit has "
            f"{circuit.num_qubits}. Split it: set num_qubits of the adapter to a smaller divisor of its rank."
        )
