"""Circuits of other frameworks as ours, and ours as theirs: Qiskit, PennyLane, OpenQASM 2 and 3.

Our angles are inputs, weights or numbers, one per gate. Theirs may be expressions. An angle that is linear in the
parameters, with whole coefficients, is written as several gates: all gates of one generator on the same qubits commute,
so R(2x + w + 0.3) = R(x) R(x) R(w) R(0.3). Anything else has no equal here, and is refused by name.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

from qpeft.circuits.circuit import Angle, Circuit, Input, Operation, Weight
from qpeft.errors import CircuitError

if TYPE_CHECKING:
    from pennylane.operation import Operator
    from pennylane.tape import QuantumScript
    from qiskit import QuantumCircuit

QISKIT_NAMES: dict[str, str] = {
    name: name.lower()
    for name in ("H", "X", "Y", "Z", "S", "SDG", "T", "TDG", "SX", "CY", "CZ", "SWAP", "RX", "RY", "RZ")
} | {
    "CNOT": "cx",
    "PHASE": "p",
    "CRX": "crx",
    "CRY": "cry",
    "CRZ": "crz",
    "CPHASE": "cp",
    "RXX": "rxx",
    "RYY": "ryy",
    "RZZ": "rzz",
}
"""Our name of a gate to the method of Qiskit's circuits that adds it."""
PENNYLANE_NAMES: dict[str, str] = {
    name: name for name in ("S", "T", "SX", "CNOT", "CY", "CZ", "SWAP", "RX", "RY", "RZ", "CRX", "CRY", "CRZ")
} | {
    "H": "Hadamard",
    "X": "PauliX",
    "Y": "PauliY",
    "Z": "PauliZ",
    "PHASE": "PhaseShift",
    "CPHASE": "ControlledPhaseShift",
    "RXX": "IsingXX",
    "RYY": "IsingYY",
    "RZZ": "IsingZZ",
}
"""Gates that PennyLane has, our name to its name; it takes apart itself what a wrapped device lacks."""
PENNYLANE_ADJOINTS: dict[str, str] = {"SDG": "S", "TDG": "T"}
"""Gates that PennyLane writes as the adjoint of another."""
FLIPS = {"RX": "Z", "RY": "Z", "RZ": "X", "CRX": "Z", "CRY": "Z", "CRZ": "X", "RXX": "Z", "RYY": "Z", "RZZ": "X"}
"""The Pauli that turns a rotation round: P R(a) P = R(-a), P on the last qubit."""
MAX_COPIES = 16
"""Largest coefficient of an angle, since each whole multiple is a gate of its own."""
MAX_QUBITS = 24
"""Largest circuit that is taken in: beyond it the state of a single row takes gigabytes."""
NEGLIGIBLE = 1e-12
"""Constants below this, radians, are what rounding leaves of none, and become no gate."""

Terms: TypeAlias = Sequence[tuple[Input | Weight, float]]
"""A linear angle without its constant: where each part comes from, and its coefficient."""


@dataclass(frozen=True)
class _Linear:
    """An angle that is linear in the parameters: sum of coefficient * parameter, plus a number, radians."""

    terms: Terms
    constant: float


def from_qiskit(
    circuit: QuantumCircuit,
    *,
    inputs: Iterable[Any] = (),
    weights: Iterable[Any] | None = None,
    observables: Sequence[Any] = (),
) -> Circuit:
    """Return a Qiskit circuit as one of ours; its qubit k is our qubit k.

    Gates that we lack are taken apart by their own definitions. Barriers, delays and measurements at the end are left
    out. Global phases are dropped: no expectation value shows them.

    Args:
        circuit: without measurements or resets in the middle, and without classical control.
        inputs: parameters that are fed in with the data, in the order of the columns: `Parameter`s,
            `ParameterVector`s or their names.
        weights: parameters that are trained, in their order; None for all that are no inputs, sorted by name and index.
        observables: our Pauli strings (leftmost letter on qubit 0) or Qiskit's `Pauli`s; none for Z of every qubit.

    Returns:
        A circuit with an input or weight for each parameter that the circuit uses; unused ones have no column.

    Raises:
        CircuitError: Qiskit is missing, a parameter is unknown, left over or named twice, an angle is not linear in
            the parameters with whole coefficients, or an operation has no equal here.
    """
    qiskit = _needed("qiskit", "ibm")
    if not isinstance(circuit, qiskit.QuantumCircuit):
        raise CircuitError(f"A QuantumCircuit of Qiskit is needed; got {type(circuit).__name__}.")
    _check_size(circuit.num_qubits)
    known = sorted(circuit.parameters, key=lambda parameter: _split_name(parameter.name))
    columns = _chosen_parameters(known, inputs, "inputs")
    left = [parameter for parameter in known if parameter not in columns]
    rows = left if weights is None else _chosen_parameters(known, weights, "weights")
    if twice := [parameter.name for parameter in rows if parameter in columns]:
        raise CircuitError(f"{', '.join(twice)} cannot be both an input and a weight; name each once.")
    if missing := [parameter.name for parameter in left if parameter not in rows]:
        raise CircuitError(f"{', '.join(missing)} is neither an input nor a weight; name it in one of the two.")
    origin: dict[Any, Input | Weight] = {parameter: Input(index) for index, parameter in enumerate(columns)}
    origin |= {parameter: Weight(index) for index, parameter in enumerate(rows)}

    operations = tuple(_qiskit_operations(circuit, list(range(circuit.num_qubits)), origin, set(), set()))
    return Circuit(circuit.num_qubits, operations, tuple(_pauli_string(each) for each in observables))


