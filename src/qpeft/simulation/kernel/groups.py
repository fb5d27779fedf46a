"""Operations on groups of 16 amplitudes: four bits of the state at once, held in registers.

A group is 16 entries of an index table: entry k holds the position of the amplitude whose four chosen bits read k, the
first chosen bit being bit 0 of k. One load and one store per amplitude then serve four rotations, or four observables,
so the arithmetic and not the cache sets the pace. All code is straight-line LLVM vector code, emitted by loops here.
"""
# ruff: noqa: ARG001 - numba asks for the types of all arguments, code is generated from `arguments`

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from qpeft.simulation.kernel.lanes import (
    FLAGS,
    LANES,
    VECTOR,
    element,
    lanes,
    load_vector,
    multiply_add,
    multiply_subtract,
    splat_scalar,
    store_vector,
)

BITS = 4
SIZE = 2**BITS
_PAIRS = [[(k, k | 1 << bit) for k in range(SIZE) if not k >> bit & 1] for bit in range(BITS)]


def _constant(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


class _Emitter:
    """The builder with the arrays of one call at hand."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self._types, self.arguments = signature.args, arguments

    def pointer(self, array: int, offset: Any) -> Any:
        return element(self.context, self.builder, self._types[array], self.arguments[array], offset)

    def members(self, index_array: int, index_offset: Any, *, swap: Any = None) -> list[Any]:
        """Offsets of the group's vectors, in order of k (of k XOR swap)."""
        offsets = []
        for k in range(SIZE):
            place = _constant(k) if swap is None else self.builder.xor(_constant(k), swap)
            entry = self.builder.load(self.pointer(index_array, self.builder.add(index_offset, place)))
            offsets.append(self.builder.mul(self.builder.sext(entry, ir.IntType(64)), _constant(LANES)))
        return offsets

    def amplitude(self, array: int, part: Any, offset: Any) -> Any:
        return self.pointer(array, self.builder.add(part, offset))

    def vector(self, array: int, start: Any, number: int) -> Any:
        return self.pointer(array, self.builder.add(start, _constant(number * LANES)))

    def scalar(self, array: int, start: Any, number: int) -> Any:
        return splat_scalar(
            self.builder, self.builder.load(self.pointer(array, self.builder.add(start, _constant(number))))
        )


def _emits(body: Callable[[_Emitter], Any]) -> Callable[[Any, Any, Any, Any], Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = body(_Emitter(context, builder, signature, arguments))
        return context.get_dummy_value() if result is None else result

    return generate


@intrinsic  # type: ignore[untyped-decorator]
def rotate(
    typing_context: Any, state: Any, source: Any, part: Any, index: Any, group: Any, table: Any, start: Any
) -> Any:
    """Four rotations by tangents: (x, y) -> (x - t y, t x + y), the common factor cos being left to a later step.

    Amplitudes are read from the part of the state at `source`, and written to that at `part`.

    table[start : start + 4] are the tangents t of half the angles.

    Args:
        typing_context: numba's.
        state: amplitudes, a vector of tokens each.
        source: where the part begins that is read, in float32.
        part: where the part begins, in float32.
        index: positions of amplitudes, 16 to a group.
        group: where the group begins in `index`.
        table: coefficients, or vectors of cos and sin.
        start: where the chunk begins in `table`, or its sums in `sums`.
    """

    def body(emit: _Emitter) -> None:
        _, source, part, _, group, _, start = emit.arguments
        offsets = emit.members(3, group)
        values = [load_vector(emit.builder, emit.amplitude(0, source, offset)) for offset in offsets]
        _rotate_by_tangents(emit, values, [emit.amplitude(0, part, offset) for offset in offsets], 5, start)

    return types.void(state, types.intp, types.intp, index, types.intp, table, types.intp), _emits(body)


@intrinsic  # type: ignore[untyped-decorator]
def rotate_swapped(
    typing_context: Any, state: Any, source: Any, part: Any, index: Any, group: Any, table: Any, start: Any, swap: Any
) -> Any:
    """As `rotate`, after rotations by pi of the bits of `swap`: values trade places with signs table[start + 4 + k].

    Args:
        typing_context: numba's.
        state: amplitudes, a vector of tokens each.
        source: where the part begins that is read, in float32.
        part: where the part begins, in float32.
        index: positions of amplitudes, 16 to a group.
        group: where the group begins in `index`.
        table: coefficients, or vectors of cos and sin.
        start: where the chunk begins in `table`, or its sums in `sums`.
        swap: bits that turn by pi first.
    """

    def body(emit: _Emitter) -> None:
        _, source, part, _, group, _, start, swap = emit.arguments
        places = [emit.amplitude(0, part, offset) for offset in emit.members(3, group)]
        origins = [emit.amplitude(0, source, offset) for offset in emit.members(3, group, swap=swap)]
        values = [
            emit.builder.fmul(load_vector(emit.builder, origin), emit.scalar(5, start, BITS + k), flags=FLAGS)
            for k, origin in enumerate(origins)
        ]
        _rotate_by_tangents(emit, values, places, 5, start)

    numbers = (types.intp, types.intp)
    return types.void(state, *numbers, index, types.intp, table, *numbers), _emits(body)


def _rotate_by_tangents(emit: _Emitter, values: list[Any], places: list[Any], table: int, start: Any) -> None:
    for bit in range(BITS):
        tangent = emit.scalar(table, start, bit)
        for low, high in _PAIRS[bit]:
            x, y = values[low], values[high]
            values[low] = multiply_subtract(emit.builder, tangent, y, x)
            values[high] = multiply_add(emit.builder, tangent, x, y)
    for value, place in zip(values, places, strict=True):
        store_vector(emit.builder, value, place)


@intrinsic  # type: ignore[untyped-decorator]
def rotate_per_token(
    typing_context: Any, state: Any, source: Any, part: Any, index: Any, group: Any, table: Any
) -> Any:
    """Four rotations whose cos and sin differ from token to token: table holds 4 vectors of cos, then 4 of sin.

    Args:
        typing_context: numba's.
        state: amplitudes, a vector of tokens each.
        source: where the part begins that is read, in float32.
        part: where the part begins, in float32.
        index: positions of amplitudes, 16 to a group.
        group: where the group begins in `index`.
        table: coefficients, or vectors of cos and sin.
    """

    def body(emit: _Emitter) -> None:
        builder = emit.builder
        _, source, part, _, group, _ = emit.arguments
        offsets = emit.members(3, group)
        values = [load_vector(builder, emit.amplitude(0, source, offset)) for offset in offsets]
        for bit in range(BITS):
            cos = load_vector(builder, emit.vector(5, _constant(0), bit))
            sin = load_vector(builder, emit.vector(5, _constant(0), BITS + bit))
            for low, high in _PAIRS[bit]:
                x, y = values[low], values[high]
                values[low] = multiply_subtract(builder, sin, y, builder.fmul(cos, x, flags=FLAGS))
                values[high] = multiply_add(builder, sin, x, builder.fmul(cos, y, flags=FLAGS))
        for value, offset in zip(values, offsets, strict=True):
            store_vector(builder, value, emit.amplitude(0, part, offset))

    return types.void(state, types.intp, types.intp, index, types.intp, table), _emits(body)


@intrinsic  # type: ignore[untyped-decorator]
def add_slopes(
    typing_context: Any, state: Any, costate: Any, part: Any, index: Any, group: Any, sums: Any, start: Any
) -> Any:
    """sums[bit] += costate[1] state[0] - costate[0] state[1] over pairs of the bit: derivatives by the four angles.

    Args:
        typing_context: numba's.
        state: amplitudes, a vector of tokens each.
        costate: adjoint of the state.
        part: where the part begins, in float32.
        index: positions of amplitudes, 16 to a group.
        group: where the group begins in `index`.
        sums: derivatives or expectations, a vector each.
        start: where the chunk begins in `table`, or its sums in `sums`.
    """

    def body(emit: _Emitter) -> None:
        builder = emit.builder
        _, _, part, _, group, _, start = emit.arguments
        offsets = emit.members(3, group)
        duals = [load_vector(builder, emit.amplitude(1, part, offset)) for offset in offsets]
        slots = [emit.vector(5, start, bit) for bit in range(BITS)]
        # Two chains per sum, since one multiply-add waits for the one before it.
        chains = [[load_vector(builder, slot), ir.Constant(VECTOR, [0.0] * LANES)] for slot in slots]
        for k, offset in enumerate(offsets):
            value = load_vector(builder, emit.amplitude(0, part, offset))
            for bit in range(BITS):
                step = multiply_subtract if k >> bit & 1 else multiply_add
                chains[bit][k & 1] = step(builder, duals[k ^ 1 << bit], value, chains[bit][k & 1])
        for (first, second), slot in zip(chains, slots, strict=True):
            store_vector(builder, builder.fadd(first, second, flags=FLAGS), slot)

    return types.void(state, costate, types.intp, index, types.intp, sums, types.intp), _emits(body)


def _z(*, is_complex: bool) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def add_z(typing_context: Any, state: Any, size: Any, index: Any, group: Any, sums: Any) -> Any:
        """sums[bit] += Z of the four bits; returns the norm of the group. The state's parts are `size` numbers long."""

        def body(emit: _Emitter) -> Any:
            builder = emit.builder
            _, size, _, group, _ = emit.arguments
            offsets = emit.members(2, group)
            values = [load_vector(builder, emit.pointer(0, offset)) for offset in offsets]
            values = [builder.fmul(value, value, flags=FLAGS) for value in values]
            if is_complex:
                others = [load_vector(builder, emit.pointer(0, builder.add(size, offset))) for offset in offsets]
                values = [multiply_add(builder, b, b, a) for a, b in zip(values, others, strict=True)]
            for bit in range(BITS):
                slot = emit.vector(4, _constant(0), bit)
                sum_ = load_vector(builder, slot)
                halves = [values[2 * k : 2 * k + 2] for k in range(len(values) // 2)]
                for low, high in halves:
                    sum_ = builder.fadd(sum_, builder.fsub(low, high, flags=FLAGS), flags=FLAGS)
                store_vector(builder, sum_, slot)
                values = [builder.fadd(low, high, flags=FLAGS) for low, high in halves]
            return values[0]

        return lanes(state, types.intp, index, types.intp, sums), _emits(body)

    return add_z


add_z_real = _z(is_complex=False)
add_z_complex = _z(is_complex=True)


@intrinsic  # type: ignore[untyped-decorator]
def add_half_x(typing_context: Any, state: Any, part: Any, index: Any, group: Any, sums: Any, start: Any) -> Any:
    """sums[bit] += half of X of the four bits.

    Args:
        typing_context: numba's.
        state: amplitudes, a vector of tokens each.
        part: where the part begins, in float32.
        index: positions of amplitudes, 16 to a group.
        group: where the group begins in `index`.
        sums: derivatives or expectations, a vector each.
        start: where the chunk begins in `table`, or its sums in `sums`.
    """

    def body(emit: _Emitter) -> None:
        builder = emit.builder
        _, part, _, group, _, start = emit.arguments
        values = [load_vector(builder, emit.amplitude(0, part, offset)) for offset in emit.members(2, group)]
        slots = [emit.vector(4, start, bit) for bit in range(BITS)]
        sums_ = [load_vector(builder, slot) for slot in slots]
        for pair in range(SIZE // 2):
            for bit in range(BITS):
                low, high = _PAIRS[bit][pair]
                sums_[bit] = multiply_add(builder, values[low], values[high], sums_[bit])
        for sum_, slot in zip(sums_, slots, strict=True):
            store_vector(builder, sum_, slot)

    return types.void(state, types.intp, index, types.intp, sums, types.intp), _emits(body)


def _costate(*, with_z: bool, with_x: bool) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def costate_of(
        typing_context: Any, state: Any, costate: Any, part: Any, index: Any, group: Any, table: Any, shift: Any
    ) -> Any:
        """costate = (diagonal + shift + sum of x[bit] X) state, without Z: costate += (sum of x[bit] X) state.

        table: 16 vectors of the diagonal, then 4 of x; shift: a vector.
        """

        def body(emit: _Emitter) -> None:
            builder = emit.builder
            _, _, part, _, group, _, shift = emit.arguments
            offsets = emit.members(3, group)
            values = [load_vector(builder, emit.amplitude(0, part, offset)) for offset in offsets]
            factors = [load_vector(builder, emit.vector(5, _constant(0), SIZE + bit)) for bit in range(BITS)]
            for k, offset in enumerate(offsets):
                place = emit.amplitude(1, part, offset)
                if with_z:
                    diagonal = builder.fadd(load_vector(builder, emit.vector(5, _constant(0), k)), shift, flags=FLAGS)
                    result = builder.fmul(diagonal, values[k], flags=FLAGS)
                else:
                    result = load_vector(builder, place)
                if with_x:
                    for bit in range(BITS):
                        result = multiply_add(builder, factors[bit], values[k ^ 1 << bit], result)
                store_vector(builder, result, place)

        return types.void(state, costate, types.intp, index, types.intp, table, lanes), _emits(body)

    return costate_of


set_costate_zx = _costate(with_z=True, with_x=True)
set_costate_z = _costate(with_z=True, with_x=False)
add_costate_x = _costate(with_z=False, with_x=True)
