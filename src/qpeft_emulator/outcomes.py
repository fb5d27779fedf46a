"""What one program gives on the machine: counts of bit strings, and shares with the readout errors taken out.

Qubits that no gate joins are simulated apart, so a program may fill the chip; only the groups are limited. Random
numbers are a function of seed, number of the job, text of the program and how many equal programs stand before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from qpeft.circuits.native import Pulse, to_native
from qpeft.errors import DeviceError
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream
from qpeft_emulator import density, placement
from qpeft_emulator.machine import Machine
from qpeft_emulator.parser import ParsedProgram

MAX_AMENDED_BITS = 12


@dataclass(frozen=True)
class RunOptions:
    """How the cloud is asked to run programs.

    Attributes:
        shots: per program, at least 1.
        amend: whether readout errors are taken out of the shares.
        mapping: whether the cloud chooses the qubits.
        optimise: whether gates in a row on one qubit become one.
        block: qubits that mapping may use; empty for all.
    """

    shots: int
    amend: bool = False
    mapping: bool = False
    optimise: bool = False
    block: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Result of one program; keys are integers whose bit k is classical bit k.

    Attributes:
        counts: how often each bit string came out, most frequent first; sums to the shots.
        shares: of each of these keys; counts by shots, or amended. Sum 1.
        num_measured: measured qubits.
        places: chip qubit of every qubit of the program.
    """

    counts: dict[int, int]
    shares: dict[int, float]
    num_measured: int
    places: dict[int, int]


def run_program(
    machine: Machine, program: ParsedProgram, options: RunOptions, job_number: int, key: SampleKey
) -> Outcome:
    """Run one program on the machine.

    Args:
        machine: the chip with its hidden errors.
        program: as parsed.
        options: shots, and what the client asked of the compiler.
        job_number: counts the cloud's jobs, since errors drift.
        key: of all samples.

    Raises: DeviceError if it does not fit on the chip, a group of coupled qubits is too large to be simulated, nothing
        is measured, or readout is to be amended on too many bits.
    """
    if not program.measurements:
        raise DeviceError("The program measures nothing; end it with MEASURE statements.")
    if options.amend and len(program.measurements) > MAX_AMENDED_BITS:
        raise DeviceError(
            f"The emulator amends readout of at most {MAX_AMENDED_BITS} bits; the program measures "
            f"{len(program.measurements)}. Switch it off (amend flag 0) and correct marginals."
        )
    if options.mapping:
        placed = placement.mapped(program, machine.chip, options.block or tuple(machine.chip.qubits))
    else:
        placed = placement.as_written(program, machine.chip)
    bits = {placed.places[qubit]: bit for qubit, bit in program.measurements}
    # Besides the qubits of the program also those that its SWAPs pass through.
    used = {qubit for operation in placed.operations for qubit in operation.qubits} | set(placed.places.values())
    native = to_native(placed.operations, optimise=options.optimise)

    # (shots, measured), columns by ascending classical bit. Groups that no gate joins are independent, so each is
    # sampled apart, with random numbers named by its first qubit.
    columns = {bit: column for column, bit in enumerate(sorted(bits.values()))}
    table = np.zeros((options.shots, len(bits)), np.uint8)
    for group in placement.coupled_groups(used, placed.operations):
        measured = [qubit for qubit in group if qubit in bits]
        if not measured:
            continue
        if len(group) > density.MAX_QUBITS:
            raise DeviceError(
                f"Gates join {len(group)} qubits of the program, {group[0]} and others; the emulator simulates at most "
                f"{density.MAX_QUBITS} that are joined. A program may have many such groups."
            )
        own = [gate for gate in native if (gate.qubit if isinstance(gate, Pulse) else gate.qubits[0]) in group]
        probabilities = density.outcome_probabilities(machine, own, group, measured, job_number)
        uniforms = Stream(key, group[0]).uniforms(options.shots).numpy()
        # The cumulative sum may end at 1 - 1e-16, and a uniform above it would name an outcome that does not exist.
        drawn = np.searchsorted(np.cumsum(probabilities), uniforms, side="right").clip(max=len(probabilities) - 1)
        for place, qubit in enumerate(measured):  # the first measured qubit is the highest bit of `drawn`
            table[:, columns[bits[qubit]]] = drawn >> (len(measured) - 1 - place) & 1

    # Rows as bytes: counting them takes one pass, and only different rows become integers.
    packed = Counter(row.tobytes() for row in table)
    values = {raw: sum(1 << bit for bit, one in zip(columns, raw, strict=True) if one) for raw in packed}
    ordered = sorted(packed.items(), key=lambda item: (-item[1], values[item[0]]))
    counts = {values[raw]: count for raw, count in ordered}
    shares = {value: count / options.shots for value, count in counts.items()}
    if options.amend:
        ordered_qubits = sorted(bits, key=lambda qubit: bits[qubit])
        whole = np.zeros([2] * len(bits))
        for value, share in shares.items():
            whole[tuple(value >> bits[qubit] & 1 for qubit in ordered_qubits)] = share
        # Qubits are misread independently, so the inverse of the whole matrix is a product of inverses, one per axis.
        for axis, qubit in enumerate(ordered_qubits):
            errors = machine.known_readout(qubit)
            confusion = [[1 - errors.p1_given_0, errors.p0_given_1], [errors.p1_given_0, 1 - errors.p0_given_1]]
            whole = np.moveaxis(np.tensordot(np.linalg.inv(confusion), whole, (1, axis)), 0, axis)
        # Sampling noise makes shares of rare outcomes negative; what is cut off there is taken from all others.
        positive = whole.clip(min=0) / whole.clip(min=0).sum()
        shares = {
            sum(int(bit) << bits[qubit] for bit, qubit in zip(where, ordered_qubits, strict=True)): float(
                positive[tuple(where)]
            )
            for where in np.argwhere(positive > 0)
        }
    return Outcome(counts, shares, len(bits), dict(placed.places))
