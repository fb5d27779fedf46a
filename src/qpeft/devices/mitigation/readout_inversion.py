"""Readout errors taken out of expectation values, qubit by qubit, without a matrix over all bit strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qpeft.circuits import Circuit, Operation
from qpeft.devices.mitigation.reading import AbstractMitigation, Readout, signs
from qpeft.devices.protocol import CallKey, Capabilities, Measure
from qpeft.errors import DeviceError
from qpeft.simulation.checks import check_shots
from qpeft.simulation.noise import NoiseModel, ReadoutError


@dataclass(frozen=True, eq=False)
class ReadoutInversion(AbstractMitigation):
    """Each qubit's 2x2 matrix of readout errors inverted, on the qubits that an observable reads.

    A qubit's sign z is read as slope * z + offset on average, so (sign - offset) / slope takes its place in every bit
    string: products of signs stay right however the qubits are correlated, if their readout errors are not. Values are
    unbiased, may leave [-1, 1], and their standard errors grow by 1 / slope per qubit read.

    Without `errors` they are measured: the circuit's qubits all prepared as 0 and all as 1, two circuits, through the
    call's own device and runner and under a key of their own. What the X gates of the second do wrong counts as
    readout.

    Args:
        errors: one per qubit of the circuits, qubit 0 first; None to measure them.
        shots: of each of the two circuits; where a call has exact values, so do they.
        steps_between: training steps after which they are measured again, since readout drifts; None for once.

    Raises: ShotsError if `shots` is below 2; DeviceError if `steps_between` is below 1.
    Source: Bravyi et al., Mitigating measurement errors in multiqubit experiments, arXiv:2006.14044: tensor products.
    """

    errors: tuple[ReadoutError, ...] | None = None
    shots: int = 10_000
    steps_between: int | None = None
    _measured: dict[tuple[Measure, int, int | None], tuple[int, Readout]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.errors is not None:
            object.__setattr__(self, "errors", tuple(self.errors))
        shots = check_shots(self.shots, "Readout errors are measured", "Two have a spread.", at_least=2)
        object.__setattr__(self, "shots", shots)
        if self.steps_between is not None and self.steps_between < 1:
            raise DeviceError(f"steps_between is at least 1, or None to measure once; got {self.steps_between}.")

    @classmethod
    def from_calibration(cls, calibration: NoiseModel | None, qubits: Sequence[int]) -> ReadoutInversion:
        """Return an inversion of the errors that a device states.

        Args:
            calibration: as `device.calibration()` returns it.
            qubits: of the chip, one per qubit of the circuits, in their order: where the device runs them.

        Raises: DeviceError if there is no calibration; NoiseError if it lacks one of the qubits.
        """
        if calibration is None:
            raise DeviceError("The device states no calibration. Leave the errors out: two circuits then measure them.")
        return cls(tuple(calibration.qubit(qubit).readout for qubit in qubits))

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of the one version that is sent."""
        return (1.0,)

    @property
    def num_calibration_circuits(self) -> int:
        """Two, or none if the errors are given."""
        return 2 if self.errors is None else 0

    def check(self, capabilities: Capabilities) -> None:
        """Raise DeviceError if the device corrects readout itself, or chooses qubits anew for each circuit."""
        if capabilities.corrects_readout:
            raise DeviceError(
                f"{capabilities.name} corrects readout errors itself, and twice is once too often. Switch its own "
                "correction off (for origin: amend=False), or leave ReadoutInversion out."
            )
        if capabilities.chooses_qubits:
            raise DeviceError(
                f"{capabilities.name} chooses qubits for each circuit, so nobody knows whose readout errors to invert. "
                "Say which ones (for origin: mapping=False; for ibm: qubits=[...]), or do without ReadoutInversion."
            )

    def versions(self, operations: tuple[Operation, ...]) -> tuple[tuple[Operation, ...], ...]:
        """Return the circuit as it is."""
        return (operations,)

    def readout(self, measure: Measure, key: CallKey, *, num_qubits: int, shots: int | None) -> Readout:
        """Return the readout of the circuit's qubits, from the errors given or measured.

        Args:
            measure: sends the two circuits, if the errors are to be measured.
            key: of the call that wants to know.
            num_qubits: of the circuit.
            shots: of the call; None for exact values.

        Raises: DeviceError if errors are given for another number of qubits, or a qubit hardly tells 0 from 1; when
            measuring, what `measure` raises.
        """
        if self.errors is not None:
            if len(self.errors) != num_qubits:
                raise DeviceError(
                    f"ReadoutInversion has the errors of {len(self.errors)} qubit(s); the circuit has {num_qubits}. "
                    "Give one per qubit of the circuit, in its order."
                )
            return Readout.of(self.errors)
        # Rounded down to the step of the last measurement, which a resumed run works out anew and finds in the journal.
        step = 0 if self.steps_between is None else key.step // self.steps_between * self.steps_between
        wanted = None if shots is None else self.shots
        place = (measure, num_qubits, wanted)
        known = self._measured.get(place)
        if known is None or known[0] != step:
            readout = measured_readout(measure, replace(key, step=step), num_qubits=num_qubits, shots=wanted)
            known = self._measured[place] = step, readout
        return known[1]


def measured_readout(measure: Measure, key: CallKey, *, num_qubits: int, shots: int | None) -> Readout:
    """Return the readout of some qubits, from two circuits that are sent for it.

    Their key is a function of device, width, shots and step, so that a resumed run finds them again.

    Args:
        measure: sends them to the device whose readout it is.
        key: of the call that wants to know; its step stays.
        num_qubits: as the call's circuit has; the first ones are measured.
        shots: of each of the two; None for exact probabilities.

    Raises: what `measure` raises.
    """
    flips = tuple(Operation("X", (qubit,)) for qubit in range(num_qubits))
    module = f"{num_qubits} qubit(s) of {measure.device_name}, {shots} shots"
    key = replace(key, module=module, call=0, part="readout")
    circuits = [Circuit(num_qubits, ()), Circuit(num_qubits, flips)]
    results = measure(circuits, shots, key)
    # All zeros and all ones suffice since each qubit is looked at alone: 2 circuits and not 2**num_qubits.
    means = np.stack([np.fromiter(result.values(), float, len(result)) @ signs(result) for result in results])
    # Signs are +1 or -1, so their variance is 1 - mean**2; with shots - 1 that of the mean is without bias.
    spread = np.zeros_like(means) if shots is None else np.maximum(1 - means**2, 0) / (shots - 1)
    return Readout(means, spread)
