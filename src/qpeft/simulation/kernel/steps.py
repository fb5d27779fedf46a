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
    """Product states of RY rotations: levels[2**j ... 2**(j+1)] is that of the last j qubits, j up to `count`.

    Args:
        levels: workspace of product states: level j begins at vector 2**j.
        qubits: of the state.
        count: levels to make.
        cosines: cos and sin of half the encoding angles, two vectors each.
    """
    store(levels, LANES, splat(nb.float32(1)))
    # Each qubit doubles the state: its cos on the half with bit 0, its sin on the half with bit 1. The last qubit comes
    # first, so that qubit 0 ends as the most significant bit.
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
    """Product state times phases, in one pass over the state.

    Args:
        levels: workspace of product states: level j begins at vector 2**j.
        state: amplitudes, a vector of tokens each; all real parts first.
        qubits: of the state.
        cosines: cos and sin of half the encoding angles, two vectors each.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        table: where the step's table begins in `coefficients`.
    """
    encode(levels, qubits, qubits - 1, cosines)
    cos, sin = load(cosines, 0), load(cosines, LANES)
    half = 1 << (qubits - 1)
    size = 2 * half
    # The last doubling is done here together with the phases, which saves a pass over the state.
    for k in range(half):
        value = load(levels, (half + k) * LANES)
        low, high = multiply(value, cos), multiply(value, sin)
        store(state, k * LANES, multiply(low, splat(coefficients[table + k])))
        store(state, (half + k) * LANES, multiply(high, splat(coefficients[table + half + k])))
        store(state, (size + k) * LANES, multiply(low, splat(coefficients[table + size + k])))
        store(state, (size + half + k) * LANES, multiply(high, splat(coefficients[table + size + half + k])))


@inline
def encode_backward(levels, costate, qubits, cosines, slopes):
    """Adds derivatives by the encoding angles; destroys the costate's real part.

    Args:
        levels: workspace of product states: level j begins at vector 2**j.
        costate: adjoint of the state, laid out like it.
        qubits: of the state.
        cosines: cos and sin of half the encoding angles, two vectors each.
        slopes: derivatives by the encoding or lane rows' angles, a vector each.
    """
    # From qubit 0 down: d/d(angle) of (cos, sin) is (-sin, cos) / 2, whose half is in the costate's convention.
    # Contracting the costate with the qubit's own state then leaves that of the qubits behind it.
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
    """state *= table, a real factor per basis state.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        parts: 1 for a real state, 2 for a complex one.
        size: amplitudes of the state.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        table: where the step's table begins in `coefficients`.
    """
    for p in range(size):
        factor = splat(coefficients[table + p])
        for at in range(p * LANES, parts * size * LANES, size * LANES):
            store(state, at, multiply(load(state, at), factor))


@inline
def promote(state, size, coefficients, table):
    """A real state times phases.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        size: amplitudes of the state.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        table: where the step's table begins in `coefficients`.
    """
    for p in range(size):
        value = load(state, p * LANES)
        store(state, p * LANES, multiply(value, splat(coefficients[table + p])))
        store(state, (size + p) * LANES, multiply(value, splat(coefficients[table + size + p])))


@inline
def phases(state, size, coefficients, table):
    """A complex state times phases.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        size: amplitudes of the state.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        table: where the step's table begins in `coefficients`.
    """
    for p in range(size):
        cos, sin = splat(coefficients[table + p]), splat(coefficients[table + size + p])
        real, imag = load(state, p * LANES), load(state, (size + p) * LANES)
        store(state, p * LANES, minus_product(multiply(real, cos), imag, sin))
        store(state, (size + p) * LANES, plus_product(multiply(imag, cos), real, sin))