def _chosen_parameters(known: Sequence[Any], wanted: Iterable[Any], role: str) -> list[Any]:
    """Return the parameters of a Qiskit circuit that `wanted` names, a vector's elements one by one."""
    chosen: list[Any] = []
    for each in [wanted] if isinstance(wanted, str) else wanted:
        name = each if isinstance(each, str) else each.name
        # A vector's name alone stands for all its elements: "x[3]" in Qiskit, "_x_3_" in the OpenQASM that it writes.
        found = [p for p in known if p.name == name] or [p for p in known if _split_name(p.name)[0] == name]
        if not found:
            raise CircuitError(
                f"{role}: the circuit has no parameter {name!r}; it has {', '.join(p.name for p in known) or 'none'}."
            )
        chosen += found
    if len(set(chosen)) != len(chosen):
        raise CircuitError(f"{role}: a parameter is named twice in {', '.join(p.name for p in chosen)}.")
    return chosen


def _split_name(name: str) -> tuple[str, int]:
    """Return a parameter's name and its index in a vector, -1 without one, so that x[10] comes after x[9]."""
    found = re.fullmatch(r"(.+)\[(\d+)\]|_(.+)_(\d+)_", name)
    return (found[1] or found[3], int(found[2] or found[4])) if found else (name, -1)


def _qiskit_operations(
    circuit: QuantumCircuit,
    qubits: Sequence[int],
    origin: Mapping[Any, Input | Weight],
    touched: set[int],
    measured: set[int],
) -> Iterator[Operation]:
    """Yield our operations for those of a circuit that stands on `qubits`; a definition is walked as a circuit."""
    ours = {theirs: name for name, theirs in QISKIT_NAMES.items()}
    for instruction in circuit.data:
        operation = instruction.operation
        name = operation.name
        places = [qubits[circuit.find_bit(qubit).index] for qubit in instruction.qubits]
        if name in ("barrier", "delay", "id", "global_phase"):
            continue
        if name == "measure":
            measured.update(places)
            continue
        if again := measured.intersection(places):
            raise CircuitError(
                f"{name} acts on qubit {min(again)} after it was measured. Circuits here are measured once, at their "
                "end: leave measurements in the middle out."
            )
        if name == "reset" and not touched.intersection(places):
            continue  # qubits start in |0>, so a reset before anything else changes nothing
        # A gate with open controls has the same name, and a definition that turns them round.
        all_ones = 2 ** getattr(operation, "num_ctrl_qubits", 0) - 1
        is_ours = name in ours and getattr(operation, "ctrl_state", all_ones) == all_ones
        definition = None if is_ours or instruction.clbits else getattr(operation, "definition", None)
        if definition is not None:
            yield from _qiskit_operations(definition, places, origin, touched, measured)
            continue
        touched.update(places)
        angles = [_qiskit_angle(value, origin, name) for value in operation.params] if is_ours or name == "u" else []
        if name == "u":
            # The one gate of Qiskit's that has no definition; equal up to a global phase. In order of time.
            for gate, angle in zip(("RZ", "RY", "RZ"), (angles[2], angles[0], angles[1]), strict=True):
                yield from _rotations(gate, places, angle, f"Qiskit's {name}")
        elif angles:
            yield from _rotations(ours[name], places, angles[0], f"Qiskit's {name}")
        elif is_ours:
            yield Operation(ours[name], tuple(places))
        else:
            raise CircuitError(f"Qiskit's {name} has no equal here: only gates have, and measurements at the end.")


