"""A circuit as a picture: a line per qubit, time to the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qpeft.circuits import Circuit
from qpeft.circuits.circuit import Input, Operation, Weight

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN, BOX = 1.0, 0.72
INPUT_COLOUR, WEIGHT_COLOUR, FIXED_COLOUR = "#cfe8f7", "#fbe3c0", "#eeeeee"


def columns(operations: Sequence[Operation]) -> list[int]:
    """For each operation the earliest column where no line that it crosses is taken."""
    free: dict[int, int] = {}
    found = []
    for operation in operations:
        crossed = range(min(operation.qubits), max(operation.qubits) + 1)
        column = max(free.get(qubit, 0) for qubit in crossed)
        free |= dict.fromkeys(crossed, column + 1)
        found.append(column)
    return found


def draw(circuit: Circuit, axes: Axes) -> None:
    """Draw it: angles from the data on blue, trained ones on orange; a dot is a control."""
    places = columns(circuit.operations)
    width = max(places, default=0) + 1
    for qubit in range(circuit.num_qubits):
        axes.plot([-0.7, width - 0.3], [qubit, qubit], color="#555555", linewidth=0.8, zorder=0)
        axes.text(-0.8, qubit, f"{qubit}", ha="right", va="center", fontsize=8)
    for operation, column in zip(circuit.operations, places, strict=True):
        _draw_operation(operation, column * COLUMN, axes)
    axes.set(xlim=(-1.3, width), ylim=(circuit.num_qubits - 0.4, -0.6), aspect="equal")
    axes.axis("off")


def _draw_operation(operation: Operation, x: float, axes: Axes) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    *controls, target = operation.qubits
    for control in controls:
        axes.plot([x, x], [control, target], color="#333333", linewidth=0.8, zorder=1)
        axes.plot([x], [control], "o", color="#333333", markersize=4, zorder=2)
    colour = {Input: INPUT_COLOUR, Weight: WEIGHT_COLOUR}.get(type(operation.angle), FIXED_COLOUR)
    corner = (x - BOX / 2, target - BOX / 2)
    axes.add_patch(Rectangle(corner, BOX, BOX, facecolor=colour, edgecolor="#333333", linewidth=0.6, zorder=2))
    name = operation.gate_name[len(controls) :] if operation.gate_name.startswith("C") else operation.gate_name
    axes.text(x, target, name, ha="center", va="center", fontsize=6, zorder=3)
