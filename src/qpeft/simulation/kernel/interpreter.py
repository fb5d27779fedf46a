"""Runs a program on rows of inputs, block by block; compiled once for all circuits.

`prepare` turns weights into tables, `forward` and `backward` work through blocks of tokens, `finish` turns sums over
tokens into weight gradients. Only `forward` and `backward` touch tokens; they hold no Python lock.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from qpeft.simulation.kernel import steps
from qpeft.simulation.kernel.lanes import LANES, load, minus_product, multiply, plus_product, splat, store, total
from qpeft.simulation.kernel.program import GROUP_BITS, GROUP_SIZE, ROW
from qpeft.simulation.kernel.program import Op as _Op
from qpeft.simulation.kernel.program import Scalar as _Scalar
from qpeft.simulation.kernel.program import Section as _Section

# numba compiles plain integers, not enum members.
SIGNS, PROMOTE, PHASES, ROTATIONS, TOKEN_PROMOTE, TOKEN_PHASES = (int(op) for op in _Op)
(INSTRUCTIONS, CHUNKS, TERMS, MEASURED, STRINGS, COMBINATIONS, ANGLES, WEIGHT_PARTS, INPUT_PARTS) = map(int, _Section)
STATE_QUBITS, LANE_ROWS, FIRST_ROTATIONS = int(_Scalar.STATE_QUBITS), int(_Scalar.LANE_ROWS), int(_Scalar.FIRST_ROTATIONS)
NUM_SUMS, NUM_EXPECTATIONS = int(_Scalar.NUM_SUMS), int(_Scalar.NUM_EXPECTATIONS)
NUM_OBSERVABLES, TRAINS_FOLDED = int(_Scalar.NUM_OBSERVABLES), int(_Scalar.TRAINS_FOLDED)
CLOSED_FORM = int(_Scalar.CLOSED_FORM)

inline = steps.inline


@inline
def row_of(code, section, number):
    """Start of a row of a section in `code`."""
    return code[2 * section] + number * ROW


@inline
def walsh_hadamard(values, start, size):
    """values[p] = sum over masks m of (-1)**parity(p & m) values[m], in place."""
    half = 1
    while half < size:
        for low in range(start, start + size, 2 * half):
            for k in range(low, low + half):
                a, b = values[k], values[k + half]
                values[k], values[k + half] = a + b, a - b
        half *= 2


@inline
def prepare(code, numbers, weights, angles, coefficients):
    """Fills `angles` (weights and constants only) and `coefficients`, the tables of all steps."""
    size = 1 << code[STATE_QUBITS]
    for k in range(code[2 * ANGLES + 1]):
        row = row_of(code, ANGLES, k)
        angles[k] = numbers[code[row]]
        for part in range(code[row + 1], code[row + 1] + code[row + 2]):
            at = row_of(code, WEIGHT_PARTS, part)
            angles[k] += numbers[code[at + 1]] * weights[code[at]]
    factor = 1.0
    for k in range(code[2 * INSTRUCTIONS + 1]):
        row = row_of(code, INSTRUCTIONS, k)
        op = code[row]
        if op == ROTATIONS:
            for chunk in range(code[row + 1], code[row + 1] + code[row + 2]):
                at = row_of(code, CHUNKS, chunk)
                if code[at] == 0:
                    factor *= prepare_rotations(code, at, angles, coefficients)
        elif op <= PHASES:
            prepare_phases(code, row, size, factor, angles, coefficients)
            factor = 1.0
    for k in range(code[2 * COMBINATIONS + 1]):
        row = row_of(code, COMBINATIONS, k)
        at, kind, angle, sign = code[row + 2], code[row + 4], angles[code[row + 5]], code[row + 6]
        cos, sin = sign * math.cos(angle), sign * math.sin(angle)
        coefficients[at] = sign if kind == 0 else cos if kind == 1 else sin
        coefficients[at + 1] = 0.0 if kind == 0 else -sin if kind == 1 else cos


@inline
def prepare_rotations(code, at, angles, coefficients):
    """Tangents and signs of a chunk, forwards and backwards; returns the factor that the tangents leave out."""
    table = code[at + 2]
    factor = 1.0
    swap = 0
    for bit in range(GROUP_BITS):
        angle = angles[code[at + 4 + bit]]
        # Rotations by more than pi / 2 go by pi first, so that no tangent exceeds 1.
        turns = math.floor(angle / math.pi + 0.5)
        rest = 0.5 * (angle - turns * math.pi)
        if turns % 2:
            swap |= 1 << bit
        coefficients[table + bit] = math.tan(rest)
        coefficients[table + GROUP_BITS + GROUP_SIZE + bit] = -math.tan(rest)
        factor *= math.cos(rest)
    code_swap = swap
    for k in range(GROUP_SIZE):
        forwards = -1.0 if steps.parity(code_swap & ~k) else 1.0
        backwards = -1.0 if steps.parity(code_swap & k) else 1.0
        coefficients[table + GROUP_BITS + k] = forwards
        coefficients[table + 2 * GROUP_BITS + GROUP_SIZE + k] = backwards
    coefficients[table + 2 * (GROUP_BITS + GROUP_SIZE)] = swap
    return factor


@inline
def prepare_phases(code, row, size, factor, angles, coefficients):
    table = code[row + 1]
    exponents = np.zeros(size)
    for term in range(code[row + 3], code[row + 3] + code[row + 4]):
        at = row_of(code, TERMS, term)
        exponents[code[at]] += angles[code[at + 1]]
    walsh_hadamard(exponents, 0, size)
    for p in range(size):
        # Relative to basis state 0, so that phases which are signs up to a common factor become signs.
        exponent = 0.5 * (exponents[0] - exponents[p])
        coefficients[table + p] = factor * math.cos(exponent)
        coefficients[table + size + p] = factor * math.sin(exponent)


@inline
def token_angles(code, numbers, angles, inputs, start, count, cosines):
    """cos and sin of half the lane rows' angles of one block; lanes beyond `count` hold the angle at zero inputs."""
    full = np.empty(LANES)
    for row in range(code[LANE_ROWS]):
        at = row_of(code, ANGLES, row)
        for lane in range(LANES):
            full[lane] = angles[row]
        for part in range(code[at + 3], code[at + 3] + code[at + 4]):
            place = row_of(code, INPUT_PARTS, part)
            column, coefficient = code[place], numbers[code[place + 1]]
            for lane in range(count):
                full[lane] += coefficient * inputs[start + lane, column]
        steps.half_angles(full, cosines, 2 * row * LANES)


