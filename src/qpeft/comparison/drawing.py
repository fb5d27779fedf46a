"""A circuit as a picture: a line per qubit, time to the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qpeft.circuits import Circuit
from qpeft.circuits.circuit import Angle, Input, Operation, Weight
from qpeft.comparison.svg import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN, BOX = 1.0, 0.72
INK, SOFT = LIGHT["ink"], LIGHT["soft"]


def columns(operations: Sequence[Operation]) -> list[int]:
    """Return the earliest column for each operation where no line that it crosses is taken."""
    free: dict[int, int] = {}
    found = []
    for operation in operations:
        # A vertical line from control to target also blocks the qubits between them.
        crossed = range(min(operation.qubits), max(operation.qubits) + 1)
        column = max(free.get(qubit, 0) for qubit in crossed)
        free |= dict.fromkeys(crossed, column + 1)
        found.append(column)
    return found


def draw(circuit: Circuit, axes: Axes) -> None:
    """Draw a circuit: angles from the data are x, on blue, trained ones w, on orange; a dot is a control."""
    places = columns(circuit.operations)
    width = max(places, default=0) + 1
    for qubit in range(circuit.num_qubits):
        axes.plot([-0.7, width - 0.3], [qubit, qubit], color=SOFT, linewidth=0.8, zorder=0)
        axes.text(-0.8, qubit, f"{qubit}", ha="right", va="center", fontsize=8, color=SOFT)
    for operation, column in zip(circuit.operations, places, strict=True):
        _draw_operation(operation, column * COLUMN, axes)
    axes.set(xlim=(-1.3, width), ylim=(circuit.num_qubits - 0.4, -0.6), aspect="equal")
    axes.axis("off")


def _draw_operation(operation: Operation, x: float, axes: Axes) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    *controls, target = operation.qubits
    for control in controls:
        axes.plot([x, x], [control, target], color=INK, linewidth=0.8, zorder=1)
        axes.plot([x], [control], "o", color=INK, markersize=4, zorder=2)
    colour = LIGHT[{Input: "input", Weight: "weight"}.get(type(operation.angle), "fixed")]
    corner = (x - BOX / 2, target - BOX / 2)
    axes.add_patch(Rectangle(corner, BOX, BOX, facecolor=colour, edgecolor=INK, linewidth=0.6, zorder=2))
    name = operation.gate_name[len(controls) :] if operation.gate_name.startswith("C") else operation.gate_name
    text = "\n".join(filter(None, (name, angle_name(operation.angle))))
    axes.text(x, target, text, ha="center", va="center", fontsize=6.5, linespacing=1, zorder=3, color=INK)


def angle_name(angle: Angle | None) -> str:
    """Return where an angle comes from, short enough for a box; empty for a gate without one."""
    match angle:
        case None:
            return ""
        case Input(index):
            return f"x{index}"
        case Weight(index):
            return f"w{index}"
        case _:
            return f"{angle:.2g}"
