"""What generated kernels call and read: exchanges of amplitudes, cosines, sums, the table. Triton functions.

A state is a tensor per part, real and imaginary, of shape [2] * num_qubits + [tokens]: one axis per bit, qubit 0 first.
Triton hands out threads from the last axis on, so the leading bits of a token lie in the registers of one thread.
"""
# `no_type_check` keeps run-time type checkers from wrapping functions that Triton reads and never calls.
# mypy: disable-error-code="misc,no-untyped-def,untyped-decorator"

import inspect
from typing import no_type_check

import triton
import triton.language as tl

MAX_ANGLE = tl.constexpr(1e9)
"""Half angles beyond this are answered with NaN: their reduction modulo pi / 2 would lose more than 1e-6."""

TABLE_BLOCK = tl.constexpr(128)
"""Entries of the table that one program of `fill_table` computes."""


def launched(function):
    """A kernel from Python: compiled once for all token counts and addresses, whatever numbers divide them."""
    names = list(inspect.signature(function).parameters)
    return triton.jit(do_not_specialize=names, do_not_specialize_on_alignment=names)(function)


@triton.jit
@no_type_check
def exchanged(part, axis: tl.constexpr):
    """Amplitudes with one bit flipped, exactly.

    Sum of both minus the own one, as integers, which is exact; compiled, no more than another register or one shuffle.
    """
    bits = part.to(tl.int32, bitcast=True)
    others = tl.sum(bits, axis, keep_dims=True) - bits
    return others.to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def bit(axis: tl.constexpr, rank: tl.constexpr):
    """0 and 1 along one axis of a state of `rank` axes."""
    return tl.reshape(tl.arange(0, 2), [1] * axis + [2] + [1] * (rank - axis - 1))


@triton.jit
@no_type_check
def sign(axis: tl.constexpr, rank: tl.constexpr):
    """+1 where the bit is 0, -1 where it is 1."""
    return 1.0 - 2.0 * bit(axis, rank).to(tl.float32)


@triton.jit
@no_type_check
def cos_and_sin(half):
    """cos and sin of half angles given in double precision, to float32 precision; NaN beyond `MAX_ANGLE`.

    Cody-Waite reduction, then Taylor series on [-pi/4, pi/4]: unlike the library's functions it needs no memory.
    """
    turns = tl.floor(half * 0.6366197723675814 + 0.5)
    rest = (half - turns * 1.5707963267341256) - turns * 6.077100506506192e-11
    x = tl.where(tl.abs(half) <= MAX_ANGLE, rest, float("nan")).to(tl.float32)
    square = x * x
    sin = x * (1 + square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040 + square / 362880))))
    cos = 1 + square * (-1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * (1 / 40320 - square / 3628800))))
    # turns modulo 4: odd ones exchange cos and sin, 1 and 2 negate cos, 2 and 3 negate sin.
    odd = (turns - 2 * tl.floor(0.5 * turns)).to(tl.float32)
    late = (tl.floor(0.5 * turns) - 2 * tl.floor(0.25 * turns)).to(tl.float32)
    flip = odd + late - 2 * odd * late
    return (1 - 2 * flip) * (odd * sin + (1 - odd) * cos), (1 - 2 * late) * (odd * cos + (1 - odd) * sin)


@launched
@no_type_check
def fill_table(constants, from_weights, weights, shared, table, entries, num_weights):
    """Arguments that all tokens share, in double precision, and their cosines and sines: `TABLE_BLOCK` per program.

    `from_weights` has one row of coefficients per weight.

    Args:
        constants: of the arguments, float64.
        from_weights: coefficients of the weights in them, a row per weight.
        weights: (num_weights,), radians.
        shared: to be filled with the arguments.
        table: to be filled with their cosines, then their sines.
        entries: number of arguments.
        num_weights: number of weights.
    """
    place = tl.program_id(0) * TABLE_BLOCK + tl.arange(0, TABLE_BLOCK)
    inside = place < entries
    argument = tl.load(constants + place, mask=inside, other=0.0)
    for weight in range(num_weights):
        row = tl.load(from_weights + weight * entries + place, mask=inside, other=0.0)
        argument += row * tl.load(weights + weight).to(tl.float64)
    cos, sin = cos_and_sin(argument)
    tl.store(shared + place, argument, mask=inside)
    tl.store(table + 2 * place, cos, mask=inside)
    tl.store(table + 2 * place + 1, sin, mask=inside)


@triton.jit
@no_type_check
def per_token(product, amplitudes: tl.constexpr, tokens: tl.constexpr):
    """Sum over amplitudes, (tokens,).

    Args:
        product: (amplitudes, tokens), flat.
        amplitudes: of the state.
        tokens: of the program.
    """
    return tl.sum(tl.reshape(tl.broadcast_to(product, product.shape), [amplitudes, tokens]), 0)


@triton.jit
@no_type_check
def over_all(product, count: tl.constexpr):
    """Sum over amplitudes and tokens, a scalar."""
    return tl.sum(tl.reshape(product, [count]), 0)
