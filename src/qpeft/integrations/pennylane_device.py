"""Our simulator as a device of PennyLane: `qml.device("qpeft.simulator", wires=n)`.

Circuits and their gradients are ours; templates, observables, samples and autograd interfaces stay PennyLane's. A batch
of inputs is one call of the kernel, forwards and backwards, and so is a batch of circuits of one structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pennylane as qml
import torch
from pennylane.devices import Device, ExecutionConfig
from pennylane.devices.modifiers import simulator_tracking, single_tape_support
from pennylane.devices.preprocess import decompose, validate_device_wires, validate_measurements
from pennylane.devices.qubit import measure, measure_with_samples
from pennylane.exceptions import DeviceError
from pennylane.measurements import ExpectationMP, MeasurementProcess, StateMeasurement
from pennylane.operation import Operator
from pennylane.tape import QuantumScript
from pennylane.transforms.core import TransformProgram
from torch import Tensor

from qpeft.circuits.circuit import Angle, Circuit, Input, Operation, Weight
from qpeft.circuits.exchange import PENNYLANE_ADJOINTS as ADJOINTS
from qpeft.circuits.exchange import PENNYLANE_NAMES as NAMES
from qpeft.simulation import expectations
from qpeft.simulation.noise.counter import SampleKey, Stream
from qpeft.simulation.states import MAX_QUBITS, final_states

GATES = {theirs: ours for ours, theirs in NAMES.items()} | {f"Adjoint({of})": ours for ours, of in ADJOINTS.items()}
"""PennyLane's names of the gates that we have."""
NOTHING = frozenset({"Identity", "Barrier", "WireCut", "GlobalPhase"})
"""Operations that no measurement shows."""
PRECISIONS = {"auto": None, "single": torch.float32, "double": torch.float64}
MAX_DECOMPOSED_WIRES = 6
"""Observables that are matrices are written as Pauli words, of which 6 wires have 4,096."""


@dataclass(frozen=True)
class _Script:
    """A tape as a circuit of ours.

    Attributes:
        circuit: without observables of its own. What is batched is an input, everything else a weight.
        inputs: (rows, num_inputs), radians; one row if nothing is batched.
        weights: (num_weights,), radians.
        is_batched: whether results have a batch axis.
        sources: of every parameter of the tape's operations, in PennyLane's order; None for one that changes nothing.
    """

    circuit: Circuit
    inputs: np.ndarray
    weights: np.ndarray
    is_batched: bool
    sources: tuple[Input | Weight | None, ...]


class _Gradients(tuple[np.ndarray, ...]):
    """Gradients of a tape's parameters, batched and single ones mixed.

    PennyLane's torch interface squeezes them to see whether there are any, which numpy refuses for mixed shapes.
    """

    __slots__ = ()

    def squeeze(self, axis: Any = None) -> np.ndarray:  # noqa: ARG002 - numpy passes it
        return np.empty(len(self))