def _qiskit_angle(value: Any, origin: Mapping[Any, Input | Weight], gate: str) -> _Linear:
    """Return a number or a ParameterExpression of Qiskit as a linear angle."""
    parameters = sorted(getattr(value, "parameters", ()), key=lambda parameter: str(parameter.name))
    if not parameters:
        return _Linear((), float(value))
    terms = []
    for parameter in parameters:
        slope = value.gradient(parameter)
        if getattr(slope, "parameters", ()):
            raise CircuitError(
                f"{gate} has the angle {value}, which is not linear in its parameters; that has no equal here."
            )
        if complex(slope).imag:
            raise CircuitError(f"{gate} has the angle {value}, which is complex; angles are real numbers.")
        terms.append((origin[parameter], complex(slope).real))
    return _Linear(terms, float(value.bind(dict.fromkeys(parameters, 0.0)).numeric()))


def _pauli_string(observable: Any) -> str:
    """Return our string for a Pauli of Qiskit's, whose labels have qubit 0 on the right; ours stay."""
    if isinstance(observable, str):
        return observable
    terms = observable.to_list() if hasattr(observable, "to_list") else [(observable.to_label(), 1)]
    if len(terms) != 1 or terms[0][1] != 1 or not set(terms[0][0]) <= set("IXYZ"):
        raise CircuitError(f"An observable is one Pauli string with the factor 1; got {observable}.")
    return str(terms[0][0][::-1])


def to_qiskit(circuit: Circuit) -> QuantumCircuit:
    """Return a Qiskit circuit without measurements: inputs are the vector x, weights the vector w, qubit k is qubit k.

    Raises: CircuitError if Qiskit is missing.
    """
    qiskit = _needed("qiskit", "ibm")
    from qiskit.circuit import ParameterVector  # noqa: PLC0415

    made: QuantumCircuit = qiskit.QuantumCircuit(circuit.num_qubits)
    x, w = ParameterVector("x", circuit.num_inputs), ParameterVector("w", circuit.num_weights)
    for operation in circuit.operations:
        angle: Any = operation.angle
        if isinstance(angle, (Input, Weight)):
            angle = (x if isinstance(angle, Input) else w)[angle.index]
        values = () if angle is None else (angle,)
        getattr(made, QISKIT_NAMES[operation.gate_name])(*values, *operation.qubits)
    return made


