"""Vectors of `LANES` float32 as numba values: one lane per token.

Numba has no vector type, and leaves vectorisation to a compiler pass that gives up on interleaved loads and stores.
These few operations emit LLVM vector instructions directly; LLVM maps them to AVX-512, AVX2 or NEON, whichever the
processor has.
"""
# ruff: noqa: ARG001 - numba asks for the types of all arguments, code is generated from `arguments`

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Tokens per vector: one 512-bit register, or two of 256 bits."""

SCALAR = ir.FloatType()
VECTOR = ir.VectorType(SCALAR, LANES)
FLAGS = ("contract", "nsz")  # allows fused multiply-add; no reordering, so results do not depend on the compiler's mood


class LanesType(types.Type):
    """The numba type of one vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


lanes = LanesType()


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """A vector is held as an LLVM vector, in a register."""

    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, VECTOR)


def element(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Pointer to entry `offset` of a contiguous array, unchecked.

    Args:
        context: numba's.
        builder: of LLVM code.
        array_type: numba type of the array.
        array: contiguous float32.
        offset: in float32.
    """
    data = context.make_array(array_type)(context, builder, value=array).data
    return builder.gep(data, [offset])


def load_vector(builder: Any, pointer: Any) -> Any:
    """The vector at `pointer`, which need not be aligned."""
    # Vectors that find no register go to the stack, and there they must not straddle two cache lines.
    builder.function.attributes.add("nounwind")
    builder.function.attributes.alignstack = 64
    return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def store_vector(builder: Any, value: Any, pointer: Any) -> None:
    """Puts the vector at `pointer`, which need not be aligned.

    Args:
        builder: of LLVM code.
        value: LLVM value.
        pointer: to float32.
    """
    builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def splat_scalar(builder: Any, value: Any, vector: Any = VECTOR) -> Any:
    """The vector with `value` in every lane.

    Args:
        builder: of LLVM code.
        value: LLVM value.
        vector: LLVM type of the result.
    """
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def multiply_add(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """left * right + addend.

    Args:
        builder: of LLVM code.
        left: factor.
        right: factor.
        addend: what the product is added to.
    """
    return builder.fadd(builder.fmul(left, right, flags=FLAGS), addend, flags=FLAGS)


def multiply_subtract(builder: Any, left: Any, right: Any, minuend: Any) -> Any:
    """minuend - left * right.

    Args:
        builder: of LLVM code.
        left: factor.
        right: factor.
        minuend: what the product is taken from.
    """
    return builder.fsub(minuend, builder.fmul(left, right, flags=FLAGS), flags=FLAGS)


@intrinsic  # type: ignore[untyped-decorator]
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """Vector from array[offset : offset + LANES].

    Args:
        typing_context: numba's.
        array: contiguous float32.
        offset: in float32.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return load_vector(builder, element(context, builder, signature.args[0], *arguments))

    return lanes(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """array[offset : offset + LANES] = value.

    Args:
        typing_context: numba's.
        array: contiguous float32.
        offset: in float32.
        value: LLVM value.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = element(context, builder, signature.args[0], arguments[0], arguments[1])
        store_vector(builder, arguments[2], pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def splat(typing_context: Any, value: Any) -> Any:
    """The same float32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return splat_scalar(builder, arguments[0])

    return lanes(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def multiply(typing_context: Any, left: Any, right: Any) -> Any:
    """left * right.

    Args:
        typing_context: numba's.
        left: factor.
        right: factor.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments, flags=FLAGS)

    return lanes(lanes, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def plus_product(typing_context: Any, addend: Any, left: Any, right: Any) -> Any:
    """addend + left * right.

    Args:
        typing_context: numba's.
        addend: what the product is added to.
        left: factor.
        right: factor.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return multiply_add(builder, arguments[1], arguments[2], arguments[0])

    return lanes(lanes, lanes, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def minus_product(typing_context: Any, minuend: Any, left: Any, right: Any) -> Any:
    """minuend - left * right.

    Args:
        typing_context: numba's.
        minuend: what the product is taken from.
        left: factor.
        right: factor.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return multiply_subtract(builder, arguments[1], arguments[2], arguments[0])

    return lanes(lanes, lanes, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def total(typing_context: Any, value: Any) -> Any:
    """Sum over lanes in double precision, in a fixed order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), 0.0))
        for lane in range(LANES):
            entry = builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), lane))
            builder.store(builder.fadd(builder.load(wide), builder.fpext(entry, ir.DoubleType())), wide)
        return builder.load(wide)

    return types.float64(lanes), generate
