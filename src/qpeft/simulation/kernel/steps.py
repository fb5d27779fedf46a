"""The steps of a program on one block of `LANES` tokens, compiled: each forwards and backwards.

Arrays are flat. A state is 2 * 2**n vectors, real parts first; `costate` is the adjoint variable of the same layout,
costate = sum over observables of (gradient of its value) * observable * state, taken back through the circuit.
Derivatives are Im <costate| G |state> for gates exp(-i angle G / 2).
"""
# mypy: disable-error-code="no-untyped-def"
# Types are those that numba infers.

from __future__ import annotations

import numba as nb

from qpeft.simulation.kernel import groups
from qpeft.simulation.kernel.lanes import LANES, load, minus_product, multiply, plus_product, splat, store
from qpeft.simulation.kernel.layout import (
    inline,
    parity,
)
from qpeft.simulation.kernel.program import GROUP_SIZE


@inline
def encode(levels, qubits, count, cosines):
    """Product states of RY rotations: levels[2**j ... 2**(j+1)] is that of the last j qubits, j up to `count`."""
    store(levels, LANES, splat(nb.float32(1)))
    for level in range(count):
        row = 2 * (qubits - 1 - level) * LANES
        cos, sin = load(cosines, row), load(cosines, row + LANES)
        half = 1 << level
        for k in range(half):
            value = load(levels, (half + k) * LANES)
            store(levels, (2 * half + k) * LANES, multiply(value, cos))
            store(levels, (3 * half + k) * LANES, multiply(value, sin))


@inline
def encode_with_phases(levels, state, qubits, cosines, coefficients, table):
    """Product state times phases, in one pass over the state."""
    encode(levels, qubits, qubits - 1, cosines)
    cos, sin = load(cosines, 0), load(cosines, LANES)
    half = 1 << (qubits - 1)
    size = 2 * half
    for k in range(half):
        value = load(levels, (half + k) * LANES)
        low, high = multiply(value, cos), multiply(value, sin)
        store(state, k * LANES, multiply(low, splat(coefficients[table + k])))
        store(state, (half + k) * LANES, multiply(high, splat(coefficients[table + half + k])))
        store(state, (size + k) * LANES, multiply(low, splat(coefficients[table + size + k])))
        store(state, (size + half + k) * LANES, multiply(high, splat(coefficients[table + size + half + k])))


@inline
def encode_backward(levels, costate, qubits, cosines, slopes):
    """Adds derivatives by the encoding angles; destroys the costate's real part."""
    for level in range(qubits - 1, -1, -1):
        qubit = qubits - 1 - level
        cos, sin = load(cosines, 2 * qubit * LANES), load(cosines, (2 * qubit + 1) * LANES)
        half = 1 << level
        slope = load(slopes, qubit * LANES)
        for k in range(half):
            low, high = load(costate, k * LANES), load(costate, (half + k) * LANES)
            change = minus_product(multiply(cos, high), sin, low)
            slope = plus_product(slope, load(levels, (half + k) * LANES), change)
            store(costate, k * LANES, plus_product(multiply(cos, low), sin, high))
        store(slopes, qubit * LANES, slope)


@inline
def scale(state, parts, size, coefficients, table):
    """state *= table, a real factor per basis state."""
    for p in range(size):
        factor = splat(coefficients[table + p])
        for at in range(p * LANES, parts * size * LANES, size * LANES):
            store(state, at, multiply(load(state, at), factor))


@inline
def promote(state, size, coefficients, table):
    """A real state times phases."""
    for p in range(size):
        value = load(state, p * LANES)
        store(state, p * LANES, multiply(value, splat(coefficients[table + p])))
        store(state, (size + p) * LANES, multiply(value, splat(coefficients[table + size + p])))


@inline
def phases(state, size, coefficients, table):
    """A complex state times phases."""
    for p in range(size):
        cos, sin = splat(coefficients[table + p]), splat(coefficients[table + size + p])
        real, imag = load(state, p * LANES), load(state, (size + p) * LANES)
        store(state, p * LANES, minus_product(multiply(real, cos), imag, sin))
        store(state, (size + p) * LANES, plus_product(multiply(imag, cos), real, sin))


@inline
def phases_backward(state, costate, size, coefficients, table, sums, start, real_only):
    """Both times the conjugate phases; sums[p] += Im(conj(costate) state), the derivative by the exponent of state p.

    `start` < 0 leaves the sums alone. With `real_only` the imaginary parts, no longer needed, are left undefined.
    """
    for p in range(size):
        real_at, imag_at = p * LANES, (size + p) * LANES
        cos, sin = splat(coefficients[table + p]), splat(coefficients[table + size + p])
        a, b = load(state, real_at), load(state, imag_at)
        c, d = load(costate, real_at), load(costate, imag_at)
        if start >= 0:
            slope = plus_product(load(sums, start + real_at), c, b)
            store(sums, start + real_at, minus_product(slope, d, a))
        store(state, real_at, plus_product(multiply(a, cos), b, sin))
        store(costate, real_at, plus_product(multiply(c, cos), d, sin))
        if not real_only:
            store(state, imag_at, minus_product(multiply(b, cos), a, sin))
            store(costate, imag_at, minus_product(multiply(d, cos), c, sin))


@inline
def token_phase(state, size, mask, cos, sin, sign, is_real):
    """exp(-i sign angle/2 Z..Z), the angle being the token's own."""
    plus, minus = splat(nb.float32(sign)), splat(nb.float32(-sign))
    for p in range(size):
        signed = multiply(sin, minus if parity(p & mask) else plus)
        real = load(state, p * LANES)
        if is_real:
            store(state, p * LANES, multiply(real, cos))
            store(state, (size + p) * LANES, multiply(multiply(real, signed), splat(nb.float32(-1))))
        else:
            imag = load(state, (size + p) * LANES)
            store(state, p * LANES, plus_product(multiply(real, cos), imag, signed))
            store(state, (size + p) * LANES, minus_product(multiply(imag, cos), real, signed))


@inline
def token_phase_slope(state, costate, size, mask, slopes, row):
    """Adds the derivative by the angle of a `token_phase`."""
    slope = load(slopes, row * LANES)
    for p in range(size):
        a, b = p * LANES, (size + p) * LANES
        change = minus_product(multiply(load(costate, a), load(state, b)), load(costate, b), load(state, a))
        slope = plus_product(slope, change, splat(nb.float32(-1 if parity(p & mask) else 1)))
    store(slopes, row * LANES, slope)


@inline
def rotations(state, source, first, size, index, groups_at, coefficients, table, swap):
    """One chunk of up to four uniform rotations: from the part of the state at `source` to that at `first`."""
    for start in range(groups_at, groups_at + size, GROUP_SIZE):
        if swap:
            groups.rotate_swapped(state, source, first, index, start, coefficients, table, swap)
        else:
            groups.rotate(state, source, first, index, start, coefficients, table)


@inline
def token_rotations(state, source, first, size, index, groups_at, table):
    """One chunk of four rotations by the tokens' own angles: 4 vectors of cos, then 4 of sin in `table`."""
    for start in range(groups_at, groups_at + size, GROUP_SIZE):
        groups.rotate_per_token(state, source, first, index, start, table)


@inline
def rotation_slopes(state, costate, first, size, index, groups_at, sums, sums_at):
    """Adds derivatives by the four angles of a chunk, state and costate being in front of it."""
    for start in range(groups_at, groups_at + size, GROUP_SIZE):
        groups.add_slopes(state, costate, first, index, start, sums, sums_at)
