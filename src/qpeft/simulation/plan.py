"""A circuit as few steps: a product state, then alternating layers of Y rotations and diagonal phases, then terms.

A plan is data: `compiler.compile_plan` makes it, the torch path and the kernels interpret it; `print(plan)` explains.
Masks are as in `paulis`: bit `num_qubits - 1 - q` belongs to qubit q.
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
class Plan:
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
        from qpeft.simulation.explanation import explain  # noqa: PLC0415 - it explains plans, so it imports this module

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