@inline
def gather_token_rotations(code, at, cosines, table, sign):
    """cos and sign * sin of a chunk's four rows next to each other."""
    for bit in range(GROUP_BITS):
        row = 2 * code[at + 4 + bit] * LANES
        store(table, bit * LANES, load(cosines, row))
        store(table, (GROUP_BITS + bit) * LANES, multiply(load(cosines, row + LANES), splat(nb.float32(sign))))


@inline
def run(code, index, coefficients, state, cosines, table, first, last):
    """Instructions `first` up to `last` on the state; returns the parts of the state, 1 real or 2 complex."""
    size = 1 << code[STATE_QUBITS]
    parts = 1
    for k in range(first, last):
        row = row_of(code, INSTRUCTIONS, k)
        op, a, b = code[row], code[row + 1], code[row + 2]
        if op == ROTATIONS:
            rotate(code, index, coefficients, state, cosines, table, row, False)
        elif op == PHASES:
            steps.phases(state, size, coefficients, a)
        elif op == PROMOTE:
            steps.promote(state, size, coefficients, a)
        elif op == SIGNS:
            steps.scale(state, code[row + 5], size, coefficients, a)
        else:
            cos, sin = load(cosines, 2 * b * LANES), load(cosines, (2 * b + 1) * LANES)
            steps.token_phase(state, size, a, cos, sin, 1, op == TOKEN_PROMOTE)
        if op in (PROMOTE, TOKEN_PROMOTE):
            parts = 2
    return parts


@inline
def rotate(code, index, coefficients, state, cosines, table, row, backwards):
    """One layer of rotations, or its inverse."""
    size, parts = 1 << code[STATE_QUBITS], code[row + 3]
    for chunk in range(code[row + 1], code[row + 1] + code[row + 2]):
        at = row_of(code, CHUNKS, chunk)
        if code[at] == 0:
            here = code[at + 2]
            swap = int(coefficients[here + 2 * (GROUP_BITS + GROUP_SIZE)])
            if backwards:
                here += GROUP_BITS + GROUP_SIZE
            steps.rotations(state, parts, size, index, code[at + 1], coefficients, here, swap)
        else:
            gather_token_rotations(code, at, cosines, table, -1 if backwards else 1)
            steps.token_rotations(state, parts, size, index, code[at + 1], table)


