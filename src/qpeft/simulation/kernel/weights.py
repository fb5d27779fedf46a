"""What all tokens share, compiled: tables from weights before the tokens are seen, weight gradients from sums after."""
# mypy: disable-error-code="no-untyped-def"
# Types are those that numba infers.

from __future__ import annotations

import math

import numpy as np

from qpeft.simulation.kernel.layout import (
    ANGLES,
    CHUNKS,
    COMBINATIONS,
    INSTRUCTIONS,
    LANE_ROWS,
    NUM_SUMS,
    PHASES,
    PROMOTE,
    ROTATIONS,
    STATE_QUBITS,
    TERMS,
    WEIGHT_PARTS,
    inline,
    parity,
    row_of,
)
from qpeft.simulation.kernel.program import GROUP_BITS, GROUP_SIZE


@inline
def walsh_hadamard(values, start, size):
    """values[p] = sum over masks m of (-1)**parity(p & m) values[m], in place.

    Args:
        values: changed in place.
        start: first entry.
        size: entries, a power of two.
    """
    half = 1
    # The butterfly: log2(size) passes in place of size**2 signs.
    while half < size:
        for low in range(start, start + size, 2 * half):
            for k in range(low, low + half):
                a, b = values[k], values[k + half]
                values[k], values[k + half] = a + b, a - b
        half *= 2


@inline
def prepare(code, numbers, weights, angles, coefficients):
    """Fills `angles` (weights and constants only) and `coefficients`, the tables of all steps.

    Args:
        code: the program as integers, see `KernelProgram`.
        numbers: constants of the program, float64.
        weights: (num_weights,), radians.
        angles: of the program, radians, float64.
        coefficients: tables of all steps, as `weights.prepare` fills them.
    """
    size = 1 << code[STATE_QUBITS]
    for k in range(code[2 * ANGLES + 1]):
        row = row_of(code, ANGLES, k)
        angles[k] = numbers[code[row]]
        for part in range(code[row + 1], code[row + 1] + code[row + 2]):
            at = row_of(code, WEIGHT_PARTS, part)
            angles[k] += numbers[code[at + 1]] * weights[code[at]]
    # Rotations are applied by tangents, without their cosines; the product of these is put into the next table of
    # phases, or into the values at the end, where it costs nothing.
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
        at, kind, angle, sign = code[row + 2], code[row + 4], angles[code[row + 5]], float(code[row + 6])
        # What the last rotations left out, once for the state and once for its conjugate.
        sign *= factor * factor
        cos, sin = sign * math.cos(angle), sign * math.sin(angle)
        coefficients[at] = sign if kind == 0 else cos if kind == 1 else sin
        coefficients[at + 1] = 0.0 if kind == 0 else -sin if kind == 1 else cos


@inline
def prepare_rotations(code, at, angles, coefficients):
    """Tangents and signs of a chunk, forwards and backwards; returns the factor that the tangents leave out.

    Args:
        code: the program as integers, see `KernelProgram`.
        at: place of the chunk in `code`.
        angles: of the program, radians, float64.
        coefficients: tables of all steps, as `weights.prepare` fills them.
    """
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
        forwards = -1.0 if parity(code_swap & ~k) else 1.0
        backwards = -1.0 if parity(code_swap & k) else 1.0
        coefficients[table + GROUP_BITS + k] = forwards
        coefficients[table + 2 * GROUP_BITS + GROUP_SIZE + k] = backwards
    coefficients[table + 2 * (GROUP_BITS + GROUP_SIZE)] = swap
    return factor


@inline
def prepare_phases(code, row, size, factor, angles, coefficients):
    """The table of one layer of phases, times the factor that rotations before it left out.

    Args:
        code: the program as integers, see `KernelProgram`.
        row: place of the step in `code`.
        size: entries, a power of two.
        factor: that rotations before left out.
        angles: of the program, radians, float64.
        coefficients: tables of all steps, as `weights.prepare` fills them.
    """
    table = code[row + 1]
    exponents = np.zeros(size)
    for term in range(code[row + 3], code[row + 3] + code[row + 4]):
        at = row_of(code, TERMS, term)
        exponents[code[at]] += angles[code[at + 1]]
    # exponents[p] is now the sum of the angles with the sign that Z..Z has at p.
    walsh_hadamard(exponents, 0, size)
    for p in range(size):
        # Relative to basis state 0, so that phases which are signs up to a common factor become signs.
        exponent = 0.5 * (exponents[0] - exponents[p])
        coefficients[table + p] = factor * math.cos(exponent)
        coefficients[table + size + p] = factor * math.sin(exponent)


@inline
def finish(code, numbers, partials, angle_grads, weight_grads):
    """Weight gradients from the sums of all partitions, always added in the same order.

    Args:
        code: the program as integers, see `KernelProgram`.
        numbers: constants of the program, float64.
        partials: (workers, sums), float64.
        angle_grads: workspace, one number per angle.
        weight_grads: (num_weights,), added to.
    """
    size = 1 << code[STATE_QUBITS]
    sums = np.zeros(code[NUM_SUMS])
    # In the order of the partitions and not of the workers that end first, so that equal calls give equal bits.
    for partition in range(partials.shape[0]):
        for k in range(code[NUM_SUMS]):
            sums[k] += partials[partition, k]
    for k in range(code[LANE_ROWS]):
        angle_grads[k] = sums[k]
    for k in range(code[2 * INSTRUCTIONS + 1]):
        row = row_of(code, INSTRUCTIONS, k)
        op, at = code[row], code[row + 2]
        if op in (PHASES, PROMOTE) and at >= 0:
            # The transpose of what `prepare_phases` does, and the transform is its own transpose.
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
    spread(code, numbers, angle_grads, weight_grads)


@inline
def spread(code, numbers, angle_grads, weight_grads):
    """Gradients by angles to gradients by the weights that the angles are made of.

    Args:
        code: the program as integers, see `KernelProgram`.
        numbers: constants of the program, float64.
        angle_grads: workspace, one number per angle.
        weight_grads: (num_weights,), added to.
    """
    for k in range(code[2 * ANGLES + 1]):
        row = row_of(code, ANGLES, k)
        for part in range(code[row + 1], code[row + 1] + code[row + 2]):
            at = row_of(code, WEIGHT_PARTS, part)
            weight_grads[code[at]] += numbers[code[at + 1]] * angle_grads[k]
