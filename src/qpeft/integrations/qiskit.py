"""Our simulator as an estimator of Qiskit: `Estimator` goes wherever a `BaseEstimatorV2` does.

All parameter values of a circuit are one batch of the compiled kernel, and all observables are read from it at once.
Angles may be any expressions of Qiskit's parameters: they are evaluated for the batch, and differentiated, beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import torch
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.primitives import BaseEstimatorV2, DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from torch import Tensor

from qpeft.circuits.circuit import Angle, Circuit, Input, Operation
from qpeft.circuits.exchange import QISKIT_NAMES
from qpeft.errors import CircuitError
from qpeft.simulation import expectations

LETTERS = {
    "0": ((0.5, "I"), (0.5, "Z")),
    "1": ((0.5, "I"), (-0.5, "Z")),
    "+": ((0.5, "I"), (0.5, "X")),
    "-": ((0.5, "I"), (-0.5, "X")),
    "r": ((0.5, "I"), (0.5, "Y")),
    "l": ((0.5, "I"), (-0.5, "Y")),
} | {letter: ((1.0, letter),) for letter in "IXYZ"}
"""Qiskit's letters of observables, projectors among them, as sums of Pauli matrices."""
Column: TypeAlias = float | Callable[[np.ndarray], np.ndarray]
"""A number, or a function from parameter values of all rows to an angle of each."""

MAX_CACHED = 32
"""Circuits whose translation is kept; translating takes longer than evaluating them once."""


