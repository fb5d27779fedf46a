"""Runs a program on rows of inputs, block by block; compiled once for all circuits.

`weights.prepare` turns weights into tables, `forward` and `backward` here work through blocks of tokens, and
`weights.finish` turns sums over tokens into weight gradients. None of them holds the Python lock.
"""
# mypy: disable-error-code="no-untyped-def"
# Types are those that numba infers.

from __future__ import annotations

import numba as nb
import numpy as np

from qpeft.simulation.kernel import observables, steps
from qpeft.simulation.kernel.lanes import LANES, load, multiply, plus_product, splat, store, total
from qpeft.simulation.kernel.layout import (
    ANGLES,
    CHUNKS,
    CLOSED_FORM,
    COMBINATIONS,
    FIRST_ROTATIONS,
    INPUT_PARTS,
    INSTRUCTIONS,
    LANE_ROWS,
    NUM_EXPECTATIONS,
    NUM_OBSERVABLES,
    NUM_SUMS,
    PHASES,
    PROMOTE,
    ROTATIONS,
    SIGNS,
    STATE_QUBITS,
    TOKEN_PROMOTE,
    TRAINS_FOLDED,
    inline,
    row_of,
)
from qpeft.simulation.kernel.program import GROUP_BITS, GROUP_SIZE
from qpeft.simulation.kernel.token_angles import token_angles


@inline
def gather_token_rotations(code, at, cosines, table, sign):
    """cos and sign * sin of a chunk's four rows next to each other.

    Args:
        code: the program as integers, see `KernelProgram`.
        at: place of the chunk in `code`.
        cosines: cos and sin of half the lane rows' angles, two vectors each.
        table: workspace of 32 vectors.
        sign: 1 forwards, -1 backwards.
    """
    for bit in range(GROUP_BITS):
        row = 2 * code[at + 4 + bit] * LANES
        store(table, bit * LANES, load(cosines, row))
        store(table, (GROUP_BITS + bit) * LANES, multiply(load(cosines, row + LANES), splat(nb.float32(sign))))


@inline
def evolve(code, index, coefficients, levels, state, early, cosines, table):
    """From |0...0> through the encoding and all instructions; returns the parts of the state.

    The state before the first rotations is made behind `levels`, at state[early:], and stays there if `early` is not 0.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        levels: workspace of product states; `steps.encode` says where which is.
        state: amplitudes, a vector of tokens each; all real parts first.
        early: where the state before the first rotations is kept, in float32 from `state`; 0 for nowhere.
        cosines: cos and sin of half the lane rows' angles, two vectors each.
        table: workspace of 32 vectors.
    """
    qubits, row = code[STATE_QUBITS], row_of(code, INSTRUCTIONS, 0)
    rotations, last = code[FIRST_ROTATIONS], code[2 * INSTRUCTIONS + 1]
    first, parts = 0, 1
    # Phases right behind the encoding need no pass of their own.
    if last > 0 and code[row] == PROMOTE:
        steps.encode_with_phases(levels, state[early:], qubits, cosines, coefficients, code[row + 1])
        first, parts = 1, 2
    else:
        steps.encode(levels, qubits, qubits, cosines)
    if rotations > first:
        parts = run(code, index, coefficients, state[early:], 0, cosines, table, first, rotations, parts)
        first = rotations
    return run(code, index, coefficients, state, early, cosines, table, first, last, parts)


@inline
def run(code, index, coefficients, state, early, cosines, table, first, last, parts):
    """Instructions `first` up to `last` on a state of so many parts, 1 real or 2 complex; returns their new number.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        state: amplitudes, a vector of tokens each; all real parts first.
        early: where the state before the first rotations is kept, in float32 from `state`; 0 for nowhere.
        cosines: cos and sin of half the lane rows' angles, two vectors each.
        table: workspace of 32 vectors.
        first: first of the range.
        last: one behind the last of the range.
        parts: 1 for a real state, 2 for a complex one.
    """
    size = 1 << code[STATE_QUBITS]
    # A state is real until something makes it complex; until then half of the work and of the cache is saved.
    for k in range(first, last):
        row = row_of(code, INSTRUCTIONS, k)
        op, a, b = code[row], code[row + 1], code[row + 2]
        if op == ROTATIONS:
            distance = early if k == code[FIRST_ROTATIONS] else 0
            for part in range(code[row + 3]):
                rotate(code, index, coefficients, state, distance, cosines, table, row, part, False)
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
def rotate(code, index, coefficients, state, distance, cosines, table, row, part, backwards):
    """One layer of rotations, or its inverse, on one part of the state, which is read from state[distance:].

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        state: amplitudes, a vector of tokens each; all real parts first.
        distance: how far in front of its place the state is read, in float32.
        cosines: cos and sin of half the lane rows' angles, two vectors each.
        table: workspace of 32 vectors.
        row: place of the step in `code`.
        part: 0 for real parts, 1 for imaginary ones.
        backwards: whether the inverse is applied.
    """
    size = 1 << code[STATE_QUBITS]
    first = part * size * LANES
    for chunk in range(code[row + 1], code[row + 1] + code[row + 2]):
        at = row_of(code, CHUNKS, chunk)
        if code[at] == 0:
            here = code[at + 2]
            swap = int(coefficients[here + 2 * (GROUP_BITS + GROUP_SIZE)])
            if backwards:
                here += GROUP_BITS + GROUP_SIZE
            steps.rotations(state, first + distance, first, size, index, code[at + 1], coefficients, here, swap)
        else:
            gather_token_rotations(code, at, cosines, table, -1 if backwards else 1)
            steps.token_rotations(state, first + distance, first, size, index, code[at + 1], table)
        # The first chunk moves the state to its place; the others find it there.
        distance = 0


