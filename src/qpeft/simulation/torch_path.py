"""Plans in plain torch: any device, float32 or float64, no complex tensors. The reference for the kernels.

A state is a tensor (parts, 2**num_qubits, tokens), parts being 1 while amplitudes are real and 2 (real, imaginary)
after. Layers work on the middle axis; tokens lie last, so every operation is a wide one. The costate is the adjoint
variable: sum over observables of (gradient of the value) * observable * state, taken back through the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.simulation.tables import PhaseTable, PlanTables, RotationTable, StringTable, plan_tables
from qpeft.simulation.threads import threads_for

AMPLITUDES_PER_BLOCK = {"cpu": 2**17}
"""Tokens are handled in blocks of this many amplitudes: enough to keep the device busy, few enough for its cache."""
AMPLITUDES_PER_BLOCK_ELSEWHERE = 2**24
MIN_TOKENS = 64


def values(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Expectations (tokens, num_observables) for inputs (tokens, num_inputs) and weights of one floating type.

    Args:
        circuit: that is evaluated.
        inputs: (tokens, num_inputs), radians.
        weights: (num_weights,), radians, of the same type.
    """
    with full_precision(inputs.device), threads_for(len(inputs) << circuit.num_qubits, inputs.device):
        inputs, uniform = principal(inputs), _Uniform(plan_tables(circuit, inputs.device, inputs.dtype), weights)
        return torch.cat([_Block(uniform, block).values() for block in _blocks(circuit, inputs)])