class Estimator(BaseEstimatorV2):
    """Expectation values from our simulator, exact or with the noise of a wanted precision.

    Args:
        default_precision: standard deviation of the normal noise that is added to values, where neither a pub nor `run`
            says another; 0 for exact values.
        seed: of that noise.
        dtype: torch.float32 for the compiled kernel, values within 2e-5; torch.float64 for ten digits more, slower.
    """

    def __init__(
        self, *, default_precision: float = 0.0, seed: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.default_precision, self.dtype = default_precision, dtype
        self._random = np.random.default_rng(seed)
        self._translated: list[tuple[QuantumCircuit, TranslatedCircuit]] = []

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Return a job with the values of every pub; see `BaseEstimatorV2.run`.

        Args:
            pubs: (circuit, observables, parameter values, precision), the last two optional.
            precision: for pubs that name none.

        Raises: CircuitError, from the job's result, for a circuit that measures or resets qubits in its middle.
        """
        wanted = self.default_precision if precision is None else precision
        coerced = [EstimatorPub.coerce(pub, wanted) for pub in pubs]
        job = PrimitiveJob(self._run, coerced)
        job._submit()  # as every primitive of Qiskit does; there is no public way
        return job

    def translate(self, circuit: QuantumCircuit) -> TranslatedCircuit:
        """Return a circuit in our gates, from the cache if an equal one came before."""
        for known, translated in self._translated:
            if known is circuit or known == circuit:
                return translated
        translated = TranslatedCircuit.of(circuit)
        # A copy, since circuits can be changed in place.
        self._translated = [(circuit.copy(), translated), *self._translated[: MAX_CACHED - 1]]
        return translated

    def _run(self, pubs: Sequence[EstimatorPub]) -> PrimitiveResult[PubResult]:
        evaluated: dict[tuple[int, bytes, tuple[str, ...]], np.ndarray] = {}
        return PrimitiveResult([self._run_pub(pub, evaluated) for pub in pubs], metadata={"version": 2})

    def _run_pub(self, pub: EstimatorPub, evaluated: dict[tuple[int, bytes, tuple[str, ...]], np.ndarray]) -> PubResult:
        circuit = pub.circuit
        parameters = np.asarray(pub.parameter_values.as_array(circuit.parameters), dtype=np.float64)
        shape = parameters.shape[:-1]
        rows = parameters.reshape(math.prod(shape), parameters.shape[-1])
        observables = np.asarray(pub.observables.tolist(), dtype=object).reshape(pub.observables.shape)
        strings, table = pauli_table([dict(observable) for observable in observables.ravel()], circuit.num_qubits)
        key = (id(circuit), rows.tobytes(), strings)
        if key not in evaluated:  # the same circuit at the same values comes once per observable, from QNNs
            translated = self.translate(circuit)
            angles = torch.from_numpy(translated.angles(rows)).to(self.dtype)
            with torch.no_grad():
                evaluated[key] = translated.values(strings, angles).double().numpy()
        values = evaluated[key] @ table
        # Observables and parameter values broadcast against each other.
        row, column = np.broadcast_arrays(
            np.arange(len(rows)).reshape(shape), np.arange(values.shape[1]).reshape(observables.shape)
        )
        found = values[row, column]
        if pub.precision:
            found = self._random.normal(found, pub.precision)
        errors = np.full_like(found, pub.precision)
        data = DataBin(evs=found, stds=errors, shape=found.shape)
        return PubResult(
            data, metadata={"target_precision": pub.precision, "circuit_metadata": dict(circuit.metadata or {})}
        )


@dataclass(frozen=True)
class TranslatedCircuit:
    """A circuit of Qiskit in our gates, and where its angles come from.

    Attributes:
        circuit: every angle that depends on a parameter is an input of its own.
        expressions: one for each input.
        parameters: of Qiskit's circuit, in its order, which is that of the columns of parameter values.
    """

    circuit: Circuit
    expressions: tuple[ParameterExpression, ...]
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, circuit: QuantumCircuit) -> TranslatedCircuit:
        """Translate a circuit. Qiskit takes gates apart that we lack.

        Raises: CircuitError for anything but gates, barriers and measurements at the end.
        """
        ours = {theirs: name for name, theirs in QISKIT_NAMES.items()}
        bare = circuit.remove_final_measurements(inplace=False)
        assert bare is not None
        for instruction in bare.data:
            if instruction.clbits or instruction.operation.name == "reset":
                raise CircuitError(
                    f"{instruction.operation.name} has no equal here: only gates have, and measurements at the end."
                )
        flat = transpile(bare, basis_gates=list(ours), optimization_level=0)
        operations: list[Operation] = []
        expressions: list[ParameterExpression] = []
        for instruction in flat.data:
            name = instruction.operation.name
            if name in ("barrier", "delay", "id", "global_phase"):
                continue
            places = tuple(flat.find_bit(qubit).index for qubit in instruction.qubits)
            angle: Angle | None = None
            for value in instruction.operation.params:
                if isinstance(value, ParameterExpression) and value.parameters:
                    angle = Input(len(expressions))
                    expressions.append(value)
                else:
                    angle = float(value)
            operations.append(Operation(ours[name], places, angle))
        return cls(Circuit(circuit.num_qubits, tuple(operations)), tuple(expressions), tuple(circuit.parameters))

    def angles(self, rows: np.ndarray) -> np.ndarray:
        """Return the angles (rows, num_inputs), radians, for parameter values (rows, num_parameters)."""
        return self._evaluated(self._functions, rows)

    def slopes(self, rows: np.ndarray) -> np.ndarray:
        """Return derivatives of all angles by all parameters, (rows, num_inputs, num_parameters)."""
        found = self._evaluated(self._slope_functions, rows)
        return found.reshape(len(rows), len(self.expressions), len(self.parameters))

    @cached_property
    def _functions(self) -> list[Column]:
        return [self._function(expression) for expression in self.expressions]

    @cached_property
    def _slope_functions(self) -> list[Column]:
        return [
            self._function(expression.gradient(parameter) if parameter in expression.parameters else 0.0)
            for expression in self.expressions
            for parameter in self.parameters
        ]

    def _function(self, expression: Any) -> Column:
        """Return a number, or a function from all rows to the values of an expression."""
        places = {parameter: place for place, parameter in enumerate(self.parameters)}
        used = sorted(getattr(expression, "parameters", ()), key=places.__getitem__)
        if not used:
            return float(np.real(complex(expression)))
        columns = [places[parameter] for parameter in used]
        if isinstance(expression, Parameter):
            return lambda rows: rows[:, columns[0]]
        import sympy  # noqa: PLC0415 - takes half a second, and torch has brought it

        # Qiskit binds one row at a time; as a function of numpy the expression takes all of them.
        function = sympy.lambdify([parameter.sympify() for parameter in used], expression.sympify(), modules="numpy")
        return lambda rows: function(*rows[:, columns].T)

    @staticmethod
    def _evaluated(functions: Sequence[Column], rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), len(functions)))
        for column, function in enumerate(functions):
            found[:, column] = function(rows) if callable(function) else function
        return found

    def values(self, strings: tuple[str, ...], angles: Tensor) -> Tensor:
        """Return values of Pauli strings, (rows, strings), leftmost letter on qubit 0.

        Args:
            strings: that are measured.
            angles: (rows, num_inputs), radians.
        """
        measured = Circuit(self.circuit.num_qubits, self.circuit.operations, strings)
        return expectations(measured, angles, angles.new_empty(0))


def pauli_table(observables: Sequence[dict[str, complex]], num_qubits: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the Pauli strings that sums of Qiskit's labels are made of, and their coefficients.

    Args:
        observables: coefficient of each label, whose rightmost letter is qubit 0.
        num_qubits: letters of a label.

    Returns:
        Our strings, leftmost letter on qubit 0, and coefficients (strings, observables).

    Raises: CircuitError for a coefficient that is not real.
    """
    sums: list[dict[str, float]] = []
    for observable in observables:
        total: dict[str, float] = {}
        for label, coefficient in observable.items():
            if abs(np.imag(coefficient)) > 1e-12:
                raise CircuitError(f"Observables have real coefficients; {label} has {coefficient}.")
            # A projector is half of I and half of a Pauli matrix, so each of them doubles the strings.
            for parts in product(*(LETTERS[letter] for letter in reversed(label))):
                string = "".join(letter for _, letter in parts)
                factor = reduce(lambda value, part: value * part[0], parts, float(np.real(coefficient)))
                total[string] = total.get(string, 0.0) + factor
        sums.append(total)
    strings = tuple(dict.fromkeys(string for total in sums for string in total)) or ("I" * num_qubits,)
    table = np.array([[total.get(string, 0.0) for total in sums] for string in strings])
    return strings, table