@inline
def workspace_vectors(code):
    """Vectors of float32 that one worker of `backward` needs; `forward` needs fewer."""
    size = 1 << code[STATE_QUBITS]
    return 7 * size + 3 * code[LANE_ROWS] + 2 * code[NUM_EXPECTATIONS] + 2 * GROUP_SIZE + code[NUM_SUMS]


@inline
def forward(code, index, numbers, angles, coefficients, inputs, values, first, last, work):
    """Values of rows `first` to `last`.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        numbers: constants of the program, float64.
        angles: angles that all tokens share, radians.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        inputs: (tokens, num_inputs), radians.
        values: (tokens, num_observables), to be filled.
        first: first of the range.
        last: one behind the last of the range.
        work: workspace of one worker, float32.
    """
    qubits = code[STATE_QUBITS]
    size = 1 << qubits
    # The last level of the encoding is the state's real part, and the imaginary part follows.
    levels = work[: 3 * size * LANES]
    state = levels[size * LANES :]
    cosines = work[3 * size * LANES :]
    expectations = cosines[2 * code[LANE_ROWS] * LANES :]
    table = expectations[code[NUM_EXPECTATIONS] * LANES :]
    result = np.empty(LANES, np.float32)
    # A block of tokens goes through the whole circuit while its state is in the cache.
    for start in range(first, last, LANES):
        count = min(LANES, last - start)
        token_angles(code, numbers, angles, inputs, start, count, cosines)
        if code[CLOSED_FORM]:
            observables.measure_product(code, cosines, levels, expectations)
        else:
            parts = evolve(code, index, coefficients, levels, state, 0, cosines, table)
            observables.measure(code, index, state, parts, expectations)
        k = 0
        for observable in range(code[NUM_OBSERVABLES]):
            value = splat(nb.float32(0))
            while k < code[2 * COMBINATIONS + 1] and code[row_of(code, COMBINATIONS, k)] == observable:
                row = row_of(code, COMBINATIONS, k)
                value = plus_product(
                    value, load(expectations, code[row + 1] * LANES), splat(coefficients[code[row + 2]])
                )
                k += 1
            store(result, 0, value)
            for lane in range(count):
                values[start + lane, observable] = result[lane]


@inline
def backward(code, index, numbers, angles, coefficients, inputs, grads, input_grads, first, last, partial, work):
    """Input gradients of rows `first` to `last`, and their sums for the weights in `partial`, double precision.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        numbers: constants of the program, float64.
        angles: angles that all tokens share, radians.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        inputs: (tokens, num_inputs), radians.
        grads: from above, (tokens, num_observables).
        input_grads: (tokens, num_inputs), added to.
        first: first of the range.
        last: one behind the last of the range.
        partial: sums of this worker over its tokens, to be filled.
        work: workspace of one worker, float32.
    """
    qubits = code[STATE_QUBITS]
    size = 1 << qubits
    # The state before the first rotations is kept at state[early:], since making it again would take longer.
    early = 3 * size * LANES if code[FIRST_ROTATIONS] >= 0 else 0
    levels = work[2 * size * LANES :]
    state = work[3 * size * LANES - early :]
    costate = work[5 * size * LANES :]
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
            observables.measure_product(code, cosines, levels, expectations)
            observables.dual_expectations(code, coefficients, grads, start, count, expectations, duals, table, sums)
            observables.slopes_of_product(code, cosines, levels, duals, slopes)
        else:
            parts = evolve(code, index, coefficients, levels, state, early, cosines, table)
            if code[TRAINS_FOLDED]:
                observables.measure(code, index, state, parts, expectations)
            observables.dual_expectations(code, coefficients, grads, start, count, expectations, duals, table, sums)
            observables.costate_of(code, index, state, costate, parts, table, duals)
            # The adjoint method: state and costate go back through the circuit together; nothing was kept of the way.
            for k in range(num_instructions - 1, code[FIRST_ROTATIONS], -1):
                run_backward(code, index, coefficients, state, costate, cosines, table, slopes, sums, k)
            for k in range(code[FIRST_ROTATIONS], -1, -1):
                run_backward(code, index, coefficients, state[early:], costate, cosines, table, slopes, sums, k)
            steps.encode_backward(levels, costate, qubits, cosines, slopes)
        for row in range(code[LANE_ROWS]):
            scatter_slope(code, numbers, row, slopes, start, count, input_grads, sums)
    # Float32 within a block, double precision over blocks: so many tokens would swallow the last ones otherwise.
    for k in range(code[NUM_SUMS]):
        partial[k] = total(load(sums, k * LANES))