@inline
def measure(code, index, state, parts, table, expectations):
    """Expectations of all measured Pauli strings, one vector each."""
    size = 1 << code[STATE_QUBITS]
    for k in range(code[2 * MEASURED + 1]):
        row = row_of(code, MEASURED, k)
        steps.measure(state, parts, size, index, code[row], code[row + 1], table, expectations, 2 * GROUP_BITS * k)
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        slot = 2 * GROUP_BITS * code[2 * MEASURED + 1] + k
        steps.measure_string(state, parts, size, code[row], code[row + 1], code[row + 2], expectations, slot)


@inline
def measure_product(code, cosines, factors, expectations):
    """As `measure`, for circuits in closed form: the state is never built."""
    changes = factors[code[STATE_QUBITS] * LANES :]
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        x, z = code[row], code[row + 1]
        store(expectations, k * LANES, steps.product_string(code[STATE_QUBITS], cosines, x, z, factors, changes))


@inline
def slopes_of_product(code, cosines, factors, duals, slopes):
    """Derivatives by the encoding angles, for circuits in closed form."""
    changes = factors[code[STATE_QUBITS] * LANES :]
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        x, z, dual = code[row], code[row + 1], load(duals, k * LANES)
        steps.product_string_backward(code[STATE_QUBITS], cosines, x, z, dual, factors, changes, slopes)


@inline
def workspace_vectors(code):
    """Vectors of float32 that one worker of `backward` needs; `forward` needs fewer."""
    size = 1 << code[STATE_QUBITS]
    return 6 * size + 3 * code[LANE_ROWS] + 2 * code[NUM_EXPECTATIONS] + 2 * GROUP_SIZE + code[NUM_SUMS]


@inline
def forward(code, index, numbers, angles, coefficients, inputs, values, first, last, work):
    """Values of rows `first` to `last`."""
    qubits = code[STATE_QUBITS]
    size = 1 << qubits
    # The last level of the encoding is the state's real part, and the imaginary part follows.
    levels = work[: 3 * size * LANES]
    state = levels[size * LANES :]
    cosines = work[3 * size * LANES :]
    expectations = cosines[2 * code[LANE_ROWS] * LANES :]
    table = expectations[code[NUM_EXPECTATIONS] * LANES :]
    result = np.empty(LANES, np.float32)
    for start in range(first, last, LANES):
        count = min(LANES, last - start)
        token_angles(code, numbers, angles, inputs, start, count, cosines)
        if code[CLOSED_FORM]:
            measure_product(code, cosines, levels, expectations)
        else:
            steps.encode(levels, qubits, cosines)
            parts = run(code, index, coefficients, state, cosines, table, 0, code[2 * INSTRUCTIONS + 1])
            measure(code, index, state, parts, table, expectations)
        k = 0
        for observable in range(code[NUM_OBSERVABLES]):
            value = splat(nb.float32(0))
            while k < code[2 * COMBINATIONS + 1] and code[row_of(code, COMBINATIONS, k)] == observable:
                row = row_of(code, COMBINATIONS, k)
                value = plus_product(value, load(expectations, code[row + 1] * LANES), splat(coefficients[code[row + 2]]))
                k += 1
            store(result, 0, value)
            for lane in range(count):
                values[start + lane, observable] = result[lane]


