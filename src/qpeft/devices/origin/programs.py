"""Circuits as the programs of a job: one each, or as many side by side as the chip has places for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qpeft.circuits import Circuit
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.devices.origin.chip import Chip
from qpeft.devices.origin.layout import Contents
from qpeft.errors import DeviceError

Structure = tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]


@dataclass(frozen=True)
class Program:
    """OriginIR, and what it holds."""

    text: str
    contents: Contents


def one_each(circuits: Sequence[Circuit], qubits: Sequence[int] = ()) -> list[Program]:
    """Every circuit in a program of its own, on the first of these qubits, by default 0, 1, 2, ..."""
    return [
        Program(to_origin_ir(circuit, qubits[: circuit.num_qubits] or None), Contents(circuit.num_qubits))
        for circuit in circuits
    ]


def check_places(circuits: Sequence[Circuit], qubits: Sequence[int], chip: Chip) -> None:
    """Raises: DeviceError if a circuit has more qubits than are given, or a gate where the chip has no living part."""
    for circuit in circuits:
        places = qubits or range(circuit.num_qubits)
        if circuit.num_qubits > len(places):
            raise DeviceError(f"The circuit has {circuit.num_qubits} qubits, and qubits names {list(places)}.")
        used = set(places[: circuit.num_qubits])
        if dead := sorted(used - set(chip.qubits)):
            raise DeviceError(
                f"Qubit(s) {dead} of chip {chip.name} are not alive; `find_blocks` names places that are."
            )
        for operation in circuit.operations:
            edge = tuple(sorted(places[qubit] for qubit in operation.qubits))
            if len(edge) == 2 and edge not in chip.edges:
                raise DeviceError(
                    f"{operation.gate_name} would need a living coupler between qubits {edge[0]} and {edge[1]} of chip "
                    f"{chip.name}. Name other qubits (`find_blocks` finds some), or let the cloud map the circuit."
                )


def structure_of(circuits: Sequence[Circuit]) -> tuple[Structure, Circuit]:
    """Gates and qubits that all of them share, and the first that has them; only angles may differ.

    Circuits that only flip qubits, as those of known outcome do, need no couplers: they fit wherever the others do.
    Raises: DeviceError if they do not.
    """
    found = [
        (circuit.num_qubits, tuple((operation.gate_name, operation.qubits) for operation in circuit.operations))
        for circuit in circuits
    ]
    first = next((number for number, (_, gates) in enumerate(found) if any(name != "X" for name, _ in gates)), 0)
    size, whole = found[first]
    for number, (own_size, gates) in enumerate(found):
        if own_size != size or (gates != whole and any(name != "X" for name, _ in gates)):
            raise DeviceError(
                f"Side by side go circuits that differ in nothing but angles; circuit {number} of the job has other "
                f"gates than circuit {first}. Send them in jobs of their own, or without side_by_side."
            )
    return found[first], circuits[first]


def side_by_side(circuits: Sequence[Circuit], blocks: Sequence[tuple[int, ...]]) -> list[Program]:
    """As many circuits in a program as there are blocks, circuit k of a program on block k."""
    programs = []
    for first in range(0, len(circuits), len(blocks)):
        group = circuits[first : first + len(blocks)]
        size = group[0].num_qubits
        whole = Circuit(
            size * len(group),
            tuple(
                replace(operation, qubits=tuple(place * size + qubit for qubit in operation.qubits))
                for place, circuit in enumerate(group)
                for operation in circuit.operations
            ),
        )
        qubits = [qubit for block in blocks[: len(group)] for qubit in block]
        programs.append(Program(to_origin_ir(whole, qubits), Contents(size, len(group))))
    return programs
