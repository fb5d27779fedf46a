"""Drawings of circuits: a line per qubit, time to the right, as text or on axes of matplotlib.

Angles from the data are x0, x1, ..., trained ones w0, w1, ...; a dot is a control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qpeft.circuits.circuit import Angle, Circuit, Input, Operation, Weight

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "ink": "#1b1f24", "soft": "#57606a", "input": "#cfe8f7", "weight": "#fbe3c0", "fixed": "#eeeeee",
}  # fmt: skip
"""Of lines and text, of qubits, and of gates by where their angle comes from."""
BOX = 0.72
"""Side of a gate's box; columns are 1 apart."""


def circuit_text(circuit: Circuit) -> str:
    """Return a circuit as lines of text, one per qubit, qubit 0 first."""
    lines = [f"{qubit}: " for qubit in range(circuit.num_qubits)]
    width = max(map(len, lines))
    lines = [line.ljust(width) for line in lines]
    places = columns(circuit.operations)
    for column in range(max(places, default=-1) + 1):
        cells = [""] * circuit.num_qubits
        for operation, place in zip(circuit.operations, places, strict=True):
            if place == column:
                # The line from control to target crosses the qubits between them.
                for crossed in range(min(operation.qubits), max(operation.qubits)):
                    cells[crossed] = cells[crossed] or "|"
                name, angle = box_name(operation), angle_name(operation.angle)
                cells[operation.qubits[-1]] = f"{name}({angle})" if angle else name
                for control in operation.qubits[:-1]:
                    cells[control] = "*"
        # All lines grow by the same width, so that gates of one time stand under each other.
        width = max(map(len, cells))
        lines = [f"{line}-{cell.center(width, '-')}-" for line, cell in zip(lines, cells, strict=True)]
    return "\n".join(lines)


def draw_circuit(circuit: Circuit, axes: Axes, *, colours: Mapping[str, str] = COLOURS) -> None:
    """Draw a circuit on axes of matplotlib.

    Args:
        circuit: what to draw.
        axes: empty; its limits are set here, and its frame is hidden.
        colours: as `COLOURS`.
    """
    from matplotlib.patches import Rectangle  # noqa: PLC0415  (takes a second to import)

    ink, soft, places = colours["ink"], colours["soft"], columns(circuit.operations)
    width = max(places, default=0) + 1
    for qubit in range(circuit.num_qubits):
        axes.plot([-0.7, width - 0.3], [qubit, qubit], color=soft, linewidth=0.8, zorder=0)
        axes.text(-0.8, qubit, f"{qubit}", ha="right", va="center", fontsize=8, color=soft)
    for operation, x in zip(circuit.operations, map(float, places), strict=True):
        *controls, target = operation.qubits
        for control in controls:
            axes.plot([x, x], [control, target], color=ink, linewidth=0.8, zorder=1)
            axes.plot([x], [control], "o", color=ink, markersize=4, zorder=2)
        colour = colours[{Input: "input", Weight: "weight"}.get(type(operation.angle), "fixed")]
        corner = (x - BOX / 2, target - BOX / 2)
        axes.add_patch(Rectangle(corner, BOX, BOX, facecolor=colour, edgecolor=ink, linewidth=0.6, zorder=2))
        text = "\n".join(filter(None, (box_name(operation), angle_name(operation.angle))))
        axes.text(x, target, text, ha="center", va="center", fontsize=6.5, linespacing=1, zorder=3, color=ink)
    # Time runs to the right, and qubit 0 is at the top.
    axes.set(xlim=(-1.3, width), ylim=(circuit.num_qubits - 0.4, -0.6), aspect="equal")
    axes.axis("off")


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


def box_name(operation: Operation) -> str:
    """Return what stands in the box of a gate: its name, without the C of a control that is drawn as a dot."""
    is_controlled = len(operation.qubits) > 1 and operation.gate_name.startswith("C")
    return operation.gate_name[len(operation.qubits) - 1 :] if is_controlled else operation.gate_name


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