@inline
def run_backward(code, index, coefficients, state, costate, cosines, table, slopes, sums, k):
    """Takes state and costate back through instruction k, and collects the derivatives by its angles.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        coefficients: tables of all steps, as `weights.prepare` fills them.
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        cosines: cos and sin of half the lane rows' angles, two vectors each.
        table: workspace of 32 vectors.
        slopes: derivatives by the lane rows' angles, a vector each.
        sums: derivatives by what tokens share, a vector each.
        k: number of the instruction.
    """
    size = 1 << code[STATE_QUBITS]
    row = row_of(code, INSTRUCTIONS, k)
    op, a, b = code[row], code[row + 1], code[row + 2]
    if op == ROTATIONS:
        # All that one part needs before the other, since one may fit the first cache where two do not.
        for part in range(code[row + 3]):
            rotate(code, index, coefficients, costate, 0, cosines, table, row, part, True)
            # In front of the first rotations there is a state that was kept.
            if k != code[FIRST_ROTATIONS]:
                rotate(code, index, coefficients, state, 0, cosines, table, row, part, True)
            rotation_slopes(code, index, state, costate, table, slopes, sums, row, part)
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
def rotation_slopes(code, index, state, costate, table, slopes, sums, row, part):
    """Adds what one part of the state contributes to the derivatives by the angles of one layer of rotations.

    Args:
        code: the program as integers, see `KernelProgram`.
        index: positions of amplitudes, 16 to a group.
        state: amplitudes, a vector of tokens each; all real parts first.
        costate: adjoint of the state, laid out like it.
        table: workspace of 32 vectors.
        slopes: derivatives by the lane rows' angles, a vector each.
        sums: derivatives by what tokens share, a vector each.
        row: place of the step in `code`.
        part: 0 for real parts, 1 for imaginary ones.
    """
    size = 1 << code[STATE_QUBITS]
    first = part * size * LANES
    for chunk in range(code[row + 1], code[row + 1] + code[row + 2]):
        at = row_of(code, CHUNKS, chunk)
        if code[at] == 0:
            if code[at + 3] >= 0:
                steps.rotation_slopes(state, costate, first, size, index, code[at + 1], sums, code[at + 3] * LANES)
            continue
        for bit in range(GROUP_BITS):
            store(table, bit * LANES, splat(nb.float32(0)))
        steps.rotation_slopes(state, costate, first, size, index, code[at + 1], table, 0)
        for bit in range(GROUP_BITS):
            place = code[at + 4 + bit] * LANES
            store(slopes, place, plus_product(load(slopes, place), load(table, bit * LANES), splat(nb.float32(1))))


@inline
def scatter_slope(code, numbers, row, slopes, start, count, input_grads, sums):
    """Derivatives by a lane row's angle to the inputs it reads, and to the sum from which its weights get theirs.

    Args:
        code: the program as integers, see `KernelProgram`.
        numbers: constants of the program, float64.
        row: place of the step in `code`.
        slopes: derivatives by the lane rows' angles, a vector each.
        start: first token of the block.
        count: tokens of the block, at most `LANES`.
        input_grads: (tokens, num_inputs), added to.
        sums: derivatives by what tokens share, a vector each.
    """
    slope = load(slopes, row * LANES)
    store(sums, row * LANES, plus_product(load(sums, row * LANES), slope, splat(nb.float32(1))))
    at = row_of(code, ANGLES, row)
    for part in range(code[at + 3], code[at + 3] + code[at + 4]):
        place = row_of(code, INPUT_PARTS, part)
        column, coefficient = code[place], numbers[code[place + 1]]
        for lane in range(count):
            input_grads[start + lane, column] += nb.float32(coefficient) * slopes[row * LANES + lane]
