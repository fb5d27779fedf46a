"""Expectations of Pauli strings on one block of tokens, and the costate they give, compiled."""
# mypy: disable-error-code="no-untyped-def"
# Types are those that numba infers.

from __future__ import annotations

import numba as nb

from qpeft.simulation.kernel import groups
from qpeft.simulation.kernel.lanes import LANES, load, minus_product, multiply, plus_product, splat, store
from qpeft.simulation.kernel.layout import (
    COMBINATIONS,
    MEASURED,
    NUM_EXPECTATIONS,
    STATE_QUBITS,
    STRINGS,
    inline,
    parity,
    row_of,
)
from qpeft.simulation.kernel.program import GROUP_BITS, GROUP_SIZE


@inline
def outer_sign(code, group, bit):
    """Sign of the measured bit 4 + `bit` throughout a group of the first row.

    Args:
        code: the program as integers, see `KernelProgram`.
        group: number of the group.
        bit: of the group's number.
    """
    return splat(nb.float32(-1 if group >> (code[STATE_QUBITS] - GROUP_BITS - 1 - bit) & 1 else 1))


@inline
def measure_z(code, index, state, parts, expectations):
    """Z of all measured bits, in one pass: four of them within groups, the others from the groups' norms.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        state: amplitudes, a vector of tokens each; all real parts first.
        parts: 1 for a real state, 2 for a complex one.
        expectations: of the measured strings, a vector each.
    """
    size, rows = 1 << code[STATE_QUBITS], code[2 * MEASURED + 1]
    for k in range(rows):
        for bit in range(GROUP_BITS):
            store(expectations, (2 * GROUP_BITS * k + bit) * LANES, splat(nb.float32(0)))
    # Within a group four bits vary and all others stand still, so the others' Z is the norm of the group with a sign.
    for group in range(size // GROUP_SIZE):
        start = code[row_of(code, MEASURED, 0)] + group * GROUP_SIZE
        if parts == 2:
            norm = groups.add_z_complex(state, size * LANES, index, start, expectations)
        else:
            norm = groups.add_z_real(state, size * LANES, index, start, expectations)
        for k in range(1, rows):
            for bit in range(code[row_of(code, MEASURED, k) + 2]):
                slot = (2 * GROUP_BITS * k + bit) * LANES
                sign = outer_sign(code, group, GROUP_BITS * (k - 1) + bit)
                store(expectations, slot, plus_product(load(expectations, slot), norm, sign))


@inline
def measure_x(state, parts, size, index, groups_at, expectations, slot):
    """X of four bits into expectations[slot : slot + 4].

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        parts: 1 for a real state, 2 for a complex one.
        size: amplitudes of the state.
        index: positions of amplitudes, 16 to a group.
        groups_at: where the groups of these bits begin in `index`.
        expectations: of the measured strings, a vector each.
        slot: first vector of the result.
    """
    for bit in range(GROUP_BITS):
        store(expectations, (slot + bit) * LANES, splat(nb.float32(0)))
    for part in range(parts):
        for start in range(groups_at, groups_at + size, GROUP_SIZE):
            groups.add_half_x(state, part * size * LANES, index, start, expectations, slot * LANES)
    for bit in range(GROUP_BITS):
        at = (slot + bit) * LANES
        store(expectations, at, multiply(load(expectations, at), splat(nb.float32(2))))


@inline
def measure_z_backward(code, index, state, costate, parts, table, duals):
    """costate = (sum of duals * Z of all measured bits, and X of those of the first row) state.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        parts: 1 for a real state, 2 for a complex one.
        table: workspace of 32 vectors.
        duals: derivatives by the measured expectations, a vector each.
    """
    size, first_row = 1 << code[STATE_QUBITS], row_of(code, MEASURED, 0)
    # Sum of duals * Z over the four bits, once for each of the 16 places within a group.
    for k in range(GROUP_SIZE):
        diagonal = splat(nb.float32(0))
        for bit in range(GROUP_BITS):
            sign = splat(nb.float32(-1 if k >> bit & 1 else 1))
            diagonal = plus_product(diagonal, load(duals, bit * LANES), sign)
        store(table, k * LANES, diagonal)
    for bit in range(GROUP_BITS):
        store(table, (GROUP_SIZE + bit) * LANES, load(duals, (GROUP_BITS + bit) * LANES))
    for group in range(size // GROUP_SIZE):
        start = code[first_row] + group * GROUP_SIZE
        shift = splat(nb.float32(0))
        for k in range(1, code[2 * MEASURED + 1]):
            for bit in range(code[row_of(code, MEASURED, k) + 2]):
                sign = outer_sign(code, group, GROUP_BITS * (k - 1) + bit)
                shift = plus_product(shift, load(duals, (2 * GROUP_BITS * k + bit) * LANES), sign)
        for part in range(parts):
            if code[first_row + 1]:
                groups.set_costate_zx(state, costate, part * size * LANES, index, start, table, shift)
            else:
                groups.set_costate_z(state, costate, part * size * LANES, index, start, table, shift)


@inline
def measure_x_backward(state, costate, parts, size, index, groups_at, table, duals, slot):
    """costate += (sum of duals * X of four bits) state.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        parts: 1 for a real state, 2 for a complex one.
        size: amplitudes of the state.
        index: positions of amplitudes, 16 to a group.
        groups_at: where the groups of these bits begin in `index`.
        table: workspace of 32 vectors.
        duals: derivatives by the measured expectations, a vector each.
        slot: first vector of the result.
    """
    for bit in range(GROUP_BITS):
        store(table, (GROUP_SIZE + bit) * LANES, load(duals, (slot + bit) * LANES))
    for part in range(parts):
        for start in range(groups_at, groups_at + size, GROUP_SIZE):
            zero = splat(nb.float32(0))
            groups.add_costate_x(state, costate, part * size * LANES, index, start, table, zero)


@inline
def measure_string(state, parts, size, x, z, power, expectations, slot):
    """Expectation of i**power X**x Z**z, whatever Pauli string it is.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        parts: 1 for a real state, 2 for a complex one.
        size: amplitudes of the state.
        x: bits of the letters X and Y.
        z: bits of the letters Z and Y.
        power: of i before the string, modulo 4.
        expectations: of the measured strings, a vector each.
        slot: first vector of the result.
    """
    sum_ = splat(nb.float32(0))
    for p in range(size):
        # <state| i**power X**x Z**z |state>: Z gives the sign of the parity, X moves p to p ^ x.
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
    """costate += grad * i**power X**x Z**z state.

    Args:
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        parts: 1 for a real state, 2 for a complex one.
        size: amplitudes of the state.
        x: bits of the letters X and Y.
        z: bits of the letters Z and Y.
        power: of i before the string, modulo 4.
        grads: from above; for one string the vectors of the duals.
        slot: first vector of the result.
    """
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

    Args:
        qubits: of the state.
        cosines: cos and sin of half the encoding angles, two vectors each.
        x: bits of the letters X and Y.
        z: bits of the letters Z and Y.
        factors: workspace: expectations of single letters.
        changes: workspace: their derivatives by the angle.
    """
    count = 0
    for qubit in range(qubits):
        bit = 1 << (qubits - 1 - qubit)
        if (x | z) & bit:
            cos, sin = load(cosines, 2 * qubit * LANES), load(cosines, (2 * qubit + 1) * LANES)
            # The double-angle formulas: cosines hold the half angles.
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
    """Expectation of a Pauli string without Y on the product state: the product of its letters' expectations.

    Args:
        qubits: of the state.
        cosines: cos and sin of half the encoding angles, two vectors each.
        x: bits of the letters X and Y.
        z: bits of the letters Z and Y.
        factors: workspace: expectations of single letters.
        changes: workspace: their derivatives by the angle.
    """
    product = splat(nb.float32(1))
    for letter in range(string_factors(qubits, cosines, x, z, factors, changes)):
        product = multiply(product, load(factors, letter * LANES))
    return product


@inline
def product_string_backward(qubits, cosines, x, z, grad, factors, changes, slopes):
    """slopes[qubit] += grad * derivative of the string's expectation by the qubit's angle.

    Args:
        qubits: of the state.
        cosines: cos and sin of half the encoding angles, two vectors each.
        x: bits of the letters X and Y.
        z: bits of the letters Z and Y.
        grad: vector, from above.
        factors: workspace: expectations of single letters.
        changes: workspace: their derivatives by the angle.
        slopes: derivatives by the lane rows' angles, a vector each.
    """
    count = string_factors(qubits, cosines, x, z, factors, changes)
    letter = 0
    for qubit in range(qubits):
        if (x | z) & 1 << (qubits - 1 - qubit):
            change = multiply(grad, load(changes, letter * LANES))
            # Not the product divided by the letter's factor, which may be zero.
            for other in range(count):
                if other != letter:
                    change = multiply(change, load(factors, other * LANES))
            store(slopes, qubit * LANES, plus_product(load(slopes, qubit * LANES), change, splat(nb.float32(1))))
            letter += 1


@inline
def measure(code, index, state, parts, expectations):
    """Expectations of all measured Pauli strings, one vector each.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        state: amplitudes, a vector of tokens each; all real parts first.
        parts: 1 for a real state, 2 for a complex one.
        expectations: of the measured strings, a vector each.
    """
    size = 1 << code[STATE_QUBITS]
    if code[2 * MEASURED + 1]:
        measure_z(code, index, state, parts, expectations)
    for k in range(code[2 * MEASURED + 1]):
        row = row_of(code, MEASURED, k)
        if code[row + 1]:
            measure_x(state, parts, size, index, code[row], expectations, 2 * GROUP_BITS * k + GROUP_BITS)
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        slot = 2 * GROUP_BITS * code[2 * MEASURED + 1] + k
        measure_string(state, parts, size, code[row], code[row + 1], code[row + 2], expectations, slot)


@inline
def measure_product(code, cosines, factors, expectations):
    """As `measure`, for circuits in closed form: the state is never built.

    Args:
        code: the program as integers, see `KernelProgram`.
        cosines: cos and sin of half the encoding angles, two vectors each.
        factors: workspace: expectations of single letters.
        expectations: of the measured strings, a vector each.
    """
    changes = factors[code[STATE_QUBITS] * LANES :]
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        x, z = code[row], code[row + 1]
        store(expectations, k * LANES, product_string(code[STATE_QUBITS], cosines, x, z, factors, changes))


@inline
def slopes_of_product(code, cosines, factors, duals, slopes):
    """Derivatives by the encoding angles, for circuits in closed form.

    Args:
        code: the program as integers, see `KernelProgram`.
        cosines: cos and sin of half the encoding angles, two vectors each.
        factors: workspace: expectations of single letters.
        duals: derivatives by the measured expectations, a vector each.
        slopes: derivatives by the lane rows' angles, a vector each.
    """
    changes = factors[code[STATE_QUBITS] * LANES :]
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        x, z, dual = code[row], code[row + 1], load(duals, k * LANES)
        product_string_backward(code[STATE_QUBITS], cosines, x, z, dual, factors, changes, slopes)


@inline
def dual_expectations(code, coefficients, grads, start, count, expectations, duals, table, sums):
    """duals: derivative of the loss by every measured expectation; adds to the sums of folded angles.

    Args:
        code: the program as integers, see `KernelProgram`.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        grads: from above; for one string the vectors of the duals.
        start: first token of the block.
        count: tokens of the block, at most `LANES`.
        expectations: of the measured strings, a vector each.
        duals: derivatives by the measured expectations, a vector each.
        table: workspace of 32 vectors.
        sums: derivatives by folded angles, a vector each.
    """
    for k in range(code[NUM_EXPECTATIONS]):
        store(duals, k * LANES, splat(nb.float32(0)))
    for k in range(code[2 * COMBINATIONS + 1]):
        row = row_of(code, COMBINATIONS, k)
        observable, slot, coefficient, sums_at = code[row], code[row + 1] * LANES, code[row + 2], code[row + 3]
        # Lanes beyond the block repeat its last token, and must not be counted.
        for lane in range(LANES):
            table[lane] = grads[start + lane, observable] if lane < count else 0
        grad = load(table, 0)
        store(duals, slot, plus_product(load(duals, slot), grad, splat(coefficients[coefficient])))
        if sums_at >= 0:
            change = multiply(load(expectations, slot), splat(coefficients[coefficient + 1]))
            store(sums, sums_at * LANES, plus_product(load(sums, sums_at * LANES), grad, change))


@inline
def costate_of(code, index, state, costate, parts, table, duals):
    """costate = sum of duals * measured Pauli strings * state.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        parts: 1 for a real state, 2 for a complex one.
        table: workspace of 32 vectors.
        duals: derivatives by the measured expectations, a vector each.
    """
    size = 1 << code[STATE_QUBITS]
    if code[2 * MEASURED + 1]:
        measure_z_backward(code, index, state, costate, parts, table, duals)
    else:
        for p in range(parts * size):
            store(costate, p * LANES, splat(nb.float32(0)))
    for k in range(1, code[2 * MEASURED + 1]):
        row = row_of(code, MEASURED, k)
        if code[row + 1]:
            slot = 2 * GROUP_BITS * k + GROUP_BITS
            measure_x_backward(state, costate, parts, size, index, code[row], table, duals, slot)
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        slot = 2 * GROUP_BITS * code[2 * MEASURED + 1] + k
        x, z, power = code[row], code[row + 1], code[row + 2]
        measure_string_backward(state, costate, parts, size, x, z, power, duals, slot)
