"""How compiled code reads a program: its constants as plain integers, which is what numba compiles."""
# mypy: disable-error-code="no-untyped-def"
# Types are those that numba infers.

from __future__ import annotations

import inspect
from typing import Any

import numba as nb

from qpeft.simulation.kernel.program import ROW, Op, ProgramSection, Scalar


def inline(function: Any) -> Any:
    """Compiles a function that compiled code calls. A type checker around it, as in the tests, is taken off."""
    return nb.njit(error_model="numpy", nogil=True)(inspect.unwrap(function))


SIGNS, PROMOTE, PHASES, ROTATIONS, TOKEN_PROMOTE, TOKEN_PHASES = (int(op) for op in Op)
INSTRUCTIONS, CHUNKS, TERMS, MEASURED, STRINGS, COMBINATIONS, ANGLES, WEIGHT_PARTS, INPUT_PARTS = (
    int(s) for s in ProgramSection
)
STATE_QUBITS, LANE_ROWS, FIRST_ROTATIONS = int(Scalar.STATE_QUBITS), int(Scalar.LANE_ROWS), int(Scalar.FIRST_ROTATIONS)
NUM_SUMS, NUM_EXPECTATIONS = int(Scalar.NUM_SUMS), int(Scalar.NUM_EXPECTATIONS)
NUM_OBSERVABLES, TRAINS_FOLDED = int(Scalar.NUM_OBSERVABLES), int(Scalar.TRAINS_FOLDED)
CLOSED_FORM = int(Scalar.CLOSED_FORM)


@inline
def row_of(code, section, number):
    """Start of a row of a section in `code`.

    Args:
        code: the program as integers, see `KernelProgram`.
        section: of the program.
        number: of the row in the section.
    """
    return code[2 * section] + number * ROW


@inline
def parity(value):
    """Number of set bits, modulo 2."""
    value ^= value >> 32
    value ^= value >> 16
    value ^= value >> 8
    value ^= value >> 4
    value ^= value >> 2
    value ^= value >> 1
    return value & 1
