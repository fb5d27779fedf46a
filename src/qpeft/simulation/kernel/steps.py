"""The steps of a program on one block of `LANES` tokens, compiled: each forwards and backwards.

Arrays are flat. A state is 2 * 2**n vectors, real parts first; `costate` is the adjoint variable of the same layout,
costate = sum over observables of (gradient of its value) * observable * state, taken back through the circuit.
Derivatives are Im <costate| G |state> for gates exp(-i angle G / 2).
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from qpeft.simulation.kernel import groups
from qpeft.simulation.kernel.lanes import LANES, load, minus_product, multiply, plus_product, splat, store
from qpeft.simulation.kernel.program import GROUP_BITS, GROUP_SIZE

inline = nb.njit(error_model="numpy", nogil=True)


@inline
def half_angles(angles, cosines, at):
    """cos and sin of half of `LANES` angles, to float32 precision, for |angle| up to 1e6.

    Cody-Waite reduction in double precision, then Taylor series on [-pi/4, pi/4]: no call and no branch, so the loop
    runs in vectors.
    """
    for lane in range(LANES):
        x = 0.5 * angles[lane]
        turns = np.floor(x * (2 / math.pi) + 0.5)
        x = (x - turns * 1.5707963267341256) - turns * 6.077100506506192e-11
        square = x * x
        sin = x * (1 + square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040 + square / 362880))))
        cos = 1 + square * (-1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * (1 / 40320 - square / 3628800))))
        # turns modulo 4: odd ones exchange cos and sin, 1 and 2 negate cos, 2 and 3 negate sin.
        odd = turns - 2 * np.floor(0.5 * turns)
        late = np.floor(0.5 * turns) - 2 * np.floor(0.25 * turns)
        flip = odd + late - 2 * odd * late
        cosines[at + lane] = (1 - 2 * flip) * (odd * sin + (1 - odd) * cos)
        cosines[at + LANES + lane] = (1 - 2 * late) * (odd * cos + (1 - odd) * sin)


@inline
def parity(value):
    value ^= value >> 32
    value ^= value >> 16
    value ^= value >> 8
    value ^= value >> 4
    value ^= value >> 2
    value ^= value >> 1
    return value & 1


@inline
def encode(levels, qubits, cosines):
    """Product state of RY rotations: levels[2**j ... 2**(j+1)] is that of the last j qubits; the last is the state."""
    store(levels, LANES, splat(nb.float32(1)))
    for level in range(qubits):
        row = 2 * (qubits - 1 - level) * LANES
        cos, sin = load(cosines, row), load(cosines, row + LANES)
        half = 1 << level
        for k in range(half):
            value = load(levels, (half + k) * LANES)
            store(levels, (2 * half + k) * LANES, multiply(value, cos))
            store(levels, (3 * half + k) * LANES, multiply(value, sin))


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
    slope = load(slopes, row * LANES)
    for p in range(size):
        a, b = p * LANES, (size + p) * LANES
        change = minus_product(multiply(load(costate, a), load(state, b)), load(costate, b), load(state, a))
        slope = plus_product(slope, change, splat(nb.float32(-1 if parity(p & mask) else 1)))
    store(slopes, row * LANES, slope)


@inline
def rotations(state, parts, size, index, groups_at, coefficients, table, swap):
    """One chunk of up to four uniform rotations."""
    for part in range(parts):
        for start in range(groups_at, groups_at + size, GROUP_SIZE):
            if swap:
                groups.rotate_swapped(state, part * size * LANES, index, start, coefficients, table, swap)
            else:
                groups.rotate(state, part * size * LANES, index, start, coefficients, table)


@inline
def token_rotations(state, parts, size, index, groups_at, table):
    for part in range(parts):
        for start in range(groups_at, groups_at + size, GROUP_SIZE):
            groups.rotate_per_token(state, part * size * LANES, index, start, table)


@inline
def rotation_slopes(state, costate, parts, size, index, groups_at, sums, sums_at):
    for part in range(parts):
        for start in range(groups_at, groups_at + size, GROUP_SIZE):
            groups.add_slopes(state, costate, part * size * LANES, index, start, sums, sums_at)


@inline
def measure(state, parts, size, index, groups_at, with_x, sums, expectations, slot):
    """Z and X of four bits into expectations[slot : slot + 8]."""
    for k in range(2 * GROUP_BITS):
        store(sums, k * LANES, splat(nb.float32(0)))
    for part in range(parts):
        for start in range(groups_at, groups_at + size, GROUP_SIZE):
            groups.add_z(state, part * size * LANES, index, start, sums)
            if with_x:
                groups.add_half_x(state, part * size * LANES, index, start, sums)
    for k in range(2 * GROUP_BITS):
        factor = splat(nb.float32(1 if k < GROUP_BITS else 2))
        store(expectations, (slot + k) * LANES, multiply(load(sums, k * LANES), factor))


@inline
def measure_backward(state, costate, parts, size, index, groups_at, with_x, table, grads, slot, is_first):
    """costate (+)= (sum of grads * Z and X of four bits) state."""
    for k in range(GROUP_SIZE):
        diagonal = splat(nb.float32(0))
        for bit in range(GROUP_BITS):
            sign = splat(nb.float32(-1 if k >> bit & 1 else 1))
            diagonal = plus_product(diagonal, load(grads, (slot + bit) * LANES), sign)
        store(table, k * LANES, diagonal)
    for bit in range(GROUP_BITS):
        store(table, (GROUP_SIZE + bit) * LANES, load(grads, (slot + GROUP_BITS + bit) * LANES))
    for part in range(parts):
        first = part * size * LANES
        for start in range(groups_at, groups_at + size, GROUP_SIZE):
            if is_first:
                if with_x:
                    groups.set_costate_zx(state, costate, first, index, start, table)
                else:
                    groups.set_costate_z(state, costate, first, index, start, table)
            elif with_x:
                groups.add_costate_zx(state, costate, first, index, start, table)
            else:
                groups.add_costate_z(state, costate, first, index, start, table)


@inline
def measure_string(state, parts, size, x, z, power, expectations, slot):
    """Expectation of i**power X**x Z**z, whatever Pauli string it is."""
    sum_ = splat(nb.float32(0))
    for p in range(size):
        left, right = p ^ x, p
        sign = splat(nb.float32(-1 if parity(p & z) ^ (power >> 1) else 1))
        if not power & 1:
            for part in range(parts):
                base = part * size
                product = multiply(load(state, (base + left) * LANES), load(state, (base + right) * LANES))
                sum_ = plus_product(sum_, product, sign)
        elif parts == 2:
            # Re(i conj(a) b) = -Im(conj(a) b); a real state gives 0.
            product = multiply(load(state, (size + left) * LANES), load(state, right * LANES))
            product = minus_product(product, load(state, left * LANES), load(state, (size + right) * LANES))
            sum_ = plus_product(sum_, product, sign)
    store(expectations, slot * LANES, sum_)


@inline
def measure_string_backward(state, costate, parts, size, x, z, power, grads, slot):
    """costate += grad * i**power X**x Z**z state."""
    grad = load(grads, slot * LANES)
    for p in range(size):
        signed = multiply(grad, splat(nb.float32(-1 if parity(p & z) ^ (power >> 1) else 1)))
        if not power & 1:
            for part in range(parts):
                to, source = (part * size + (p ^ x)) * LANES, (part * size + p) * LANES
                store(costate, to, plus_product(load(costate, to), signed, load(state, source)))
        elif parts == 2:
            real, imag = (p ^ x) * LANES, (size + (p ^ x)) * LANES
            store(costate, real, minus_product(load(costate, real), signed, load(state, (size + p) * LANES)))
            store(costate, imag, plus_product(load(costate, imag), signed, load(state, p * LANES)))


@inline
def string_factors(qubits, cosines, x, z, factors, changes):
    """Expectation of each letter of a Pauli string without Y on the product state, and its derivative by the angle.

    Z has cos(angle), X has sin(angle), from cos and sin of the half angles. Returns the number of letters; factors and
    changes hold as many vectors.
    """
    count = 0
    for qubit in range(qubits):
        bit = 1 << (qubits - 1 - qubit)
        if (x | z) & bit:
            cos, sin = load(cosines, 2 * qubit * LANES), load(cosines, (2 * qubit + 1) * LANES)
            whole_cos = minus_product(multiply(cos, cos), sin, sin)
            whole_sin = plus_product(multiply(cos, sin), cos, sin)
            if x & bit:
                store(factors, count * LANES, whole_sin)
                store(changes, count * LANES, whole_cos)
            else:
                store(factors, count * LANES, whole_cos)
                store(changes, count * LANES, multiply(whole_sin, splat(nb.float32(-1))))
            count += 1
    return count


@inline
def product_string(qubits, cosines, x, z, factors, changes):
    """Expectation of a Pauli string without Y on the product state: the product of its letters' expectations."""
    product = splat(nb.float32(1))
    for letter in range(string_factors(qubits, cosines, x, z, factors, changes)):
        product = multiply(product, load(factors, letter * LANES))
    return product


@inline
def product_string_backward(qubits, cosines, x, z, grad, factors, changes, slopes):
    """slopes[qubit] += grad * derivative of the string's expectation by the qubit's angle."""
    count = string_factors(qubits, cosines, x, z, factors, changes)
    letter = 0
    for qubit in range(qubits):
        if (x | z) & 1 << (qubits - 1 - qubit):
            change = multiply(grad, load(changes, letter * LANES))
            for other in range(count):
                if other != letter:
                    change = multiply(change, load(factors, other * LANES))
            store(slopes, qubit * LANES, plus_product(load(slopes, qubit * LANES), change, splat(nb.float32(1))))
            letter += 1
