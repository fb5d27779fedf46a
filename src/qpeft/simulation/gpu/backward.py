"""The kernel backwards: recomputes the final state, then takes it and the costate back to |0>.

The costate is the sum over observables of (gradient of the value) * observable * state. Derivatives by the angle of
exp(-i angle G / 2) are Im <costate| G |state>. Names as in `writer`, and: u, v real and imaginary part of the costate;
hN gradient of value N; dN that of the expectation of string N; gN gradient of input N, (T,).
"""

from __future__ import annotations

from qpeft.simulation.gpu.writer import AbstractWriter
from qpeft.simulation.paulis import parity
from qpeft.simulation.plan import PhaseLayer, RotationLayer


class BackwardWriter(AbstractWriter):
    """Writes `backward(inputs, shared, table, grads, input_grads, partials, count)`.

    `partials` has one row per program, with the derivative by each of the layout's angles, of what tokens share of it.
    """

    def lines(self) -> list[str]:
        self._lines = ["@launched", "def backward(inputs, shared, table, grads, input_grads, partials, count):"]
        self._begin()
        self._add(f"partials += tl.program_id(0).to(tl.int64) * {len(self._layout.rows)}")
        self._run()
        self._duals()
        self._costate()
        for number in reversed(range(len(self._plan.layers))):
            self._layer_backward(number)
        self._encoding_slopes()
        for index in self._inputs():
            place = f"input_grads + tokens * {self._circuit.num_inputs} + {index}"
            self._add(f"tl.store({place}, g{index}, mask=inside)")
        return self._lines

    def _duals(self) -> None:
        """d0, d1, ...: derivative of the loss by each string; adds the slopes of folded rotations."""
        observables = self._circuit.num_observables
        for index in self._inputs():
            self._add(f"g{index} = tl.zeros([T], tl.float32)")
        if any(term.angle is not None and term.angle.weights for term in self._plan.terms):
            self._measure()
        for observable in range(observables):
            place = f"grads + lanes * {observables} + {observable}"
            self._add(f"h{observable} = tl.load({place}, mask=lanes < count, other=0.0)")
        for slot in range(len(self._strings)):
            terms = [k for k in range(len(self._plan.terms)) if self._slot(k) == slot]
            parts = [f"{self._coefficient(k)} * h{self._plan.terms[k].observable}" for k in terms]
            self._add(f"d{slot} = {' + '.join(parts)}")
        for k, term in enumerate(self._plan.terms):
            if term.angle is not None and term.angle.weights:
                grad = f"tl.reshape(h{term.observable}, [T])"
                product = f"{self._coefficient(k, derivative=True)} * {grad} * e{self._slot(k)}"
                self._add(f"tl.store(partials + {self._term_row(k)}, tl.sum({product}, 0))")

    def _costate(self) -> None:
        if self._plan.is_closed_form:
            return
        strings = list(enumerate(self._strings))
        diagonal = [f"d{slot} * {self._sign(string.z)}" for slot, string in strings if not string.x]
        for state, costate in (("r", "u"), ("i", "v"))[: 1 + self._is_complex]:
            self._add(f"{costate} = {state} * ({' + '.join(diagonal) or '0.0'})")
        flipped = -1
        for slot, string in strings:
            if not string.x:
                continue
            if string.x != flipped:
                flipped = string.x
                for (part,) in self._parts("r"):
                    self._add(f"x{part} = {self._exchanged(part, string.x)}")
            sign = -1.0 if (string.power >= 2) != bool(parity(string.x & string.z)) else 1.0
            self._add(f"w = {sign} * d{slot} * {self._sign(string.z)}")
            if string.power % 2:
                self._add("u, v = u - w * xi, v + w * xr")
            else:
                for part, costate in (("r", "u"), ("i", "v"))[: 1 + self._is_complex]:
                    self._add(f"{costate} += w * x{part}")

    def _layer_backward(self, number: int) -> None:
        layer = self._plan.layers[number]
        row = self._qubits + sum(_num_angles(before) for before in self._plan.layers[:number])
        if isinstance(layer, PhaseLayer):
            self._phases_backward(number, row)
            return
        for place, rotation in enumerate(layer.rotations):
            c, s = self._angle(row + place)
            sign = self._sign(rotation.row)
            for (part,) in self._parts("r"):
                self._add(f"x{part} = {self._exchanged(part, rotation.direction)}")
            product = "(u * xr + v * xi)" if self._is_complex else "(u * xr)"
            self._slope(row + place, f"-{sign} * {product}")
            for part, costate in self._parts("r", "u"):
                self._add(f"{part} = {c} * {part} + {s} * {sign} * x{part}")
                other = self._exchanged(costate, rotation.direction)
                self._add(f"{costate} = {c} * {costate} + {s} * {sign} * {other}")

    def _phases_backward(self, number: int, row: int) -> None:
        layer = self._plan.layers[number]
        assert isinstance(layer, PhaseLayer)
        uniform = self._layout.phases[number] >= 0
        if uniform:
            self._load_phases(number)
        if number < self._plan.complex_from:
            self._add("r, u = r * p, u * p")
            return
        self._add("k = u * i - v * r")
        for place, (mask, _) in enumerate(layer.terms):
            self._slope(row + place, f"k * {self._sign(mask)}")
        if uniform:
            self._add("q = -q")
            self._turn("r", "i", "p", "q")
            self._turn("u", "v", "p", "q")
        for place, (mask, angle) in enumerate(layer.terms):
            if angle.inputs:
                self._add(f"q = s{row + place} * {self._sign(mask)}")
                self._turn("r", "i", f"c{row + place}", "q")
                self._turn("u", "v", f"c{row + place}", "q")
        self._is_complex = number > self._plan.complex_from

    def _slope(self, row: int, product: str) -> None:
        """Sums a derivative by an angle, given per amplitude, for the inputs and weights that the angle reads."""
        angle = self._layout.rows[row]
        if angle.inputs:
            self._add(f"w = per_token({product}, N, T)")
            self._token_slope(row, "w")
        elif angle.weights:
            self._add(f"tl.store(partials + {row}, over_all({product}, N * T))")

    def _token_slope(self, row: int, slope: str) -> None:
        angle = self._layout.rows[row]
        for index, coefficient in angle.inputs:
            self._add(f"g{index} += {float(coefficient)!r} * {slope}")
        if angle.weights:
            self._add(f"tl.store(partials + {row}, tl.sum({slope}, 0))")

    def _encoding_slopes(self) -> None:
        if self._plan.is_closed_form:
            self._product_slopes()
            return
        for qubit in range(self._qubits):
            self._slope(qubit, f"-z{qubit} * (u * exchanged(r, {qubit}))")

    def _product_slopes(self) -> None:
        for qubit in range(self._qubits):
            angle = self._layout.rows[qubit]
            if angle.is_constant:
                continue
            parts = []
            for slot, string in enumerate(self._strings):
                letters = self._letters(string)
                factors = [slope if place == qubit else value for place, value, slope in letters]
                if any(place == qubit for place, _, _ in letters):
                    parts.append(f"d{slot} * {' * '.join(factors)}")
            self._add(f"w = tl.zeros([T], tl.float32) + {' + '.join(parts) or '0.0'}")
            self._token_slope(qubit, "w")


def _num_angles(layer: RotationLayer | PhaseLayer) -> int:
    return len(layer.terms) if isinstance(layer, PhaseLayer) else len(layer.rotations)