def gradients(circuit: Circuit, inputs: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Vector-Jacobian product: gradients of sum(values * grad) by inputs and by weights.

    Args:
        circuit: that is evaluated.
        inputs: (tokens, num_inputs), radians.
        weights: (num_weights,), radians, of the same type.
        grad: from above, (tokens, num_observables).
    """
    with full_precision(inputs.device), threads_for(len(inputs) << circuit.num_qubits, inputs.device):
        inputs, uniform = principal(inputs), _Uniform(plan_tables(circuit, inputs.device, inputs.dtype), weights)
        input_grads, slopes = [], torch.zeros_like(uniform.angles)
        for block, block_grad in zip(_blocks(circuit, inputs), _blocks(circuit, grad), strict=True):
            input_grads.append(_Block(uniform, block).gradients(block_grad.T, slopes))
        uniform.add_rotation_slopes(slopes)
        return torch.cat(input_grads), slopes @ uniform.tables.from_weights


def principal(angles: Tensor) -> Tensor:
    """Angles modulo 4 pi, between -2 pi and 2 pi, in their own precision however large they are.

    Sums of a large and a small angle would round the small one away. No remainder, for which 4 pi itself is rounded:
    sin and cos know pi to as many digits as the largest number needs. NaN and infinite angles become NaN.
    """
    half = 0.5 * angles
    return 2 * torch.atan2(half.sin(), half.cos())


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TensorFloat-32, which keep 3 digits: values are promised to 5."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    with torch.autocast(device.type, enabled=False):
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Has glibc keep what tensors of a block free, instead of returning it to the system after every operation.

    It does so for blocks up to the largest that was ever freed (mallopt(3), M_MMAP_THRESHOLD), so one is freed here. In
    a process that never freed one before, every second millisecond goes into page faults.
    """
    torch.empty(2**22)


def _blocks(circuit: Circuit, rows: Tensor) -> tuple[Tensor, ...]:
    _keep_freed_memory()
    amplitudes = AMPLITUDES_PER_BLOCK.get(rows.device.type, AMPLITUDES_PER_BLOCK_ELSEWHERE)
    # Large states come in narrow blocks, but not so narrow that matrix products degenerate.
    tokens = max(1, amplitudes >> circuit.num_qubits, min(MIN_TOKENS, 2**22 >> circuit.num_qubits))
    blocks: tuple[Tensor, ...] = rows.split(tokens)
    return blocks


class _Uniform:
    """What all tokens share: angles (rows,), matrices of rotations, phases, coefficients of the terms.

    `correlations` collects, for every matrix, the sum over tokens of costate times state, from which its slopes follow.
    """

    def __init__(self, tables: PlanTables, weights: Tensor) -> None:
        self.tables = tables
        self.angles = tables.constants + tables.from_weights @ principal(weights)
        self.matrices: list[list[Tensor]] = []
        self.phases: list[tuple[Tensor, Tensor] | None] = []
        for step in tables.steps:
            if isinstance(step, PhaseTable):
                self.phases.append(self._phases(step) if step.rows else None)
                self.matrices.append([])
            else:
                self.phases.append(None)
                self.matrices.append([_kronecker(0.5 * self.angles[list(rows)]) for rows in step.factors])
        self.correlations = [[torch.zeros_like(matrix) for matrix in matrices] for matrices in self.matrices]
        angles = self.angles[tables.angle_of]
        ones, cos, sin = torch.ones_like(angles), angles.cos(), angles.sin()
        choices = torch.stack([ones, cos, sin, torch.zeros_like(ones), -sin, cos])
        self.coefficients = choices.gather(0, tables.kinds[None])[0]
        self.derivatives = choices.gather(0, tables.kinds[None] + 3)[0]

    def add_rotation_slopes(self, slopes: Tensor) -> None:
        """Adds derivatives by the angles of uniform rotations."""
        for step, correlations in zip(self.tables.steps, self.correlations, strict=True):
            if isinstance(step, PhaseTable):
                continue
            for rows, correlation in zip(step.factors, correlations, strict=True):
                change = correlation - correlation.T
                for place, row in enumerate(rows):
                    blocks = change.reshape(2**place, 2, -1, 2**place, 2, change.shape[0] >> place + 1)
                    slopes[row] += torch.einsum("arar->", blocks[:, 1, :, :, 0])

    def _phases(self, step: PhaseTable) -> tuple[Tensor, Tensor]:
        """cos and sin (2**num_qubits, 1), relative to basis state 0, which makes fixed signs real."""
        exponents = -0.5 * (self.angles[step.rows] @ step.signs)
        exponents = (exponents - exponents[0])[:, None]
        return exponents.cos(), exponents.sin()


class _Block:
    """One block of tokens: token angles (token rows, tokens) and the passes."""

    def __init__(self, uniform: _Uniform, inputs: Tensor) -> None:
        self._uniform, self._tables = uniform, uniform.tables
        self._place = self._tables.place_of
        shared = uniform.angles[self._tables.token_rows][:, None]
        self._token_angles = shared + self._tables.from_inputs @ inputs.T
        half = 0.5 * self._token_angles
        self._qubit_states = torch.stack([half.cos(), half.sin()])
        self._cos, self._sin = self._qubit_states

    def values(self) -> Tensor:
        strings = self._closed_form() if self._tables.plan.is_closed_form else self._strings(self._states()[-1])
        return (self._tables.combine * self._uniform.coefficients @ strings[self._tables.string_of]).T

    def gradients(self, grad: Tensor, slopes: Tensor) -> Tensor:
        """By inputs (tokens, num_inputs), for grad (num_observables, tokens); adds those by angles to `slopes`."""
        tables, token_slopes = self._tables, torch.zeros_like(self._token_angles)
        grad_terms = tables.combine.T @ grad
        states = [] if tables.plan.is_closed_form else self._states()
        if tables.has_folded:
            strings = self._strings(states[-1]) if states else self._closed_form()
            changes = self._uniform.derivatives * (grad_terms * strings[tables.string_of]).sum(1)
            slopes.index_add_(0, tables.angle_of, changes)
        duals = grad.new_zeros(tables.num_strings, grad.shape[1])
        duals.index_add_(0, tables.string_of, self._uniform.coefficients[:, None] * grad_terms)
        if states:
            self._adjoint(states, self._costate(states[-1], duals), slopes, token_slopes)
        else:
            self._closed_form_slopes(duals, token_slopes)
        slopes[tables.token_rows] += token_slopes.sum(1)
        return token_slopes.T @ tables.from_inputs

    def _states(self) -> list[Tensor]:
        """The state before every step, in the order that the step works in, and the final one."""
        states = [self._levels[-1][None]]
        for number, step in enumerate(self._tables.steps):
            if isinstance(step, PhaseTable):
                states.append(self._apply_phases(number, step, states[-1], inverse=False))
            else:
                if step.gather is not None:
                    states[-1] = states[-1].index_select(1, step.gather)
                states.append(self._rotate(number, step, states[-1], inverse=False))
        return states

    @cached_property
    def _levels(self) -> list[Tensor]:
        """Product states of the last 0, 1, ... num_qubits qubits, (2**count, tokens)."""
        levels = [torch.ones_like(self._cos[:1])]
        for qubit in reversed(range(self._tables.plan.circuit.num_qubits)):
            levels.append((self._qubit_states[:, qubit, None] * levels[-1]).flatten(0, 1))
        return levels

    def _adjoint(self, states: list[Tensor], costate: Tensor, slopes: Tensor, token_slopes: Tensor) -> None:
        """Takes the costate back to |0>, adding derivatives by all angles on the way."""
        for number, step in reversed(list(enumerate(self._tables.steps))):
            if isinstance(step, PhaseTable):
                costate = self._apply_phases(number, step, costate, inverse=True)
                self._phase_slopes(step, states[number], costate, slopes, token_slopes)
                costate = costate[: len(states[number])]  # a real state has no use for the imaginary part
            else:
                costate = self._rotate(number, step, costate, inverse=True)
                self._rotation_slopes(number, step, states[number], costate, token_slopes)
                if step.scatter is not None:
                    costate = costate.index_select(1, step.scatter)
        rest = costate[0]
        for qubit, level in enumerate(reversed(self._levels[:-1])):
            halves = rest.unflatten(0, (2, -1))
            low, high = (halves * level).sum(1)
            token_slopes[qubit] += self._cos[qubit] * high - self._sin[qubit] * low
            rest = (halves * self._qubit_states[:, qubit, None]).sum(0)

    # Rotations

    def _factors(self, step: RotationTable, state: Tensor) -> list[tuple[tuple[int, ...], list[int]]]:
        """Angle rows of each Kronecker factor, and the shape in which it acts on axis 1."""
        parts, size, tokens = state.shape
        before = parts
        found = []
        for rows in step.factors:
            width = 2 ** len(rows)
            found.append((rows, [before, width, parts * size * tokens // (before * width)]))
            before *= width
        return found

    def _rotate(self, number: int, step: RotationTable, state: Tensor, *, inverse: bool) -> Tensor:
        shape = state.shape
        for matrix, (_, view) in zip(self._uniform.matrices[number], self._factors(step, state), strict=True):
            state = torch.matmul(matrix.T if inverse else matrix, state.reshape(view))
        state = state.reshape(shape)
        before = shape[0] * 2 ** sum(len(rows) for rows in step.factors)
        for row in step.token_rows:
            cos, sin = self._cos[self._place[row]], self._sin[self._place[row]]
            sin = -sin if inverse else sin
            low, high = state.reshape(before, 2, -1, shape[-1]).unbind(1)
            state = torch.stack([cos * low - sin * high, sin * low + cos * high], dim=1).reshape(shape)
            before *= 2
        return state

    def _rotation_slopes(
        self, number: int, step: RotationTable, state: Tensor, costate: Tensor, token_slopes: Tensor
    ) -> None:
        for place, (_, view) in enumerate(self._factors(step, state)):
            correlation = torch.matmul(costate.reshape(view), state.reshape(view).transpose(1, 2)).sum(0)
            self._uniform.correlations[number][place] += correlation
        before = state.shape[0] * 2 ** sum(len(rows) for rows in step.factors)
        for row in step.token_rows:
            low, high = state.reshape(before, 2, -1, state.shape[-1]).unbind(1)
            dual_low, dual_high = costate.reshape(before, 2, -1, state.shape[-1]).unbind(1)
            token_slopes[self._place[row]] += (dual_high * low - dual_low * high).sum((0, 1))
            before *= 2

    # Phases

    def _apply_phases(self, number: int, step: PhaseTable, state: Tensor, *, inverse: bool) -> Tensor:
        if phases := self._uniform.phases[number]:
            cos, sin = phases
            state = state * cos if step.is_real else _times(state, cos, -sin if inverse else sin)
        for row, signs in step.token:
            cos, sin = self._cos[self._place[row]], self._sin[self._place[row]]
            state = _times(state, cos, sin * (signs if inverse else -signs))
        return state

    def _phase_slopes(
        self, step: PhaseTable, state: Tensor, costate: Tensor, slopes: Tensor, token_slopes: Tensor
    ) -> None:
        if step.is_real:
            return
        products = -costate[1] * state[0]
        if len(state) == 2:
            products.addcmul_(costate[0], state[1])
        if step.rows:
            slopes[step.rows] += step.signs @ products.sum(1)
        for row, signs in step.token:
            token_slopes[self._place[row]] += (signs * products).sum(0)

    # Observables

    def _strings(self, state: Tensor) -> Tensor:
        """Expectations (strings, tokens)."""
        tables = self._tables
        rows = [tables.z_signs @ state.square().sum(0)] if len(tables.z_signs) else []
        for string in tables.strings:
            if string.flip is None and string.signs is None:
                low, high = _halves(string, state)
                rows.append(2 * (low * high).sum((0, 1))[None])
            else:
                rows.append((state * _apply_string(string, state)).sum((0, 1))[None])
        return torch.cat(rows) if rows else state.new_zeros(0, state.shape[-1])

    def _costate(self, state: Tensor, duals: Tensor) -> Tensor:
        tables = self._tables
        diagonal, others = duals[: len(tables.z_signs)], duals[len(tables.z_signs) :]
        costate = state * (tables.z_signs.T @ diagonal) if len(diagonal) else torch.zeros_like(state)
        for string, dual in zip(tables.strings, others, strict=True):
            if string.flip is None and string.signs is None:
                (low, high), (dual_low, dual_high) = _halves(string, state), _halves(string, costate)
                dual_low.addcmul_(dual, high)
                dual_high.addcmul_(dual, low)
            else:
                costate.addcmul_(dual, _apply_string(string, state))
        return costate

    def _closed_form(self) -> Tensor:
        return self._letter_factors().prod(1)

    def _letter_factors(self) -> Tensor:
        """Expectation of every letter of every string on the product state: (strings, num_qubits, tokens)."""
        angles = self._token_angles[: self._tables.plan.circuit.num_qubits]
        choices = torch.stack([torch.ones_like(angles), angles.sin(), angles.cos()])
        return choices[self._tables.letters, torch.arange(len(angles), device=angles.device)]

    def _closed_form_slopes(self, duals: Tensor, token_slopes: Tensor) -> None:
        angles = self._token_angles[: self._tables.plan.circuit.num_qubits]
        changes = torch.stack([torch.zeros_like(angles), angles.cos(), -angles.sin()])
        factors = self._letter_factors()
        for qubit, letters in enumerate(self._tables.letters.T):
            others = torch.cat([factors[:, :qubit], factors[:, qubit + 1 :]], dim=1).prod(1)
            token_slopes[qubit] += (duals * others * changes[letters, qubit]).sum(0)


def _kronecker(halves: Tensor) -> Tensor:
    """Kronecker product of rotations [[cos, -sin], [sin, cos]] by the given angles, the first most significant."""
    cos, sin = halves.cos(), halves.sin()
    matrices = torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
    product = matrices[0]
    for matrix in matrices[1:]:
        product = torch.kron(product, matrix)
    return product


def _times(state: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """State times cos + i sin, which makes a real state complex."""
    real, imag = state[0], state[-1]
    result = torch.empty(2, *real.shape, dtype=state.dtype, device=state.device)
    torch.mul(real, cos, out=result[0])
    torch.mul(real, sin, out=result[1])
    if len(state) == 2:
        result[0].addcmul_(imag, sin, value=-1)
        result[1].addcmul_(imag, cos)
    return result


def _halves(string: StringTable, state: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes (..., half, tokens) where the string's one bit reads 0, and where it reads 1."""
    low, high = state.reshape(-1, 2, string.half, state.shape[-1]).unbind(1)
    return low, high


def _apply_string(string: StringTable, state: Tensor) -> Tensor:
    """i**power times signs, then the exchange of amplitudes; an odd power needs a complex state."""
    image = state if string.signs is None else state * string.signs
    if string.power >= 2:
        image = -image
    if string.power % 2:
        image = torch.stack([-image[1], image[0]])
    if string.flip is not None:
        return image.index_select(1, string.flip)
    low, high = _halves(string, image)
    return torch.stack([high, low], dim=1).reshape(state.shape)
