"""A circuit as few steps: a product state, then alternating layers of Y rotations and diagonal phases, then terms.

A plan is data: `compiler.compile_plan` makes it, the torch path and the kernels interpret it; `print(plan)` explains.
Masks are as in `paulis`: bit `num_qubits - 1 - q` belongs to qubit q.

Operations are counted as the CPU kernel carries them out: a multiply-add is two, a rotation common to all tokens takes
one multiply-add per real number, its factor cos being part of the next table, and one that is the token's own takes
three operations. Bytes are those that must cross memory: inputs, values and their gradients. States stay in cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from qpeft.circuits import Circuit
from qpeft.simulation.paulis import Pauli, parity

_MAX_BITS = 10
"""Fixed phases on products of more Z than this are not examined for being signs; they are correct either way."""
_CLOSE = 1e-9
FLOAT_BYTES = 4


@dataclass(frozen=True)
class AngleSum:
    """`constant` + sums of coefficient * weight and coefficient * input, radians; pairs are (index, coefficient)."""

    constant: float = 0.0
    weights: tuple[tuple[int, float], ...] = ()
    inputs: tuple[tuple[int, float], ...] = ()

    @property
    def is_constant(self) -> bool:
        return not self.weights and not self.inputs

    def __add__(self, other: AngleSum) -> AngleSum:
        return AngleSum(
            self.constant + other.constant,
            _merged(self.weights + other.weights),
            _merged(self.inputs + other.inputs),
        )

    def scaled(self, factor: float, offset: float = 0.0) -> AngleSum:
        """factor * self + offset."""
        return AngleSum(
            factor * self.constant + offset,
            tuple((index, factor * coefficient) for index, coefficient in self.weights if factor),
            tuple((index, factor * coefficient) for index, coefficient in self.inputs if factor),
        )


def _merged(pairs: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    sums: dict[int, float] = {}
    for index, coefficient in pairs:
        sums[index] = sums.get(index, 0.0) + coefficient
    return tuple((index, total) for index, total in sums.items() if total)


@dataclass(frozen=True)
class Rotation:
    """cos(angle/2) - i sin(angle/2) Y of a bit, which XOR with `direction` flips and the parity under `row` reads."""

    direction: int
    row: int
    angle: AngleSum

    @property
    def axis(self) -> Pauli:
        return Pauli(self.direction, self.row, 1)


@dataclass(frozen=True)
class RotationLayer:
    """Y rotations of different bits, which therefore commute and form a Kronecker product."""

    rotations: tuple[Rotation, ...]


@dataclass(frozen=True)
class PhaseLayer:
    """exp(-i/2 sum_k angle_k (-1)**parity(index & mask_k)): one phase per basis state."""

    terms: tuple[tuple[int, AngleSum], ...]

    @property
    def fixed_signs(self) -> bool:
        """Whether all phases are +1 and -1 up to a common factor, whatever inputs and weights are."""
        polynomial = self._polynomial
        return polynomial is not None and all(abs(math.sin(weight)) < _CLOSE for weight in polynomial.values())

    @property
    def maps_paulis_to_paulis(self) -> bool:
        """Whether the phases are signs given by a quadratic polynomial of the bits, as those of CZ gates are."""
        polynomial = self._polynomial
        return self.fixed_signs and all(
            abs(math.sin(weight / 2)) < _CLOSE
            for subset, weight in (polynomial or {}).items()
            if subset.bit_count() > 2
        )

    @cached_property
    def _polynomial(self) -> dict[int, float] | None:
        """Relative phases as a polynomial of the bits: coefficient of the product of each set of bits."""
        coefficients: dict[int, float] = {}
        for mask, angle in self.terms:
            if not angle.is_constant or mask.bit_count() > _MAX_BITS:
                return None
            subset = mask
            while subset:
                weight = angle.constant * (-2.0) ** (subset.bit_count() - 1)
                coefficients[subset] = coefficients.get(subset, 0.0) + weight
                subset = (subset - 1) & mask
        return coefficients

    def relative_phase(self, index: int) -> float:
        """Phase of basis state `index` relative to that of state 0, for constant angles, radians."""
        return sum((angle.constant for mask, angle in self.terms if parity(index & mask)), 0.0)


Layer: TypeAlias = RotationLayer | PhaseLayer


@dataclass(frozen=True)
class Term:
    """coefficient * product of cos and sin of weight-only `angles` * a Pauli, one contribution to one observable."""

    observable: int
    pauli: Pauli
    angle: AngleSum | None = None
    use_sin: bool = False


@dataclass(frozen=True)
class SimulationPlan:
    """A compiled circuit.

    Attributes:
        circuit: what was compiled.
        encoding: RY angle of every qubit on |0>; together they make a real product state.
        layers: what acts on it, in order.
        terms: what is measured; values are sums of terms. Signs are part of the Pauli.
        dead_weights: indices of weights that no observable depends on, ascending.
    """

    circuit: Circuit
    encoding: tuple[AngleSum, ...]
    layers: tuple[Layer, ...]
    terms: tuple[Term, ...]
    dead_weights: tuple[int, ...]

    def __str__(self) -> str:
        return explain(self)

    @property
    def is_closed_form(self) -> bool:
        """Whether nothing is left between encoding and terms: values are sums of products of cos and sin."""
        return not self.layers

    @cached_property
    def complex_from(self) -> int:
        """Index of the first layer after which amplitudes are complex; len(layers) if they stay real."""
        for index, layer in enumerate(self.layers):
            if isinstance(layer, PhaseLayer) and not layer.fixed_signs:
                return index
        return len(self.layers)


@dataclass(frozen=True)
class SimulationCost:
    """Of one step, per input: what it does and floating-point operations, forwards and backwards."""

    step: str
    forward: int
    backward: int


def costs(plan: SimulationPlan) -> list[SimulationCost]:
    """One entry per step of the plan, in order."""
    if plan.is_closed_form:
        letters = [(term.pauli.x | term.pauli.z).bit_count() for term in plan.terms]
        step = f"products   {len(plan.terms)} products of cos and sin: closed form, no state"
        return [SimulationCost(step, 3 * sum(letters), 3 * sum(count * count for count in letters))]
    size = 2**plan.circuit.num_qubits
    found = [
        SimulationCost(f"encode     RY on {plan.circuit.num_qubits} qubits: a real product state", 2 * size, 8 * size)
    ]
    for position, layer in enumerate(plan.layers):
        if isinstance(layer, PhaseLayer):
            found.append(
                _phases(layer, size, is_real=position < plan.complex_from, is_first=position == plan.complex_from)
            )
        else:
            found.append(_rotations(layer, size, parts=1 + (position > plan.complex_from)))
    found.append(_measurement(plan.terms, size, parts=1 + (plan.complex_from < len(plan.layers))))
    return found


def _phases(layer: PhaseLayer, size: int, *, is_real: bool, is_first: bool) -> SimulationCost:
    own = sum(bool(angle.inputs) for _, angle in layer.terms)
    sources = "signs" if is_real else _sources([angle for _, angle in layer.terms])
    step = f"phases     {len(layer.terms)} products of Z in one diagonal ({sources})"
    if is_real:
        return SimulationCost(step, size, 2 * size)
    return SimulationCost(step, (2 if is_first else 6) * size + 7 * own * size, 16 * size + 22 * own * size)


def _rotations(layer: RotationLayer, size: int, *, parts: int) -> SimulationCost:
    own = sum(bool(rotation.angle.inputs) for rotation in layer.rotations)
    sources = _sources([rotation.angle for rotation in layer.rotations])
    step = f"rotations  RY on {len(layer.rotations)} bits, a Kronecker product ({sources})"
    once = parts * size * (2 * (len(layer.rotations) - own) + 3 * own)
    # Backwards: state and costate rotate back, and every rotation has a slope.
    return SimulationCost(step, once, 2 * once + 2 * parts * size * len(layer.rotations))


def _measurement(terms: tuple[Term, ...], size: int, *, parts: int) -> SimulationCost:
    strings = {(term.pauli.x, term.pauli.z) for term in terms}
    diagonal = sum(not x for x, _ in strings)
    folded = sum(term.angle is not None and not term.use_sin for term in terms)
    step = f"measure    {len(strings)} Pauli strings" + (f", {folded} RY folded in" if folded else "")
    once = 2 * parts * size * (len(strings) - diagonal) + (2 * parts + 3) * size * bool(diagonal)
    return SimulationCost(step, once, (2 if folded else 1) * once + 2 * parts * size * bool(diagonal))


def _sources(angles: list[AngleSum]) -> str:
    return "weights and inputs" if any(angle.inputs for angle in angles) else "weights"


def explain(plan: SimulationPlan) -> str:
    """A table of the steps with operations and bytes per input."""
    circuit = plan.circuit
    rows = costs(plan)
    forward, backward = sum(row.forward for row in rows), sum(row.backward for row in rows)
    there = FLOAT_BYTES * (circuit.num_inputs + circuit.num_observables)
    back = there + FLOAT_BYTES * circuit.num_inputs
    lines = [
        f"Plan of {len(circuit.operations)} gates on {circuit.num_qubits} qubit(s); {circuit.num_observables} values",
        f"{circuit.num_inputs} inputs, {circuit.num_weights} weights",
        f"{'':66}{'forward':>10}{'backward':>10}",
    ]
    lines += [f"{row.step:66}{row.forward:>10,}{row.backward:>10,}" for row in rows]
    lines += [
        f"{'floating-point operations per input':66}{forward:>10,}{forward + backward:>10,}",
        f"{'bytes per input (inputs, values, gradients)':66}{there:>10,}{back:>10,}",
        "The backward pass repeats the forward pass; its totals include that.",
        f"Weights without effect: {', '.join(map(str, plan.dead_weights)) or 'none'}",
    ]
    return "\n".join(lines)