def from_openqasm(
    text: str, *, inputs: Iterable[str] = (), weights: Iterable[str] | None = None, observables: Sequence[str] = ()
) -> Circuit:
    """Return a program in OpenQASM 2 or 3 as a circuit; Qiskit's parsers read it.

    Args:
        text: the program; its first statement says which version it is.
        inputs: names of `input float`s that are fed in with the data, in the order of the columns.
        weights: names of those that are trained; None for all others, by name.
        observables: our Pauli strings, leftmost letter on qubit 0; none for Z of every qubit.

    Raises: CircuitError if a parser is missing or refuses the text, and as `from_qiskit`.
    """
    _needed("qiskit", "ibm")
    if not text.strip():
        raise CircuitError("An OpenQASM program is needed; the text is empty.")
    is_third = any(line.split("//")[0].replace(" ", "").startswith("OPENQASM3") for line in text.splitlines())
    if is_third:
        _needed("qiskit_qasm3_import", "ibm")
    from qiskit import qasm2, qasm3  # noqa: PLC0415

    try:
        if is_third:
            read = qasm3.loads(text)
        else:
            # Without the customs of old Qiskit programs its reader would refuse gates that all tools write.
            read = qasm2.loads(text, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
    except Exception as error:  # three packages read the text, each with errors of its own
        raise CircuitError(f"The text is no OpenQASM {3 if is_third else 2} that Qiskit reads: {error}") from error
    return from_qiskit(read, inputs=inputs, weights=weights, observables=observables)


def to_openqasm(circuit: Circuit) -> str:
    """Return the circuit as an OpenQASM 3 program whose angles x and w are inputs; Qiskit writes it.

    Raises: CircuitError if Qiskit is missing.
    """
    _needed("qiskit", "ibm")
    from qiskit import qasm3  # noqa: PLC0415

    return str(qasm3.dumps(to_qiskit(circuit)))


def from_pennylane(source: Any, *args: Any, inputs: Iterable[str] = ("inputs",), **kwargs: Any) -> Circuit:
    """Return a QNode, a quantum function or a tape of PennyLane as a circuit.

    Templates are expanded. Arguments are flattened, in the order of the signature: those named in `inputs` become
    inputs, other real numbers and arrays of them become weights. Arrays with requires_grad=False, whole numbers and all
    else stay what they are. Of a tape, trainable parameters become weights and the others numbers.

    Args:
        source: the QNode, function or tape. It returns expectation values of Pauli words.
        args, kwargs: example arguments of the function; they give shapes, their values do not matter.
        inputs: names of the arguments that are the data; "inputs" is what PennyLane's TorchLayer calls it.

    Raises:
        CircuitError: PennyLane is missing, the function returns other things than expectation values of Pauli words, a
            wire is no whole number, an angle is not linear in the arguments with whole coefficients, or an
            operation has no equal here.
    """
    pennylane = _needed("pennylane", "pennylane")
    if isinstance(source, pennylane.tape.QuantumScript):
        if args or kwargs:
            raise CircuitError("A tape takes no arguments: its parameters have values.")
        trained = source.trainable_params
        return _from_tapes(
            lambda values: source.bind_new_parameters(values, trained),
            shapes=[() for _ in trained],
            origins=[Weight(index) for index in range(len(trained))],
            num_wires=None,
        )

    function = getattr(source, "func", source)
    if not callable(function):
        raise CircuitError(f"A QNode, a function or a tape of PennyLane is needed; got {type(source).__name__}.")
    try:
        given = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise CircuitError(f"Give an example of every argument, so that shapes are known: {error}.") from error
    given.apply_defaults()
    data = {inputs} if isinstance(inputs, str) else set(inputs)
    if unknown := sorted(data - given.arguments.keys() - {"inputs"}):
        raise CircuitError(f"The function has no argument {unknown[0]!r}; it has {', '.join(given.arguments)}.")
    arguments = {name: value for name, value in given.arguments.items() if _is_angle(value, is_data=name in data)}
    for name, value in given.arguments.items():
        if name not in arguments and type(value).__module__.startswith("pennylane"):
            given.arguments[name] = value.numpy()  # beside torch's tensors PennyLane warns of its own
    shapes = [tuple(getattr(value, "shape", ())) for value in arguments.values()]
    counts: dict[type, Iterator[int]] = {Input: itertools.count(), Weight: itertools.count()}
    origins: list[Input | Weight] = []
    for name, shape in zip(arguments, shapes, strict=True):
        kind = Input if name in data else Weight
        origins += [kind(next(counts[kind])) for _ in range(math.prod(shape))]

    def build(values: Sequence[Any]) -> QuantumScript:
        given.arguments.update(zip(arguments, values, strict=True))
        made: QuantumScript = pennylane.tape.make_qscript(function)(*given.args, **given.kwargs)
        return made

    wires = getattr(getattr(source, "device", None), "wires", None)
    return _from_tapes(build, shapes=shapes, origins=origins, num_wires=None if wires is None else len(wires))


def _is_angle(value: Any, *, is_data: bool) -> bool:
    """Return whether an argument holds angles: real numbers that are no plain integers, unless marked as constant."""
    if isinstance(value, (bool, int, str)) or value is None:
        return False
    if not is_data and type(value).__module__.startswith("pennylane") and not value.requires_grad:
        return False
    kind = getattr(getattr(value, "dtype", None), "kind", None)  # numpy's; torch's dtype has is_floating_point
    return (
        isinstance(value, float)
        or kind == "f"
        or bool(getattr(getattr(value, "dtype", None), "is_floating_point", False))
    )


def _from_tapes(
    build: Callable[[Sequence[Any]], QuantumScript],
    *,
    shapes: Sequence[tuple[int, ...]],
    origins: Sequence[Input | Weight],
    num_wires: int | None,
) -> Circuit:
    """Return the circuit that PennyLane's tapes have in common.

    How an angle depends on the arguments is read from its derivatives. A second point tells whether that is linear.

    Args:
        build: from values of all arguments to a tape.
        shapes: of the arguments.
        origins: for each entry of the flattened arguments, what it becomes.
        num_wires: of the QNode's device; None for as many as the tape has.
    """
    import torch  # noqa: PLC0415 - only circuits of PennyLane need it

    # Generic points, so that no symmetry and no branch of the function hides a dependence.
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2):
        values = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
        tape = build(values)
        found.append((tape, [(op, _torch_angle(op, values, origins)) for op in _expanded(tape)]))
    (tape, gates), (_, again) = found
    if [op.name for op, _ in gates] != [op.name for op, _ in again]:
        raise CircuitError("Which gates the circuit has depends on its arguments; that has no equal here.")

    wires = {wire for op, _ in gates for wire in op.wires} | set(tape.wires)
    if strange := [wire for wire in wires if not isinstance(wire, Integral) or wire < 0]:
        raise CircuitError(f"Wires must be whole numbers from 0; got {strange[0]!r}. qml.map_wires renames them.")
    num_qubits = max(int(max(wires, default=0)) + 1, num_wires or 0)
    _check_size(num_qubits)
    ours = {theirs: name for name, theirs in PENNYLANE_NAMES.items()}
    ours |= {f"Adjoint({theirs})": name for name, theirs in PENNYLANE_ADJOINTS.items()}
    operations: list[Operation] = []
    for (op, angle), (_, other) in zip(gates, again, strict=True):
        places = [int(wire) for wire in op.wires]
        if op.name not in ours:
            raise CircuitError(f"PennyLane's {op.name} has no equal here.")
        if angle is None or other is None:
            operations.append(Operation(ours[op.name], tuple(places)))
            continue
        same = [a[0] for a in angle.terms] == [b[0] for b in other.terms] and all(
            math.isclose(a, b, abs_tol=1e-9)
            for a, b in zip(
                [angle.constant, *(slope for _, slope in angle.terms)],
                [other.constant, *(slope for _, slope in other.terms)],
                strict=True,
            )
        )
        if not same:
            raise CircuitError(
                f"An angle of {op.name} on wires {places} is not linear in the arguments; that has no equal here."
            )
        operations += _rotations(ours[op.name], places, angle, f"PennyLane's {op.name}")
    return Circuit(
        num_qubits, tuple(operations), tuple(_measured_string(each, num_qubits) for each in tape.measurements)
    )


