"""One call of a circuit through a device: what is sent, under which key, and the values read from what comes back."""

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
from qpeft.devices.protocol import ONLY_CALL, AbstractDevice, CallKey, Distribution, Runner, device_shots, run_now
from qpeft.errors import DeviceError, SimulationError
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
        object.__setattr__(self, "shots", device_shots(capabilities, self.shots))
        if self.mitigation is not None:
            check_suits(self.mitigation, capabilities)

    def values(self, bound: Sequence[Operations]) -> Values:
        """Expectation values for the circuit's operations with numbers for angles, (len(bound), num_observables).

        Each basis in which observables are measured is a circuit of its own. Equal circuits are sent once.
        Raises: what the runner raises; DeviceError if it returns too few or too many results.
        """
        if self.mitigation is not None:
            return self.moments(bound)[0]
        if not bound:
            return np.zeros((0, self.circuit.num_observables))
        bases = measurement_bases(self.circuit.observables)
        changes = [_basis_change(basis) for basis in bases]
        wanted = [[Circuit(self.circuit.num_qubits, operations + change) for operations in bound] for change in changes]
        values = np.empty((len(bound), self.circuit.num_observables))
        results = self._results(circuit for row in wanted for circuit in row)
        for columns, circuits in zip(bases.values(), wanted, strict=True):
            observables = [self.circuit.observables[column] for column in columns]
            values[:, columns] = [_means(results[circuit], observables) for circuit in circuits]
        return values

    def estimates(self, bound: Sequence[Operations]) -> tuple[Values, Values]:
        """The same values with their standard errors, both (len(bound), num_observables). Raises: as `values`."""
        if self.mitigation is None:
            values = self.values(bound)
            return values, self.standard_errors(values)
        values, covariances = self.moments(bound)
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        # Below 0 only where a device returns shares below 0.
        return values, np.sqrt(np.maximum(variances, 0))

    def moments(self, bound: Sequence[Operations]) -> tuple[Values, Values]:
        """The same values and the covariances of their errors, (len(bound), num_observables, num_observables).

        Observables that share a basis share their samples, so their errors are correlated; those of different bases are
        not. Zero for exact values; for a single shot, which says nothing of its spread, 1 and no correlation.
        Raises: as `values`.
        """
        values = np.zeros((len(bound), self.circuit.num_observables))
        covariances = np.zeros((*values.shape, self.circuit.num_observables))
        if not bound:
            return values, covariances
        weights = (1.0,) if self.mitigation is None else self.mitigation.weights
        readout = (
            None
            if self.mitigation is None
            else self.mitigation.readout(
                self.device, self.runner, self.key, num_qubits=self.circuit.num_qubits, shots=self.shots
            )
        )
        bases = measurement_bases(self.circuit.observables)
        wanted = [[self._versions(operations + _basis_change(basis)) for operations in bound] for basis in bases]
        results = self._results(circuit for rows in wanted for versions in rows for circuit in versions)
        for columns, rows in zip(bases.values(), wanted, strict=True):
            observables = [self.circuit.observables[column] for column in columns]
            for row, versions in enumerate(rows):
                found = [results[circuit] for circuit in versions]
                means, spread = read(found, weights, observables, readout, self.shots)
                values[row, columns] = means
                covariances[row][np.ix_(columns, columns)] = spread
        return values, covariances

    def standard_errors(self, values: Values) -> Values:
        """Uncertainty of values without mitigation, from their own samples; 0 for exact values, 1 for a single shot."""
        if self.shots is None:
            return np.zeros_like(values)
        if self.shots == 1:
            return np.ones_like(values)
        # Devices that correct readout return values slightly beyond 1.
        deviations: Values = np.sqrt(np.maximum(1 - values**2, 0) / (self.shots - 1))
        return deviations

    def _versions(self, operations: Operations) -> list[Circuit]:
        versions = (operations,) if self.mitigation is None else self.mitigation.versions(operations)
        return [Circuit(self.circuit.num_qubits, version) for version in versions]

    def _results(self, circuits: Iterable[Circuit]) -> dict[Circuit, Distribution]:
        different = list(dict.fromkeys(circuits))
        results = self.runner(self.device, different, self.shots, key=self.key)
        if len(results) != len(different):
            raise DeviceError(f"The runner was given {len(different)} circuits and returned {len(results)} results.")
        return dict(zip(different, results, strict=True))


def num_bases(circuit: Circuit) -> int:
    """How many circuits one set of angles takes: the observables' measurement bases."""
    return len(measurement_bases(circuit.observables))


def num_versions(mitigation: AbstractMitigation | None) -> int:
    """How many circuits a mitigation sends in place of one."""
    return 1 if mitigation is None else len(mitigation.weights)


def _basis_change(basis: str) -> Operations:
    return tuple(Operation(name, (qubit,)) for qubit, letter in enumerate(basis) for name in TO_Z_BASIS[letter])


def _means(result: Distribution, observables: Sequence[str]) -> Values:
    """Mean of each observable's sign over the bit strings; the letters of its basis have become Z."""
    means: Values = np.fromiter(result.values(), float, len(result)) @ _signs(result, observables)
    return means


def _signs(result: Distribution, observables: Sequence[str]) -> npt.NDArray[np.int64]:
    """Signs of observables at bit strings, (strings, observables)."""
    bits = np.frombuffer("".join(result).encode(), dtype=np.uint8).reshape(len(result), -1) - ord("0")
    reads = np.array([[letter != "I" for letter in observable] for observable in observables], dtype=np.int64)
    return 1 - 2 * (bits.astype(np.int64) @ reads.T % 2)


# Rows of angles that are evaluated together, each with the weights of one of several circuits side by side.


@dataclass(frozen=True)
class Rows:
    """What is evaluated in one call.

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
        """Rows that take turns: row r has the weights of circuit r modulo num_circuits."""
        return cls(inputs, weights, torch.arange(len(inputs)) % len(weights))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: Tensor) -> Rows:
        """The rows of a mask or of indices, (rows,) or (chosen,)."""
        return Rows(self.inputs[chosen], self.weights, self.owners[chosen.to(self.owners.device)])

    def bind(self, circuit: Circuit) -> list[Operations]:
        """Operations of the circuit with numbers for angles, one list per row."""
        weights, owners = self.weights.tolist(), self.owners.tolist()
        return [
            bind(circuit, row, weights[owner]).operations
            for row, owner in zip(self.inputs.tolist(), owners, strict=True)
        ]

    def by_owner(self) -> list[Tensor]:
        """The mask of each circuit's rows, (rows,)."""
        return [self.owners == owner for owner in range(len(self.weights))]

    def sum_by_owner(self, of_rows: Tensor) -> Tensor:
        """(rows, numbers) to (num_circuits, numbers)."""
        sums = of_rows.new_zeros(len(self.weights), *of_rows.shape[1:])
        return sums.index_add_(0, self.owners.to(of_rows.device), of_rows)


def check_rows(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Raises: SimulationError unless inputs and weights fit the circuit and each other and are finite.

    Weights are (num_weights,), or (num_circuits, num_weights) with inputs (..., num_circuits, num_inputs).
    """
    if weights.ndim == 2 and inputs.shape[-2:-1] != weights.shape[:1]:
        raise SimulationError(
            f"Weights for {len(weights)} circuits side by side go with inputs (..., {len(weights)}, "
            f"{circuit.num_inputs}); got shape {tuple(inputs.shape)}."
        )
    for one in weights.unbind() if weights.ndim == 2 else [weights]:
        check_angles(circuit, inputs, one)
