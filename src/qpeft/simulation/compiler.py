"""Circuits to plans: gates become rotations and phases, which move back to the earliest layer that takes them.

    circuit -> gates as Y rotations, phases, permutations (`lowering`)
            -> permutations vanish into index masks (`paulis.Frame`)
            -> rotations and phases move back past all they commute with, and merge
            -> what cannot reach an observable is dropped; the last rotations are folded into the observables

Everything is symbolic: no table of size 2**num_qubits is made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from qpeft.circuits import Circuit, Input, Operation, Weight
from qpeft.simulation.lowering import Permutation, Phase, lower_gate
from qpeft.simulation.paulis import Frame, Pauli, parity
from qpeft.simulation.plan import AngleSum, Layer, PhaseLayer, Rotation, RotationLayer, SimulationPlan, Term


@lru_cache(maxsize=512)
def compile_plan(circuit: Circuit) -> SimulationPlan:
    """The plan of a circuit. Cached, since circuits are compared by value."""
    layers, frame = _Scheduler(circuit.num_qubits), Frame(circuit.num_qubits)
    for operation in circuit.operations:
        for kind, pauli, angle in _primitives(operation, frame, layers):
            layers.add_phase(pauli, angle) if kind == "phase" else layers.add_rotation(pauli, angle)
    observables = [_observable(letters, frame) for letters in circuit.observables]
    kept = _reaching(layers.layers, observables)
    encoding = [AngleSum()] * circuit.num_qubits
    while kept and isinstance(kept[0], PhaseLayer):
        kept.pop(0)
    if kept and isinstance(first := kept[0], RotationLayer) and all(_is_bit(r.direction) for r in first.rotations):
        kept.pop(0)
        for rotation in first.rotations:
            encoding[circuit.num_qubits - rotation.direction.bit_length()] = rotation.angle
    terms = [Term(index, observable) for index, observable in enumerate(observables)]
    if kept and isinstance(kept[-1], RotationLayer) and (folded := _folded(kept[-1], observables)):
        kept, terms = kept[:-1], folded
    if all(isinstance(layer, PhaseLayer) and layer.maps_paulis_to_paulis for layer in kept):
        for layer in reversed(kept):
            terms = [replace(term, pauli=_through_signs(layer, term.pauli, circuit.num_qubits)) for term in terms]
        kept = []
    if all(isinstance(layer, RotationLayer) or layer.fixed_signs for layer in kept):
        # A real state has no expectation of an operator with imaginary entries.
        terms = [term for term in terms if not (term.pauli.x & term.pauli.z).bit_count() % 2]
    if not kept:
        # Every qubit is on its own then, so that not even two Y together have one.
        terms = [term for term in terms if not term.pauli.x & term.pauli.z]
    used = {index for angle in _angles(encoding, kept, terms) for index, _ in angle.weights}
    dead = tuple(index for index in range(circuit.num_weights) if index not in used)
    return SimulationPlan(circuit, tuple(encoding), tuple(kept), tuple(terms), dead)


def dead_weights(circuit: Circuit) -> tuple[int, ...]:
    """Weights whose gradient is always zero, ascending: no gate they turn can reach an observable.

    For example an RZ that meets nothing but CNOTs before a Z measurement. Training them wastes memory, and they should
    not be counted as parameters.
    """
    return compile_plan(circuit).dead_weights


def _primitives(operation: Operation, frame: Frame, layers: _Scheduler) -> Iterator[tuple[str, Pauli, AngleSum]]:
    match operation.angle:
        case None:
            source = AngleSum()
        case Input(index):
            source = AngleSum(inputs=((index, 1.0),))
        case Weight(index):
            source = AngleSum(weights=((index, 1.0),))
        case number:
            source = AngleSum(float(number))
    for primitive in lower_gate(operation.gate_name):
        if isinstance(primitive, Permutation):
            # Before any rotation the state is one basis state, and only its flipped bits matter.
            _permute(frame, operation.qubits, primitive.images, flips_only=not layers.layers)
        elif isinstance(primitive, Phase):
            pauli = Pauli(0, 0)
            for qubit in primitive.qubits:
                pauli = pauli @ frame.z(operation.qubits[qubit])
            yield "phase", pauli, source.scaled(primitive.factor, primitive.offset)
        else:
            pauli = frame.y(operation.qubits[primitive.qubit])
            yield "rotation", pauli, source.scaled(primitive.factor, primitive.offset)


def _permute(frame: Frame, qubits: tuple[int, ...], images: tuple[int, ...], *, flips_only: bool) -> None:
    """Renames basis states. All permutations of one or two bits are XOR with constants and sums of bits."""
    if flips_only:
        value = 0
        for qubit in qubits:
            value = 2 * value + frame.flips[qubit]
        for position, qubit in enumerate(reversed(qubits)):
            frame.flips[qubit] = images[value] >> position & 1
        return
    offset = images[0]
    if len(qubits) == 2:
        linear = (images[2] ^ offset, images[1] ^ offset)  # images of the first and of the second bit
        for control, target in _CNOTS[linear]:
            frame.add(qubits[control], qubits[target])
    for position, qubit in enumerate(reversed(qubits)):
        if offset >> position & 1:
            frame.flip(qubit)


_CNOTS = {
    (2, 1): (),
    (3, 1): ((0, 1),),
    (2, 3): ((1, 0),),
    (1, 2): ((0, 1), (1, 0), (0, 1)),
    (3, 2): ((1, 0), (0, 1)),
    (1, 3): ((0, 1), (1, 0)),
}
"""Invertible 2x2 matrices over bits, by the images of 10 and 01, as (control, target) pairs in order of action."""


def _observable(letters: str, frame: Frame) -> Pauli:
    product = Pauli(0, 0)
    for qubit, letter in enumerate(letters):
        if letter != "I":
            product = product @ {"X": frame.x, "Y": frame.y, "Z": frame.z}[letter](qubit)
    return product


class _Scheduler:
    """Collects layers; every new operation moves back past all it commutes with to the layer that takes it."""

    def __init__(self, num_qubits: int) -> None:
        self._num_qubits = num_qubits
        self.layers: list[Layer] = []

    def add_phase(self, pauli: Pauli, angle: AngleSum) -> None:
        angle = angle.scaled(pauli.sign)
        home = None
        for position in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[position]
            if isinstance(layer, PhaseLayer):
                home = position if home is None else home
            elif any(parity(pauli.z & rotation.direction) for rotation in layer.rotations):
                break
        else:
            return  # It reached |0...0>, on which a phase is global.
        if home is None:
            self.layers.append(PhaseLayer(((pauli.z, angle),)))
        else:
            layer = self.layers[home]
            assert isinstance(layer, PhaseLayer)
            sums = dict(layer.terms)
            sums[pauli.z] = sums.get(pauli.z, AngleSum()) + angle
            self.layers[home] = PhaseLayer(tuple(sums.items()))

    def add_rotation(self, pauli: Pauli, angle: AngleSum) -> None:
        new = Rotation(pauli.x, pauli.z, angle.scaled(1.0 if pauli.power == 1 else -1.0))
        home = None
        for position in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[position]
            if isinstance(layer, PhaseLayer):
                if any(parity(mask & new.direction) for mask, _ in layer.terms):
                    break
                continue
            if any((r.direction, r.row) == (new.direction, new.row) for r in layer.rotations):
                home = position
                break
            if all(_independent(new, rotation) for rotation in layer.rotations):
                home = position
            elif not all(new.axis.commutes_with(rotation.axis) for rotation in layer.rotations):
                break
        if home is None:
            self.layers.append(RotationLayer((new,)))
            return
        layer = self.layers[home]
        assert isinstance(layer, RotationLayer)
        merged = {(r.direction, r.row): r for r in layer.rotations}
        old = merged.get((new.direction, new.row))
        merged[new.direction, new.row] = replace(new, angle=old.angle + new.angle) if old else new
        self.layers[home] = RotationLayer(tuple(merged.values()))


def _independent(left: Rotation, right: Rotation) -> bool:
    return not parity(left.direction & right.row) and not parity(left.row & right.direction)


def _reaching(layers: list[Layer], observables: list[Pauli]) -> list[Layer]:
    """Layers without what commutes with everything behind it, the observables included."""
    behind = list(observables)
    kept: list[Layer] = []
    for layer in reversed(layers):
        if isinstance(layer, PhaseLayer):
            terms = tuple(t for t in layer.terms if not all(Pauli(0, t[0]).commutes_with(p) for p in behind))
            behind += [Pauli(0, mask) for mask, _ in terms]
            if terms:
                kept.insert(0, PhaseLayer(terms))
        else:
            rotations = tuple(r for r in layer.rotations if not all(r.axis.commutes_with(p) for p in behind))
            behind += [rotation.axis for rotation in rotations]
            if rotations:
                kept.insert(0, RotationLayer(rotations))
    return kept


def _folded(layer: RotationLayer, observables: list[Pauli]) -> list[Term] | None:
    """Terms after U^H P U with U the layer: cos(angle) P - i sin(angle) P A, if at most one axis A meets each P."""
    if any(rotation.angle.inputs for rotation in layer.rotations):
        return None
    terms: list[Term] = []
    for index, observable in enumerate(observables):
        meeting = [r for r in layer.rotations if not r.axis.commutes_with(observable)]
        if len(meeting) > 1:
            return None
        if not meeting:
            terms.append(Term(index, observable))
            continue
        rotation = meeting[0]
        terms.append(Term(index, observable, rotation.angle))
        terms.append(Term(index, (observable @ rotation.axis).times_i(3), rotation.angle, use_sin=True))
    return terms


def _is_bit(mask: int) -> bool:
    return mask.bit_count() == 1


def _through_signs(layer: Layer, pauli: Pauli, num_qubits: int) -> Pauli:
    """D^H P D for signs D with a quadratic exponent: P times Z on some bits."""
    assert isinstance(layer, PhaseLayer)

    def flips(index: int) -> bool:
        return math.cos(layer.relative_phase(index) + layer.relative_phase(index ^ pauli.x)) < 0

    mask = sum(1 << bit for bit in range(num_qubits) if flips(1 << bit) != flips(0))
    return (pauli @ Pauli(0, mask)).times_i(2 * flips(0))


def _angles(encoding: list[AngleSum], layers: list[Layer], terms: list[Term]) -> Iterator[AngleSum]:
    yield from encoding
    for layer in layers:
        if isinstance(layer, PhaseLayer):
            yield from (angle for _, angle in layer.terms)
        else:
            yield from (rotation.angle for rotation in layer.rotations)
    yield from (term.angle for term in terms if term.angle is not None)