def _expanded(tape: QuantumScript) -> list[Operator]:
    """Return the tape's gates, templates and gates that we lack taken apart by PennyLane."""
    from pennylane.ops.mid_measure import MidMeasure  # noqa: PLC0415
    from pennylane.transforms import decompose  # noqa: PLC0415

    if any(isinstance(op, MidMeasure) for op in tape.operations):
        raise CircuitError("Circuits here are measured once, at their end: leave measurements in the middle out.")
    without_effect = {"Identity", "GlobalPhase", "Barrier", "Snapshot"}
    adjoints = (f"Adjoint({name})" for name in PENNYLANE_ADJOINTS.values())
    names = {*PENNYLANE_NAMES.values(), *adjoints, *without_effect}
    try:
        (script,), _ = decompose(tape, gate_set=names, stopping_condition=lambda op: op.name in names)
    except Exception as error:  # whatever a template's own code raises
        raise CircuitError(f"PennyLane cannot take the circuit apart: {error}") from error
    return [op for op in script.operations if op.name not in without_effect]


def _torch_angle(op: Operator, leaves: Sequence[Any], origins: Sequence[Input | Weight]) -> _Linear | None:
    """Return a gate's angle as it depends on the arguments, which are torch tensors; None for a gate without one."""
    import torch  # noqa: PLC0415

    if not op.parameters or op.name not in set(PENNYLANE_NAMES.values()):
        return None
    value = op.parameters[0]
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return _Linear((), float(value))
    if value.numel() != 1:
        raise CircuitError(f"{op.name} has {value.numel()} angles at once: give an example of a single row, no batch.")
    slopes = torch.autograd.grad(value.reshape(()), leaves, retain_graph=True, allow_unused=True)
    flat = torch.cat(
        [
            (torch.zeros_like(leaf) if slope is None else slope).flatten()
            for leaf, slope in zip(leaves, slopes, strict=True)
        ]
    )
    arguments = torch.cat([leaf.detach().flatten() for leaf in leaves])
    terms = [(origins[place], float(flat[place])) for place in flat.nonzero().flatten().tolist()]
    return _Linear(terms, float(value.detach() - flat @ arguments))


