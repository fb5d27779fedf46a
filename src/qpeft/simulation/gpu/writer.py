"""What both kernels of a circuit have in common: the pass from |0> to the expectations, written line by line.

A circuit's steps become straight lines of code, because Triton keeps a tensor in registers only if all of its indices
are known when it compiles. Names: r, i real and imaginary part of the state; cN, sN cosine and sine of half the angle
of row N; zN the sign by bit N; p, q cosines and sines of a layer's phases; eN expectation of string N, (T,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import reduce

from qpeft.simulation.gpu.layout import Layout
from qpeft.simulation.paulis import Pauli
from qpeft.simulation.plan import PhaseLayer, RotationLayer, SimulationPlan


class AbstractWriter(ABC):
    """Writes one kernel of a plan, for blocks of `tokens` tokens."""

    def __init__(self, plan: SimulationPlan, layout: Layout, tokens: int) -> None:
        self._plan, self._layout, self._tokens = plan, layout, tokens
        self._circuit, self._qubits = plan.circuit, plan.circuit.num_qubits
        self._strings = _distinct_strings(plan)
        self._lines: list[str] = []
        self._is_complex = False

    @abstractmethod
    def lines(self) -> list[str]:
        """The kernel's lines, from its decorator on."""

    # Small pieces

    def _add(self, line: str) -> None:
        self._lines.append("    " + line)

    def _parts(self, *names: str) -> Iterator[tuple[str, ...]]:
        """Names of real parts, then of imaginary parts if the state is complex."""
        yield names
        if self._is_complex:
            yield tuple({"r": "i", "u": "v"}[name] for name in names)

    def _axes(self, mask: int) -> list[int]:
        return [axis for axis in range(self._qubits) if mask >> (self._qubits - 1 - axis) & 1]

    def _sign(self, mask: int) -> str:
        return " * ".join(f"z{axis}" for axis in self._axes(mask)) or "1.0"

    def _exchanged(self, name: str, mask: int) -> str:
        return reduce(lambda text, axis: f"exchanged({text}, {axis})", self._axes(mask), name)

    def _inputs(self) -> list[int]:
        """Columns of the inputs that some angle reads."""
        return sorted({index for row in self._layout.rows for index, _ in row.inputs})

    def _angle(self, row: int) -> tuple[str, str]:
        """Names of cos and sin of a row's half angle, loaded or computed here."""
        angle = self._layout.rows[row]
        if not angle.inputs:
            self._add(f"c{row}, s{row} = tl.load(table + {2 * row}), tl.load(table + {2 * row + 1})")
        return f"c{row}", f"s{row}"

    # Forwards

    def _begin(self) -> None:
        qubits = self._qubits
        self._is_complex = False
        self._add(f"T: tl.constexpr = {self._tokens}")
        self._add(f"N: tl.constexpr = {2**qubits}")
        self._add("tokens = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)")
        self._add("inside = tokens < count")
        axes = [] if self._plan.is_closed_form else [1] * qubits
        self._add(f"lanes = tl.reshape(tokens, {[*axes, self._tokens]})")
        for index in self._inputs():
            place = f"inputs + lanes * {self._circuit.num_inputs} + {index}"
            self._add(f"x{index} = tl.load({place}, mask=lanes < count, other=0.0).to(tl.float64)")
        for row, angle in enumerate(self._layout.rows):
            if angle.inputs:
                parts = [f"{float(0.5 * coefficient)!r} * x{index}" for index, coefficient in angle.inputs]
                self._add(f"c{row}, s{row} = cos_and_sin(tl.load(shared + {row}) + {' + '.join(parts)})")
        if not self._plan.is_closed_form:
            for axis in range(qubits):
                self._add(f"z{axis} = sign({axis}, {qubits + 1})")
            if any(first >= 0 for first in self._layout.phases):
                places = [f"bit({axis}, {qubits + 1}) * {2 ** (qubits - axis)}" for axis in range(qubits)]
                self._add(f"places = {' + '.join(places)} + lanes.to(tl.int32) * 0")

    def _run(self) -> None:
        """From |0> to the final state."""
        self._encode()
        if self._plan.is_closed_form:
            return
        row = self._qubits
        for number, layer in enumerate(self._plan.layers):
            if isinstance(layer, RotationLayer):
                for rotation in layer.rotations:
                    c, s = self._angle(row)
                    for (part,) in self._parts("r"):
                        self._rotate(part, rotation.direction, rotation.row, c, s)
                    row += 1
            else:
                self._phases(number, row)
                row += len(layer.terms)

    def _encode(self) -> None:
        for qubit in range(self._qubits):
            self._angle(qubit)
        if not self._plan.is_closed_form:
            shape = [2] * self._qubits + [self._tokens]
            self._add(f"r = tl.full({shape}, 1.0, tl.float32)")
            for qubit in range(self._qubits):
                self._add(f"r = r * tl.where(bit({qubit}, {self._qubits + 1}) == 0, c{qubit}, s{qubit})")

    def _rotate(self, part: str, direction: int, row: int, c: str, s: str) -> None:
        self._add(f"{part} = {c} * {part} - {s} * {self._sign(row)} * {self._exchanged(part, direction)}")

    def _phases(self, number: int, row: int) -> None:
        layer, first = self._plan.layers[number], self._layout.phases[number]
        assert isinstance(layer, PhaseLayer)
        if first >= 0:
            self._load_phases(number)
            if number < self._plan.complex_from:
                self._add("r = r * p")
            else:
                self._turn("r", "i", "p", "q")
        for place, (mask, angle) in enumerate(layer.terms):
            if angle.inputs:
                self._add(f"q = -s{row + place} * {self._sign(mask)}")
                self._turn("r", "i", f"c{row + place}", "q")

    def _load_phases(self, number: int) -> None:
        at = 2 * self._layout.phases[number]
        self._add(f"p = tl.load(table + {at} + places)")
        if number >= self._plan.complex_from:
            self._add(f"q = tl.load(table + {at + 1} + places)")

    def _turn(self, real: str, imag: str, cos: str, sin: str) -> None:
        """Multiplies by cos + i sin."""
        if self._is_complex:
            self._add(f"{real}, {imag} = {real} * {cos} - {imag} * {sin}, {imag} * {cos} + {real} * {sin}")
        else:
            self._add(f"{real}, {imag} = {real} * {cos}, {real} * {sin}")
            self._is_complex = True

    # Observables

    def _slot(self, term: int) -> int:
        pauli = self._plan.terms[term].pauli
        return next(k for k, string in enumerate(self._strings) if (string.x, string.z) == (pauli.x, pauli.z))

    def _term_row(self, term: int) -> int:
        return len(self._layout.rows) - len(self._plan.terms) + term

    def _coefficient(self, term: int, *, derivative: bool = False) -> str:
        """What stands before a term's string: its sign times 1, cos or sin of its angle; or that by the angle."""
        what = self._plan.terms[term]
        if what.angle is None:
            return f"{what.pauli.sign}"
        at = 2 * self._term_row(term)
        use_sin = what.use_sin != derivative
        sign = what.pauli.sign * (-1 if derivative and not what.use_sin else 1)
        return f"{sign} * tl.load(table + {at + use_sin})"

    def _measure(self) -> None:
        """e0, e1, ...: expectations of the strings, (T,)."""
        if self._plan.is_closed_form:
            self._measure_product()
            return
        strings = self._strings
        if any(not string.x for string in strings):
            self._add("m = " + " + ".join(f"{part} * {part}" for (part,) in self._parts("r")))
        flipped = -1
        for slot, string in enumerate(strings):
            if string.x and string.x != flipped:
                flipped = string.x
                for (part,) in self._parts("r"):
                    self._add(f"x{part} = {self._exchanged(part, string.x)}")
            product = "m"
            if string.x:
                product = "(xr * r + xi * i)" if self._is_complex else "xr * r"
            if string.power % 2:
                product = "(xi * r - xr * i)"
            sign = -1.0 if string.power >= 2 else 1.0
            self._add(f"e{slot} = per_token({product} * {self._sign(string.z)} * {sign}, N, T)")

    def _measure_product(self) -> None:
        for slot, string in enumerate(self._strings):
            factors = [name for _, name, _ in self._letters(string)]
            self._add(f"e{slot} = tl.zeros([T], tl.float32) + {' * '.join(factors) or '1.0'}")

    def _letters(self, string: Pauli) -> list[tuple[int, str, str]]:
        """Qubit, expectation and its derivative by the angle, of every letter of a string on a real product state."""
        found = []
        for qubit in self._axes(string.x | string.z):
            cos = f"(c{qubit} * c{qubit} - s{qubit} * s{qubit})"
            sin = f"(2 * c{qubit} * s{qubit})"
            is_x, is_z = (qubit in self._axes(mask) for mask in (string.x, string.z))
            value, slope = ("0.0", "0.0") if is_x and is_z else (sin, cos) if is_x else (cos, f"-{sin}")
            found.append((qubit, value, slope))
        return found


def _distinct_strings(plan: SimulationPlan) -> list[Pauli]:
    """Pauli strings of the terms, without their signs."""
    strings = (Pauli(t.pauli.x, t.pauli.z, (t.pauli.x & t.pauli.z).bit_count() % 4) for t in plan.terms)
    return list(dict.fromkeys(strings))