@simulator_tracking
@single_tape_support
class QpeftSimulator(Device):
    """PennyLane's view of our simulator.

    Expectation values of any observables come from the compiled kernel, with gradients by the adjoint method, also of
    batches (`diff_method="best"`, "adjoint" or "device"). All other measurements, and samples, are PennyLane's own on
    our state vector; they have its parameter-shift gradients.

    Args:
        wires: number or labels; None for as many as a circuit has.
        shots: as for every device of PennyLane; better set by `qml.set_shots`.
        seed: of samples; None for PennyLane's global state of numpy.
        precision: 'auto' computes batches of float32 in float32, as in torch, and all else in float64; or 'single',
            'double'.

    Raises: DeviceError for an unknown precision.
    """

    name = "qpeft.simulator"

    def __init__(
        self, wires: Any = None, shots: int | None = None, *, seed: int | None = None, precision: str = "auto"
    ) -> None:
        super().__init__(wires=wires, shots=shots)
        if precision not in PRECISIONS:
            raise DeviceError(f"precision is one of {', '.join(PRECISIONS)}; got {precision!r}.")
        self._dtype = PRECISIONS[precision]
        self._seed = int(np.random.randint(2**31)) if seed is None else seed  # noqa: NPY002 - as qml.device says
        self._sampled = 0

    def supports_derivatives(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """Return whether gradients come from the kernel: first ones, of exact expectation values, by the gates' angles.

        Args:
            execution_config: with the method that is asked for; None for any.
            circuit: that is asked about; None for any.
        """
        if execution_config is not None:
            if execution_config.gradient_method not in ("best", "adjoint", "device", None):
                return False
            if execution_config.derivative_order != 1:
                return False
        if circuit is None:
            return True
        is_exact = not circuit.shots and all(isinstance(m, ExpectationMP) for m in circuit.measurements)
        # Coefficients of observables are parameters too, and the kernel knows nothing of them.
        of_observables = (info["op_idx"] >= len(circuit.operations) for info in _trained_parameters(circuit))
        return is_exact and not any(of_observables)

    def supports_vjp(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """Return the same as `supports_derivatives`.

        Args:
            execution_config, circuit: as there.
        """
        return self.supports_derivatives(execution_config, circuit)

    def setup_execution_config(
        self, config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> ExecutionConfig:
        """Return the config with gradients by vector-Jacobian products wherever the kernel has them.

        Args:
            config: as the QNode was made.
            circuit: that will be run.
        """
        config = config or ExecutionConfig()
        changes: dict[str, Any] = {}
        if config.gradient_method in ("best", "adjoint", "device") and self.supports_derivatives(config, circuit):
            changes = {
                "gradient_method": "adjoint",
                "use_device_gradient": True,
                "use_device_jacobian_product": True,
                "grad_on_execution": False,
            }
        if config.mcm_config.mcm_method not in (None, "deferred"):
            raise DeviceError(
                f"{self.name} defers measurements in the middle to the end; mcm_method="
                f"{str(config.mcm_config.mcm_method)!r} is not one of its ways. Leave it out."
            )
        return replace(config, mcm_config=replace(config.mcm_config, mcm_method="deferred"), **changes)

    def preprocess_transforms(self, execution_config: ExecutionConfig | None = None) -> TransformProgram:
        """Return what PennyLane does before circuits come here: only gates of ours, on wires of this device."""
        config = execution_config or ExecutionConfig()
        program = TransformProgram()
        program.add_transform(qml.defer_measurements, allow_postselect=False)
        program.add_transform(
            decompose,
            stopping_condition=_is_known,
            skip_initial_state_prep=False,
            device_wires=self.wires,
            target_gates=set(GATES) | NOTHING,
            name=self.name,
        )
        program.add_transform(validate_device_wires, self.wires, name=self.name)
        accepts = _is_expectation if config.gradient_method == "adjoint" else _is_of_a_state
        program.add_transform(validate_measurements, analytic_measurements=accepts, name=self.name)
        return program

    def execute(self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None) -> Any:  # noqa: ARG002
        """Return the results of every tape, as PennyLane shapes them.

        Args:
            circuits: tapes of our gates.
            execution_config: is not needed here.
        """
        results: list[Any] = [None] * len(circuits)
        alike: dict[tuple[Any, ...], list[tuple[int, _Script, QuantumScript]]] = {}
        for place, tape in enumerate(circuits):
            script = self._script(tape)
            if tape.shots or not all(isinstance(m, ExpectationMP) for m in tape.measurements):
                results[place] = self._measured(script, tape)
                continue
            # Tapes that are not batched have weights alone. Those of one structure, as a parameter-shift rule makes
            # them, become rows of one batch.
            key = (place,) if script.is_batched else (script.circuit, len(tape.measurements), _observables(tape)[0])
            alike.setdefault(key, []).append((place, script, tape))
        for group in alike.values():
            places, scripts, tapes = zip(*group, strict=True)
            if len(group) > 1:
                merged = _weights_as_inputs(scripts)
                rows = self._values(merged, tapes[0])
                values = [rows[[row]] @ _observables(tape)[1] for row, tape in enumerate(tapes)]
            else:
                values = [self._values(scripts[0], tapes[0]) @ _observables(tapes[0])[1]]
            for place, found, script in zip(places, values, scripts, strict=True):
                columns = found.numpy().T
                shaped = [column if script.is_batched else column[0] for column in columns]
                results[place] = shaped[0] if len(shaped) == 1 else tuple(shaped)
        return tuple(results)

    def compute_vjp(self, circuits: Sequence[QuantumScript], cotangents: Any, execution_config: Any = None) -> Any:  # noqa: ARG002
        """Return cotangents times the Jacobian of every tape, for each of its trained parameters.

        Args:
            circuits: tapes whose measurements are expectation values.
            cotangents: for every tape, a value for each measurement, batched as its results are.
            execution_config: is not needed here.
        """
        found = []
        for tape, given in zip(circuits, cotangents, strict=True):
            script = self._script(tape)
            parts = given if len(tape.measurements) > 1 else [given]
            grad = np.stack([np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in parts], axis=-1)
            found.append(self._vjp(script, tape, grad))
        return tuple(found)

    def compute_derivatives(self, circuits: Sequence[QuantumScript], execution_config: Any = None) -> Any:  # noqa: ARG002
        """Return the Jacobian of every tape that is not batched, as PennyLane nests it.

        Args:
            circuits: tapes whose measurements are expectation values.
            execution_config: is not needed here.
        """
        found = []
        for tape in circuits:
            script, number = self._script(tape), len(tape.measurements)
            if script.is_batched:
                raise DeviceError("The full Jacobian of a batch is not computed; take vector-Jacobian products.")
            rows = [self._vjp(script, tape, unit[None]) for unit in np.eye(number)]
            squeezed = [row[0] if len(row) == 1 else tuple(row) for row in rows]
            found.append(squeezed[0] if number == 1 else tuple(squeezed))
        return tuple(found)

    def _script(self, tape: QuantumScript) -> _Script:
        """Return a tape as a circuit of ours."""
        tape = tape.map_to_standard_wires()
        num_qubits = max(1, len(self.wires) if self.wires else 0, tape.num_wires)
        operations: list[Operation] = []
        columns: list[np.ndarray] = []
        weights: list[Any] = []
        sources: list[Input | Weight | None] = []
        for theirs in tape.operations:
            if theirs.name in NOTHING:
                sources += [None] * len(theirs.data)
                continue
            angle: Angle | None = None
            for value in theirs.data:
                if np.iscomplexobj(value):
                    raise DeviceError(f"{theirs.name} has a complex angle; angles are real numbers.")
                if np.ndim(value):
                    angle = Input(len(columns))
                    columns.append(np.asarray(value))
                else:
                    angle = Weight(len(weights))
                    weights.append(value)
                sources.append(angle)
            operations.append(Operation(GATES[theirs.name], tuple(theirs.wires), angle))
        circuit = Circuit(num_qubits, tuple(operations), ("Z" + "I" * (num_qubits - 1),))
        inputs = np.stack(columns, axis=-1) if columns else np.empty((1, 0))
        return _Script(circuit, inputs, np.array(weights), tape.batch_size is not None, tuple(sources))

    def _tensors(self, script: _Script) -> tuple[Tensor, Tensor]:
        """Return inputs and weights in the precision in which to compute."""
        # Single numbers of torch arrive as floats of Python, which tell no precision; arrays have kept theirs.
        is_single = bool(script.inputs.size) and script.inputs.dtype in (np.float32, np.float16)
        dtype = self._dtype or (torch.float32 if is_single else torch.float64)
        inputs, weights = (torch.as_tensor(array).to(dtype) for array in (script.inputs, script.weights))
        return inputs, weights

    def _values(self, script: _Script, tape: QuantumScript) -> Tensor:
        """Return values of all Pauli words in the tape's observables, (rows, words), float64."""
        circuit = replace(script.circuit, observables=_strings(tape, script.circuit.num_qubits))
        inputs, weights = self._tensors(script)
        return expectations(circuit, inputs, weights).double()

    def _vjp(self, script: _Script, tape: QuantumScript, grad: np.ndarray) -> _Gradients:
        circuit = replace(script.circuit, observables=_strings(tape, script.circuit.num_qubits))
        inputs, weights = (tensor.requires_grad_() for tensor in self._tensors(script))
        # PennyLane asks from within a backward pass of torch, where nothing is recorded by itself.
        with torch.enable_grad():
            values = expectations(circuit, inputs, weights)
        by_values = (torch.as_tensor(grad) @ _observables(tape)[1].T).to(values.dtype)
        by_inputs, by_weights = torch.autograd.grad(values, [inputs, weights], by_values)
        found: list[np.ndarray] = []
        for index in tape.trainable_params:
            match script.sources[index]:
                case Input(column):
                    found.append(by_inputs[:, column].numpy())
                case Weight(row):
                    found.append(by_weights[row].numpy())
                case None:
                    found.append(np.zeros(()))
        return _Gradients(found)

    def _measured(self, script: _Script, tape: QuantumScript) -> Any:
        """Return what PennyLane measures on our state, exactly or with its own sampling."""
        num_qubits = script.circuit.num_qubits
        if num_qubits > MAX_QUBITS:
            raise DeviceError(f"State vectors are kept for up to {MAX_QUBITS} wires; the circuit has {num_qubits}.")
        inputs, weights = (tensor.double() for tensor in self._tensors(script))
        real, imaginary = final_states(script.circuit, inputs, weights).numpy()
        state = (real + 1j * imaginary).T.reshape(-1, *[2] * num_qubits)
        state = state if script.is_batched else state[0]
        tape = tape.map_to_standard_wires()
        if not tape.shots:
            results = tuple(measure(m, state, is_state_batched=script.is_batched) for m in tape.measurements)
        else:
            self._sampled += 1
            numbers = Stream(SampleKey(seed=self._seed, step=self._sampled)).uniforms(4)
            generator = np.random.default_rng((numbers.numpy() * 2**32).astype(np.uint32))
            found = measure_with_samples(
                tape.measurements, state, tape.shots, is_state_batched=script.is_batched, rng=generator
            )
            if tape.shots.has_partitioned_shots:
                return tuple(each[0] if len(tape.measurements) == 1 else tuple(each) for each in found)
            results = tuple(found)
        return results[0] if len(results) == 1 else results


def _is_known(operation: Operator) -> bool:
    return operation.name in GATES or operation.name in NOTHING


def _is_expectation(measurement: MeasurementProcess) -> bool:
    return isinstance(measurement, ExpectationMP)


def _is_of_a_state(measurement: MeasurementProcess) -> bool:
    return isinstance(measurement, StateMeasurement)


def _trained_parameters(tape: QuantumScript) -> list[dict[str, Any]]:
    return [tape.par_info[index] for index in tape.trainable_params]


def _observables(tape: QuantumScript) -> tuple[tuple[qml.pauli.PauliWord, ...], Tensor]:
    """Return all Pauli words of a tape's observables, and their coefficients, (words, measurements)."""
    tape = tape.map_to_standard_wires()
    sentences = []
    for measurement in tape.measurements:
        observable = measurement.obs
        sentence = observable.pauli_rep
        if sentence is None:
            if len(observable.wires) > MAX_DECOMPOSED_WIRES:
                raise DeviceError(
                    f"{observable.name} on {len(observable.wires)} wires is not made of Pauli words. Observables that "
                    f"are matrices may have {MAX_DECOMPOSED_WIRES} wires."
                )
            sentence = qml.pauli_decompose(observable.matrix(), wire_order=observable.wires, pauli=True)
        sentences.append(sentence)
    words = tuple(dict.fromkeys(word for sentence in sentences for word in sentence))
    table = [[float(np.real(sentence.get(word, 0.0))) for sentence in sentences] for word in words]
    return words, torch.tensor(table, dtype=torch.float64).reshape(len(words), len(sentences))


def _strings(tape: QuantumScript, num_qubits: int) -> tuple[str, ...]:
    """Return the Pauli words of a tape's observables as we write them, leftmost letter on qubit 0."""
    words, _ = _observables(tape)
    return tuple("".join(word.get(qubit, "I") for qubit in range(num_qubits)) for word in words)


def _weights_as_inputs(scripts: Sequence[_Script]) -> _Script:
    """Return tapes of one structure, none of them batched, as one batch: a row for each."""
    operations = [
        replace(operation, angle=Input(operation.angle.index)) if isinstance(operation.angle, Weight) else operation
        for operation in scripts[0].circuit.operations
    ]
    circuit = replace(scripts[0].circuit, operations=tuple(operations))
    return _Script(circuit, np.stack([script.weights for script in scripts]), np.empty(0), True, ())
