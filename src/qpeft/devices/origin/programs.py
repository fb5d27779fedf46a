"""Circuits as the programs of a job: one each, or as many side by side as the chip has places for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qpeft.circuits import Circuit
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.devices.origin.layout import Contents
from qpeft.errors import DeviceError

Structure = tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]


@dataclass(frozen=True)
class Program:
    """OriginIR, and what it holds."""

    text: str
    contents: Contents


def one_each(circuits: Sequence[Circuit]) -> list[Program]:
    """Every circuit in a program of its own, on qubits 0, 1, 2, ..."""
    return [Program(to_origin_ir(circuit), Contents(circuit.num_qubits)) for circuit in circuits]


def structure_of(circuits: Sequence[Circuit]) -> Structure:
    """Gates and qubits that all of them share; only angles may differ.

    Raises: DeviceError if they do not.
    """
    found = [
        (circuit.num_qubits, tuple((operation.gate_name, operation.qubits) for operation in circuit.operations))
        for circuit in circuits
    ]
    different = next((number for number, one in enumerate(found) if one != found[0]), None)
    if different is not None:
        raise DeviceError(
            f"Side by side go circuits that differ in nothing but angles; circuit {different} of the job has other "
            "gates than the first. Send them in jobs of their own, or without side_by_side."
        )
    return found[0]


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
