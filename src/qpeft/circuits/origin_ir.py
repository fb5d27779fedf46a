"""Circuits as OriginIR, the text that Origin's cloud and its pyqpanda3 read.

Only words that pyqpanda3's own parser takes are written: it has no SX, CY or SDG, and prints a controlled rotation as a
CONTROL block. Those are written with other gates here, which cost a chip the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from qpeft.circuits.circuit import Circuit
from qpeft.circuits.decomposition import bound_angle, rewrite
from qpeft.errors import CircuitError

ORIGIN_NAMES: dict[str, str] = {
    **{name: name for name in ("H", "X", "Y", "Z", "S", "T", "CNOT", "CZ", "SWAP", "RX", "RY", "RZ")},
    **{name: name for name in ("RXX", "RYY", "RZZ")},
    "SX": "X1",
    "PHASE": "P",
    "CPHASE": "CR",
}
"""Gates that OriginIR has, our name to its name; equal up to a global phase."""
DAGGERS: dict[str, str] = {"SDG": "S", "TDG": "T"}
"""Gates that OriginIR writes as another one in a DAGGER block. All others are rewritten in those it has."""


def to_origin_ir(circuit: Circuit, qubits: Sequence[int] | None = None) -> str:
    """Return a program that runs `circuit` and measures all its qubits, qubit k into classical bit k.

    Args:
        circuit: with numbers for all angles; its observables do not matter.
        qubits: of the chip, one per qubit of the circuit; by default 0, 1, 2, ...

    Returns:
        One statement per line. The vendor prints bit strings with classical bit 0, hence our qubit 0, on the right.

    Raises: CircuitError if an angle is no number, or `qubits` are too few, too many, repeated or negative.
    """
    chosen = tuple(range(circuit.num_qubits)) if qubits is None else tuple(qubits)
    if len(chosen) != circuit.num_qubits or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise CircuitError(f"The circuit needs {circuit.num_qubits} different qubit(s) of the chip; got {chosen}.")
    # Qubits are declared by their number alone, so those between the chosen ones are declared too.
    lines = [f"QINIT {max(chosen) + 1}", f"CREG {circuit.num_qubits}"]
    for operation in rewrite(circuit, {*ORIGIN_NAMES, *DAGGERS}).operations:
        names = ",".join(f"q[{chosen[qubit]}]" for qubit in operation.qubits)
        if operation.gate_name in DAGGERS:
            lines += ["DAGGER", f"{DAGGERS[operation.gate_name]} {names}", "ENDDAGGER"]
            continue
        angle = bound_angle(operation)
        # repr: the shortest text that reads back as the same number. pyqpanda3 prints 8 decimals, but reads more.
        lines.append(f"{ORIGIN_NAMES[operation.gate_name]} {names}" + ("" if angle is None else f",({float(angle)!r})"))
    lines += [f"MEASURE q[{qubit}],c[{bit}]" for bit, qubit in enumerate(chosen)]
    return "\n".join(lines) + "\n"
