"""One call of a circuit through a device: sends it in every basis it needs, and reads values from what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpeft.circuits import Circuit, Operation, bind
from qpeft.devices.mitigation import AbstractMitigation, check_suits
from qpeft.devices.mitigation.reading import read
from qpeft.devices.protocol import (
    ONLY_CALL,
    AbstractDevice,
    CallKey,
    Distribution,
    Measure,
    Runner,
    device_shots,
    run_now,
)
from qpeft.errors import SimulationError
from qpeft.simulation.checks import check_angles
from qpeft.simulation.noise.outcomes import TO_Z_BASIS
from qpeft.simulation.shots import measurement_bases

Values: TypeAlias = npt.NDArray[np.float64]
Operations: TypeAlias = tuple[Operation, ...]


@dataclass(frozen=True)
class DeviceCall:
    """A parametrised circuit, and where and how it is evaluated.

    Attributes:
        circuit: with its observables.
        device: that runs it.
        shots: per circuit sent; None for exact probabilities.
        runner: that does the sending.
        key: of this call.
        mitigation: of errors, in all values; None for values as they come.

    Raises: ShotsError if the device takes no such number; DeviceError if the mitigation does not suit the device.
    """

    circuit: Circuit
    device: AbstractDevice
    shots: int | None
    runner: Runner = run_now
    key: CallKey = ONLY_CALL
    mitigation: AbstractMitigation | None = None

    def __post_init__(self) -> None:
        capabilities = self.device.capabilities()
        # numpy's and torch's integers become int here, since the journal stores them.
        object.__setattr__(self, "shots", device_shots(capabilities, self.shots))
        if self.mitigation is not None:
            check_suits(self.mitigation, capabilities)

    def estimates(self, bound: Sequence[Operations]) -> tuple[Values, Values]:
        """Return expectation values with their standard errors, both (len(bound), num_observables).

        Each basis in which observables are measured is a circuit of its own. Equal circuits are sent once.

        Args:
            bound: the circuit's operations with numbers for angles, once per evaluation.

        Raises: what the runner raises; DeviceError if it returns too few or too many results.
        """
        values = np.zeros((len(bound), self.circuit.num_observables))
        if self.mitigation is not None:
            values, covariances = self.moments(bound)
            # Variances are below 0 only where a device returns shares below 0.
            return values, np.sqrt(np.maximum(np.diagonal(covariances, axis1=1, axis2=2), 0))
        # Not by `moments`, whose covariances cost observables squared times bit strings.
        bases = measurement_bases(self.circuit.observables)
        for columns, versions in zip(bases.values(), self._measured(bound, bases), strict=True):
            observables = [self.circuit.observables[column] for column in columns]
            reads = np.array([[letter != "I" for letter in observable] for observable in observables], dtype=np.int64)
            for row, (result,) in enumerate(versions):
                bits = np.frombuffer("".join(result).encode(), dtype=np.uint8).reshape(len(result), -1) - ord("0")
                # The letters of the basis have become Z: an observable's sign is -1 for an odd number of ones it reads.
                signs = 1 - 2 * (bits.astype(np.int64) @ reads.T % 2)
                values[row, columns] = np.fromiter(result.values(), float, len(result)) @ signs
        return values, self.standard_errors(values)

    def moments(self, bound: Sequence[Operations]) -> tuple[Values, Values]:
        """Return the values and the covariances of their errors, (len(bound), num_observables, num_observables).

        Observables that share a basis share their samples, so their errors are correlated; those of different bases are
        not. Zero for exact values; for a single shot, which says nothing of its spread, 1 and no correlation.

        Args:
            bound: as for `estimates`.

        Raises: as `estimates`.
        """
        values = np.zeros((len(bound), self.circuit.num_observables))
        covariances = np.zeros((*values.shape, self.circuit.num_observables))
        if not bound:
            return values, covariances
        weights: tuple[float, ...] = (1.0,)
        readout = None
        if self.mitigation is not None:
            weights = self.mitigation.weights
            measure = Measure(self.device, self.runner)
            num_qubits = self.circuit.num_qubits
            # Before the call's own circuits, so that a readout that cannot be inverted costs two circuits and no more.
            readout = self.mitigation.readout(measure, self.key, num_qubits=num_qubits, shots=self.shots)
        bases = measurement_bases(self.circuit.observables)
        for columns, rows in zip(bases.values(), self._measured(bound, bases), strict=True):
            observables = [self.circuit.observables[column] for column in columns]
            for row, versions in enumerate(rows):
                means, spread = read(versions, weights, observables, readout, self.shots)
                values[row, columns] = means
                # Observables of other bases have samples of their own, so their entries stay 0.
                covariances[row][np.ix_(columns, columns)] = spread
        return values, covariances

    def standard_errors(self, values: Values) -> Values:
        """Return the uncertainty of values without mitigation: 0 for exact values, 1 for a single shot."""
        if self.shots is None:
            return np.zeros_like(values)
        if self.shots == 1:
            return np.ones_like(values)
        # Variance of a mean of signs: (1 - mean^2) / (shots - 1). Devices that correct readout return means beyond 1.
        deviations: Values = np.sqrt(np.maximum(1 - values**2, 0) / (self.shots - 1))
        return deviations

    def _measured(self, bound: Sequence[Operations], bases: Iterable[str]) -> list[list[list[Distribution]]]:
        """Return what the device gives for every basis, evaluation and version of the mitigation, nested so."""
        asked: list[list[list[Circuit]]] = []
        for basis in bases:
            change = tuple(
                Operation(name, (qubit,)) for qubit, letter in enumerate(basis) for name in TO_Z_BASIS[letter]
            )
            asked.append([])
            for operations in bound:
                whole = operations + change
                # Folded with its change of basis, since those gates err as well.
                versions = (whole,) if self.mitigation is None else self.mitigation.versions(whole)
                asked[-1].append([Circuit(self.circuit.num_qubits, version) for version in versions])
        # For no rows nothing is sent, and no key is used up.
        if not bound:
            return [[] for _ in asked]
        # In one call for all bases and rows: as few jobs as possible.
        different = list(dict.fromkeys(circuit for rows in asked for versions in rows for circuit in versions))
        found = Measure(self.device, self.runner)(different, self.shots, self.key)
        results = dict(zip(different, found, strict=True))
        return [[[results[circuit] for circuit in versions] for versions in rows] for rows in asked]


def num_bases(circuit: Circuit) -> int:
    """Return how many circuits one set of angles takes: the measurement bases of the observables."""
    return len(measurement_bases(circuit.observables))


def num_versions(mitigation: AbstractMitigation | None) -> int:
    """Return how many circuits a mitigation sends in place of one."""
    return 1 if mitigation is None else len(mitigation.weights)


@dataclass(frozen=True)
class Rows:
    """Rows of angles that are evaluated together, each with the weights of one of several circuits side by side.

    Attributes:
        inputs: (rows, num_inputs), radians.
        weights: (num_circuits, num_weights), radians.
        owners: (rows,), from 0 to num_circuits - 1: whose weights a row takes.
    """

    inputs: Tensor
    weights: Tensor
    owners: Tensor

    @classmethod
    def side_by_side(cls, inputs: Tensor, weights: Tensor) -> Rows:
        """Return rows that take turns: row r has the weights of circuit r modulo num_circuits."""
        return cls(inputs, weights, torch.arange(len(inputs)) % len(weights))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: Tensor) -> Rows:
        """Return the rows of a mask or of indices, (rows,) or (chosen,)."""
        return Rows(self.inputs[chosen], self.weights, self.owners[chosen.to(self.owners.device)])

    def bind(self, circuit: Circuit) -> list[Operations]:
        """Return the circuit's operations with numbers for angles, once per row."""
        weights, pairs = self.weights.tolist(), zip(self.inputs.tolist(), self.owners.tolist(), strict=True)
        return [bind(circuit, row, weights[owner]).operations for row, owner in pairs]

    def sum_by_owner(self, of_rows: Tensor) -> Tensor:
        """Add up the rows of each circuit: (rows, numbers) to (num_circuits, numbers)."""
        sums = of_rows.new_zeros(len(self.weights), *of_rows.shape[1:])
        return sums.index_add_(0, self.owners.to(of_rows.device), of_rows)


def check_rows(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Check that inputs and weights fit the circuit and each other.

    Args:
        circuit: whose angles they are.
        inputs: (..., num_inputs), or (..., num_circuits, num_inputs) for circuits side by side; radians.
        weights: (num_weights,), or (num_circuits, num_weights); radians.

    Raises: SimulationError if they do not, or an angle is not finite.
    """
    if weights.ndim == 2 and inputs.shape[-2:-1] != weights.shape[:1]:
        raise SimulationError(
            f"Weights for {len(weights)} circuits side by side go with inputs (..., {len(weights)}, "
            f"{circuit.num_inputs}); got shape {tuple(inputs.shape)}."
        )
    for one in weights.unbind() if weights.ndim == 2 else [weights]:
        check_angles(circuit, inputs, one)
