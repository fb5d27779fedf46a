"""Angles that differ from token to token: cos and sin of their halves, for one block.

Angles are summed in double precision, since they may be many turns; what is left within half a turn needs float32 only.
"""
# ruff: noqa: ARG001 - numba asks for the types of all arguments, code is generated from `arguments`
# mypy: disable-error-code="no-untyped-def"
# Types are those that numba infers.

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

from qpeft.simulation.kernel.lanes import (
    FLAGS,
    LANES,
    VECTOR,
    element,
    multiply_add,
    multiply_subtract,
    splat_scalar,
    store_vector,
)
from qpeft.simulation.kernel.layout import ANGLES, INPUT_PARTS, LANE_ROWS, inline, row_of

WIDE = ir.VectorType(ir.DoubleType(), LANES)
PI = (3.1415926534682512, 1.2154201013012384e-10)
"""Whose sum is pi; the first has 33 bits, so that it times a number of turns is exact up to angles of 1e6."""
COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(7)]
SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)]
"""Taylor series in the square, good to 7e-9 up to pi / 2."""


class WideType(types.Type):
    """The numba type of one float64 per lane."""

    def __init__(self) -> None:
        super().__init__(name=f"float64x{LANES}")


wide = WideType()


@register_model(WideType)
class WideModel(models.PrimitiveModel):
    """Held as an LLVM vector, in two registers or more."""

    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, WIDE)


@intrinsic  # type: ignore[untyped-decorator]
def splat_wide(typing_context: Any, value: Any) -> Any:
    """The same float64 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return splat_scalar(builder, arguments[0], WIDE)

    return wide(types.float64), generate


@intrinsic  # type: ignore[untyped-decorator]
def plus_column(
    typing_context: Any, angles: Any, coefficient: Any, inputs: Any, start: Any, count: Any, column: Any
) -> Any:
    """angles + coefficient * inputs[start : start + count, column]; lanes beyond `count` get the last of these rows.

    Args:
        typing_context: numba's.
        angles: float64 vector, or the shared angles.
        coefficient: of the column, float64.
        inputs: (tokens, num_inputs), radians.
        start: first token of the block.
        count: tokens of the block, at most `LANES`.
        column: of the inputs.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        angles, coefficient, inputs, start, count, column = arguments
        array = context.make_array(signature.args[2])(context, builder, value=inputs)
        width = builder.extract_value(array.shape, 1)
        first = builder.gep(array.data, [builder.add(builder.mul(start, width), column)])
        values = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(LANES):
            place = ir.Constant(ir.IntType(64), lane)
            beyond = builder.icmp_signed(">=", place, count)
            row = builder.select(beyond, builder.sub(count, ir.Constant(ir.IntType(64), 1)), place)
            value = builder.load(builder.gep(first, [builder.mul(row, width)]))
            values = builder.insert_element(values, value, ir.Constant(ir.IntType(32), lane))
        return multiply_add(builder, builder.fpext(values, WIDE), splat_scalar(builder, coefficient, WIDE), angles)

    return wide(wide, types.float64, inputs, types.intp, types.intp, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_halves(typing_context: Any, cosines: Any, offset: Any, angles: Any) -> Any:
    """Puts cos and sin of half the angles at `offset`, both negated for some tokens: a state's sign has no effect.

    Args:
        typing_context: numba's.
        cosines: where the results go.
        offset: in float32.
        angles: float64 vector, or the shared angles.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cosines, offset, angles = arguments
        half = builder.fmul(angles, ir.Constant(WIDE, [0.5] * LANES), flags=FLAGS)
        nearest = builder.module.declare_intrinsic("llvm.nearbyint.v16f64", (), ir.FunctionType(WIDE, [WIDE]))
        turns = builder.call(nearest, [builder.fmul(half, ir.Constant(WIDE, [1 / math.pi] * LANES), flags=FLAGS)])
        # pi in two parts: the first times a number of turns is exact, so nothing of the angle is lost.
        for share in PI:
            half = multiply_subtract(builder, turns, ir.Constant(WIDE, [share] * LANES), half)
        rest = builder.fptrunc(half, VECTOR)
        square = builder.fmul(rest, rest, flags=FLAGS)
        # Within half a turn the Taylor series is as good as float32, and has no branch.
        cos, sin = (_series(builder, square, coefficients) for coefficients in (COSINE, SINE))
        sin = builder.fmul(rest, sin, flags=FLAGS)
        for value, place in ((cos, offset), (sin, builder.add(offset, ir.Constant(ir.IntType(64), LANES)))):
            store_vector(builder, value, element(context, builder, signature.args[0], cosines, place))
        return context.get_dummy_value()

    return types.void(cosines, types.intp, wide), generate


def _series(builder: Any, variable: Any, coefficients: list[float]) -> Any:
    *lower, value = (ir.Constant(VECTOR, [coefficient] * LANES) for coefficient in coefficients)
    for constant in reversed(lower):
        value = multiply_add(builder, value, variable, constant)
    return value


@inline
def token_angles(code, numbers, angles, inputs, start, count, cosines):
    """cos and sin of half the lane rows' angles of `count` tokens; lanes beyond repeat the last of them.

    Args:
        code: the program as integers, see `KernelProgram`.
        numbers: constants of the program, float64.
        angles: float64 vector, or the shared angles.
        inputs: (tokens, num_inputs), radians.
        start: first token of the block.
        count: tokens of the block, at most `LANES`.
        cosines: where the results go.
    """
    for row in range(code[LANE_ROWS]):
        at, sums = row_of(code, ANGLES, row), splat_wide(angles[row])
        for part in range(code[at + 3], code[at + 3] + code[at + 4]):
            place = row_of(code, INPUT_PARTS, part)
            sums = plus_column(sums, numbers[code[place + 1]], inputs, start, count, code[place])
        store_halves(cosines, 2 * row * LANES, sums)