def _measured_string(measurement: Any, num_qubits: int) -> str:
    import pennylane  # noqa: PLC0415

    observable = measurement.obs
    if not isinstance(measurement, pennylane.measurements.ExpectationMP) or observable is None:
        raise CircuitError(
            f"A function that returns expectation values of Pauli words is needed; this one returns {measurement}."
        )
    words = dict(observable.pauli_rep or {})
    if len(words) != 1 or next(iter(words.values())) != 1:
        raise CircuitError(
            f"An observable is one Pauli word with the factor 1; got {observable}. Return a sum's words one by one."
        )
    word = next(iter(words))
    return "".join(str(word.get(qubit, "I")) for qubit in range(num_qubits))


def to_pennylane(circuit: Circuit) -> Callable[..., list[Any]]:
    """Return a quantum function `(inputs, weights)` of PennyLane that returns the value of every observable.

    It fits `qml.QNode` and PennyLane's `TorchLayer` (weight_shapes {"weights": (circuit.num_weights,)}). Rows of inputs
    stand in the last axis. Qubit k is wire k.

    Raises: CircuitError if PennyLane is missing.
    """
    pennylane = _needed("pennylane", "pennylane")

    def quantum_function(inputs: Any, weights: Any) -> list[Any]:
        for operation in circuit.operations:
            angle: Any = operation.angle
            if isinstance(angle, Input):
                angle = inputs[..., angle.index]
            elif isinstance(angle, Weight):
                angle = weights[angle.index]
            name = operation.gate_name
            if name in PENNYLANE_ADJOINTS:
                pennylane.adjoint(getattr(pennylane, PENNYLANE_ADJOINTS[name])(wires=operation.qubits))
            else:
                gate = getattr(pennylane, PENNYLANE_NAMES[name])
                gate(wires=operation.qubits) if angle is None else gate(angle, wires=operation.qubits)
        words = (pennylane.pauli.string_to_pauli_word(text) for text in circuit.observables)
        return [pennylane.expval(word) for word in words]

    return quantum_function


def _rotations(gate: str, qubits: Sequence[int], angle: _Linear, whose: str) -> Iterator[Operation]:
    """Yield gates whose product is `gate` at a linear angle; all of one generator, so their order does not matter.

    Args:
        gate: our name of a parametrised gate.
        qubits: it acts on, the last being the target.
        angle: in radians.
        whose: the gate as the user knows it, for the error.

    Raises: CircuitError for coefficients that are not whole or too large.
    """
    for origin, coefficient in angle.terms:
        copies = round(coefficient)
        if not math.isclose(copies, coefficient, abs_tol=1e-9) or abs(copies) > MAX_COPIES:
            kind = "an input" if isinstance(origin, Input) else "a weight"
            raise CircuitError(
                f"{whose} takes {coefficient:g} times {kind} as its angle; only whole multiples up to {MAX_COPIES} "
                "have an equal here. Multiply the values themselves before they enter the circuit."
            )
        for _ in range(abs(copies)):
            yield from _one(gate, tuple(qubits), origin, is_negative=copies < 0)
    if abs(angle.constant) > NEGLIGIBLE or not angle.terms:
        yield Operation(gate, tuple(qubits), angle.constant)


def _one(gate: str, qubits: tuple[int, ...], angle: Angle, *, is_negative: bool) -> Iterator[Operation]:
    if not is_negative:
        yield Operation(gate, qubits, angle)
    elif gate in FLIPS:
        flip = Operation(FLIPS[gate], qubits[-1:])
        yield from (flip, Operation(gate, qubits, angle), flip)
    else:
        # diag(1, e^-ia) is X diag(1, e^ia) X but for a phase e^ia. Under a control that phase is a PHASE of the
        # control, and has to be taken back.
        flip = Operation("X", qubits[-1:])
        yield from (flip, Operation(gate, qubits, angle), flip)
        if gate == "CPHASE":
            yield from _one("PHASE", qubits[:1], angle, is_negative=True)


def _check_size(num_qubits: int) -> None:
    if not 1 <= num_qubits <= MAX_QUBITS:
        raise CircuitError(f"Circuits here have 1 to {MAX_QUBITS} qubits; this one has {num_qubits}.")


def _needed(module: str, extra: str) -> Any:
    """Return a framework, imported when it is needed. Raises: CircuitError that says how to install it."""
    from importlib import import_module  # noqa: PLC0415

    try:
        return import_module(module)
    except ImportError as error:
        raise CircuitError(f"{module} is not installed: pip install 'qpeft[{extra}]'.") from error