@inline
def phases_backward(state, costate, size, coefficients, table, sums, start, real_only):
    """Both times the conjugate phases; sums[p] += Im(conj(costate) state), the derivative by the exponent of state p.

    `start` < 0 leaves the sums alone. With `real_only` the imaginary parts, no longer needed, are left undefined.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        size: amplitudes of the state.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        table: where the step's table begins in `coefficients`.
        sums: derivatives, a vector each.
        start: where the step's sums begin in `sums`; below 0 for none.
        real_only: whether imaginary parts are left undefined, being of no use any more.
    """
    for p in range(size):
        real_at, imag_at = p * LANES, (size + p) * LANES
        cos, sin = splat(coefficients[table + p]), splat(coefficients[table + size + p])
        a, b = load(state, real_at), load(state, imag_at)
        c, d = load(costate, real_at), load(costate, imag_at)
        # Im(conj(costate) state) per basis state; a Walsh-Hadamard transform in `weights.finish` makes slopes of it.
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
    """exp(-i sign angle/2 Z..Z), the angle being the token's own.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        size: amplitudes of the state.
        mask: bits whose Z the phase acts on.
        cos: of half the angle, a vector.
        sin: of half the angle, a vector.
        sign: 1 forwards, -1 backwards.
        is_real: whether the state is real so far.
    """
    plus, minus = splat(nb.float32(sign)), splat(nb.float32(-sign))
    for p in range(size):
        # Z..Z is the parity of the chosen bits, so the phase turns one way or the other.
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
    """Adds the derivative by the angle of a `token_phase`.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        size: amplitudes of the state.
        mask: bits whose Z the phase acts on.
        slopes: derivatives by the encoding or lane rows' angles, a vector each.
        row: lane row of the angle.
    """
    slope = load(slopes, row * LANES)
    for p in range(size):
        a, b = p * LANES, (size + p) * LANES
        change = minus_product(multiply(load(costate, a), load(state, b)), load(costate, b), load(state, a))
        slope = plus_product(slope, change, splat(nb.float32(-1 if parity(p & mask) else 1)))
    store(slopes, row * LANES, slope)


@inline
def rotations(state, source, first, size, index, groups_at, coefficients, table, swap):
    """One chunk of up to four uniform rotations: from the part of the state at `source` to that at `first`.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        source: where it is read, in float32.
        first: where the part begins that is written, in float32.
        size: amplitudes of the state.
        index: positions of amplitudes, 16 to a group.
        groups_at: where the groups of these bits begin in `index`.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        table: where the step's table begins in `coefficients`.
        swap: bits of the chunk that turn by pi first.
    """
    for start in range(groups_at, groups_at + size, GROUP_SIZE):
        if swap:
            groups.rotate_swapped(state, source, first, index, start, coefficients, table, swap)
        else:
            groups.rotate(state, source, first, index, start, coefficients, table)


@inline
def token_rotations(state, source, first, size, index, groups_at, table):
    """One chunk of four rotations by the tokens' own angles: 4 vectors of cos, then 4 of sin in `table`.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        source: where it is read, in float32.
        first: where the part begins that is written, in float32.
        size: amplitudes of the state.
        index: positions of amplitudes, 16 to a group.
        groups_at: where the groups of these bits begin in `index`.
        table: where the step's table begins in `coefficients`.
    """
    for start in range(groups_at, groups_at + size, GROUP_SIZE):
        groups.rotate_per_token(state, source, first, index, start, table)


@inline
def rotation_slopes(state, costate, first, size, index, groups_at, sums, sums_at):
    """Adds derivatives by the four angles of a chunk, state and costate being in front of it.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        first: where the part begins that is written, in float32.
        size: amplitudes of the state.
        index: positions of amplitudes, 16 to a group.
        groups_at: where the groups of these bits begin in `index`.
        sums: derivatives, a vector each.
        sums_at: where the chunk's sums begin in `sums`, in float32.
    """
    for start in range(groups_at, groups_at + size, GROUP_SIZE):
        groups.add_slopes(state, costate, first, index, start, sums, sums_at)