@inline
def backward(
    code, index, numbers, angles, coefficients, inputs, grads, input_grads, first, last, partial, work
):
    """Input gradients of rows `first` to `last`, and their sums for the weights in `partial`, double precision."""
    qubits = code[STATE_QUBITS]
    size = 1 << qubits
    levels = work[: 3 * size * LANES]
    state = levels[size * LANES :]
    costate = work[3 * size * LANES :]
    cosines = costate[2 * size * LANES :]
    slopes = cosines[2 * code[LANE_ROWS] * LANES :]
    expectations = slopes[code[LANE_ROWS] * LANES :]
    duals = expectations[code[NUM_EXPECTATIONS] * LANES :]
    table = duals[code[NUM_EXPECTATIONS] * LANES :]
    sums = table[2 * GROUP_SIZE * LANES :]
    for k in range(code[NUM_SUMS]):
        store(sums, k * LANES, splat(nb.float32(0)))
    num_instructions = code[2 * INSTRUCTIONS + 1]
    for start in range(first, last, LANES):
        count = min(LANES, last - start)
        token_angles(code, numbers, angles, inputs, start, count, cosines)
        for k in range(code[LANE_ROWS]):
            store(slopes, k * LANES, splat(nb.float32(0)))
        if code[CLOSED_FORM]:
            measure_product(code, cosines, levels, expectations)
            dual_expectations(code, coefficients, grads, start, count, expectations, duals, table, sums)
            slopes_of_product(code, cosines, levels, duals, slopes)
        else:
            steps.encode(levels, qubits, cosines)
            parts = run(code, index, coefficients, state, cosines, table, 0, num_instructions)
            if code[TRAINS_FOLDED]:
                measure(code, index, state, parts, table, expectations)
            dual_expectations(code, coefficients, grads, start, count, expectations, duals, table, sums)
            costate_of(code, index, state, costate, parts, table, duals)
            for k in range(num_instructions - 1, -1, -1):
                run_backward(code, index, coefficients, levels, state, costate, cosines, table, slopes, sums, k)
            steps.encode_backward(levels, costate, qubits, cosines, slopes)
        for row in range(code[LANE_ROWS]):
            scatter_slope(code, numbers, row, slopes, start, count, input_grads, sums)
    for k in range(code[NUM_SUMS]):
        partial[k] = total(load(sums, k * LANES))


@inline
def dual_expectations(code, coefficients, grads, start, count, expectations, duals, table, sums):
    """duals: derivative of the loss by every measured expectation; adds to the sums of folded angles."""
    for k in range(code[NUM_EXPECTATIONS]):
        store(duals, k * LANES, splat(nb.float32(0)))
    for k in range(code[2 * COMBINATIONS + 1]):
        row = row_of(code, COMBINATIONS, k)
        observable, slot, coefficient, sums_at = code[row], code[row + 1] * LANES, code[row + 2], code[row + 3]
        for lane in range(LANES):
            table[lane] = grads[start + lane, observable] if lane < count else 0
        grad = load(table, 0)
        store(duals, slot, plus_product(load(duals, slot), grad, splat(coefficients[coefficient])))
        if sums_at >= 0:
            change = multiply(load(expectations, slot), splat(coefficients[coefficient + 1]))
            store(sums, sums_at * LANES, plus_product(load(sums, sums_at * LANES), grad, change))


@inline
def costate_of(code, index, state, costate, parts, table, duals):
    """costate = sum of duals * measured Pauli strings * state."""
    size = 1 << code[STATE_QUBITS]
    if code[2 * MEASURED + 1] == 0:
        for p in range(parts * size):
            store(costate, p * LANES, splat(nb.float32(0)))
    for k in range(code[2 * MEASURED + 1]):
        row = row_of(code, MEASURED, k)
        slot = 2 * GROUP_BITS * k
        with_x = code[row + 1]
        steps.measure_backward(state, costate, parts, size, index, code[row], with_x, table, duals, slot, k == 0)
    for k in range(code[2 * STRINGS + 1]):
        row = row_of(code, STRINGS, k)
        slot = 2 * GROUP_BITS * code[2 * MEASURED + 1] + k
        x, z, power = code[row], code[row + 1], code[row + 2]
        steps.measure_string_backward(state, costate, parts, size, x, z, power, duals, slot)


@inline
def run_backward(code, index, coefficients, levels, state, costate, cosines, table, slopes, sums, k):
    """Takes state and costate back through instruction k, and collects the derivatives by its angles."""
    size = 1 << code[STATE_QUBITS]
    row = row_of(code, INSTRUCTIONS, k)
    op, a, b = code[row], code[row + 1], code[row + 2]
    if op == ROTATIONS:
        rotate(code, index, coefficients, costate, cosines, table, row, True)
        if k == code[FIRST_ROTATIONS]:
            # Nothing but phases stands between here and the encoding: rebuilding costs less than rotating back.
            steps.encode(levels, code[STATE_QUBITS], cosines)
            run(code, index, coefficients, state, cosines, table, 0, k)
        else:
            rotate(code, index, coefficients, state, cosines, table, row, True)
        rotation_slopes(code, index, state, costate, table, slopes, sums, row)
    elif op == SIGNS:
        steps.scale(state, code[row + 5], size, coefficients, a)
        steps.scale(costate, code[row + 5], size, coefficients, a)
    elif op in (PHASES, PROMOTE):
        steps.phases_backward(state, costate, size, coefficients, a, sums, b * LANES, op == PROMOTE)
    else:
        steps.token_phase_slope(state, costate, size, a, slopes, b)
        cos, sin = load(cosines, 2 * b * LANES), load(cosines, (2 * b + 1) * LANES)
        steps.token_phase(state, size, a, cos, sin, -1, False)
        steps.token_phase(costate, size, a, cos, sin, -1, False)


@inline
def rotation_slopes(code, index, state, costate, table, slopes, sums, row):
    size, parts = 1 << code[STATE_QUBITS], code[row + 3]
    for chunk in range(code[row + 1], code[row + 1] + code[row + 2]):
        at = row_of(code, CHUNKS, chunk)
        if code[at] == 0:
            if code[at + 3] >= 0:
                steps.rotation_slopes(state, costate, parts, size, index, code[at + 1], sums, code[at + 3] * LANES)
            continue
        for bit in range(GROUP_BITS):
            store(table, bit * LANES, splat(nb.float32(0)))
        steps.rotation_slopes(state, costate, parts, size, index, code[at + 1], table, 0)
        for bit in range(GROUP_BITS):
            place = code[at + 4 + bit] * LANES
            store(slopes, place, plus_product(load(slopes, place), load(table, bit * LANES), splat(nb.float32(1))))


@inline
def scatter_slope(code, numbers, row, slopes, start, count, input_grads, sums):
    """Derivatives by a lane row's angle to the inputs it reads, and to the sum from which its weights get theirs."""
    slope = load(slopes, row * LANES)
    store(sums, row * LANES, plus_product(load(sums, row * LANES), slope, splat(nb.float32(1))))
    at = row_of(code, ANGLES, row)
    for part in range(code[at + 3], code[at + 3] + code[at + 4]):
        place = row_of(code, INPUT_PARTS, part)
        column, coefficient = code[place], numbers[code[place + 1]]
        for lane in range(count):
            input_grads[start + lane, column] += nb.float32(coefficient) * slopes[row * LANES + lane]


@inline
def finish(code, numbers, partials, angle_grads, weight_grads):
    """Weight gradients from the sums of all partitions, always added in the same order."""
    size = 1 << code[STATE_QUBITS]
    num_angles = code[2 * ANGLES + 1]
    sums = np.zeros(code[NUM_SUMS])
    for partition in range(partials.shape[0]):
        for k in range(code[NUM_SUMS]):
            sums[k] += partials[partition, k]
    for k in range(code[LANE_ROWS]):
        angle_grads[k] = sums[k]
    for k in range(code[2 * INSTRUCTIONS + 1]):
        row = row_of(code, INSTRUCTIONS, k)
        op, at = code[row], code[row + 2]
        if op in (PHASES, PROMOTE) and at >= 0:
            walsh_hadamard(sums, at, size)
            for term in range(code[row + 3], code[row + 3] + code[row + 4]):
                place = row_of(code, TERMS, term)
                angle_grads[code[place + 1]] = sums[at + code[place]]
    for k in range(code[2 * CHUNKS + 1]):
        row = row_of(code, CHUNKS, k)
        if code[row] == 0 and code[row + 3] >= 0:
            for bit in range(GROUP_BITS):
                angle_grads[code[row + 4 + bit]] = sums[code[row + 3] + bit]
    for k in range(code[2 * COMBINATIONS + 1]):
        row = row_of(code, COMBINATIONS, k)
        if code[row + 3] >= 0:
            angle_grads[code[row + 5]] = sums[code[row + 3]]
    for k in range(num_angles):
        row = row_of(code, ANGLES, k)
        for part in range(code[row + 1], code[row + 1] + code[row + 2]):
            at = row_of(code, WEIGHT_PARTS, part)
            weight_grads[code[at]] += numbers[code[at + 1]] * angle_grads[k]
