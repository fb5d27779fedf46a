"""How a chip behaves: its calibration, and effects that the calibration does not tell of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from qpeft.simulation.noise import (
    Damping,
    EdgeNoise,
    NoiseModel,
    QubitNoise,
    ReadoutError,
    SampleKey,
    depolarising_from_fidelity,
)
from qpeft.simulation.noise.counter import Stream
from qpeft_emulator import chip as chips
from qpeft_emulator.chip import DOUBLE_GATE_NS, SINGLE_GATE_NS, Edge, EmulatedChip, QubitCalibration

ECHO_FACTOR = 8
"""Listed T2 is too short for the listed gate fidelities: at 1.4 us a 30 ns pulse would lose 0.7 % to dephasing alone.
So it is taken to be that of slow noise, which gates feel this much less."""
DRIFT_PERIOD = 200
"""Jobs after which the slow drift of the chip repeats."""
OVER_ROTATION_DRIFT, READOUT_DRIFT = 0.01, 0.2
"""Largest change by drift: of the angle of a pulse, relative; of the readout errors, relative."""


@dataclass(frozen=True)
class HiddenEffects:
    """What chipInfo does not list; empty for a chip that keeps its word.

    Attributes:
        over_rotation: by qubit; a pulse meant to turn by an angle turns by (1 + this) times it.
        phase_error: by edge, radians; what CZ adds to its conditional phase of pi.
        zz: by edge, radians; angle of the RZZ that a CZ causes on every living coupler of its two qubits.
        readout_skew: by qubit, 0 to 1; a 1 is misread (1 + this) and a 0 (1 - this) times as often as listed.
        phases: by qubit, radians; where in its slow drift the qubit is at job 0. A qubit without one does not drift.
    """

    over_rotation: Mapping[int, float] = field(default_factory=dict)
    phase_error: Mapping[Edge, float] = field(default_factory=dict)
    zz: Mapping[Edge, float] = field(default_factory=dict)
    readout_skew: Mapping[int, float] = field(default_factory=dict)
    phases: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def drawn(cls, chip: EmulatedChip, seed: int) -> HiddenEffects:
        """Return effects as on superconducting chips: over-rotations of 1 to 3 %, ZZ of about 100 kHz for 40 ns."""
        stream, qubits, edges = Stream(SampleKey(seed, module="hidden")), list(chip.qubits), list(chip.edges)
        # Three numbers per qubit and two per edge, drawn in this order: a seed stands for one chip for ever.
        by_qubit = [dict(zip(qubits, stream.uniforms(len(qubits)).tolist(), strict=True)) for _ in range(3)]
        by_edge = [dict(zip(edges, stream.uniforms(len(edges)).tolist(), strict=True)) for _ in range(2)]
        return cls(
            over_rotation={qubit: 0.01 + 0.02 * u for qubit, u in by_qubit[0].items()},
            phase_error={edge: 0.12 * (u - 0.5) for edge, u in by_edge[0].items()},
            zz={edge: 0.015 + 0.02 * u for edge, u in by_edge[1].items()},
            readout_skew={qubit: 0.2 + 0.3 * u for qubit, u in by_qubit[1].items()},
            phases={qubit: 2 * math.pi * u for qubit, u in by_qubit[2].items()},
        )


@dataclass(frozen=True)
class Machine:
    """A chip with its hidden effects: the truth that jobs run on."""

    chip: EmulatedChip
    hidden: HiddenEffects = HiddenEffects()

    @cached_property
    def gate_noise(self) -> NoiseModel:
        """Damping and depolarising after gates, such that every gate has its listed fidelity; no readout errors."""
        # Damping for as long as the gate lasts, and depolarising for what is then left of the listed error.
        pulse = {qubit: _damping(listed, SINGLE_GATE_NS) for qubit, listed in self.chip.qubits.items()}
        flip = {qubit: _damping(listed, DOUBLE_GATE_NS) for qubit, listed in self.chip.qubits.items()}
        edges = {}
        for edge, fidelity in self.chip.edges.items():
            if fidelity > 0:
                damping = (flip[edge[0]], flip[edge[1]])
                edges[edge] = EdgeNoise(depolarising_from_fidelity(fidelity, damping), damping)
        qubits = {
            qubit: QubitNoise(depolarising_from_fidelity(listed.gate_fidelity, [pulse[qubit]]), pulse[qubit])
            for qubit, listed in self.chip.qubits.items()
        }
        return NoiseModel.from_mappings(qubits, edges)

    def over_rotation(self, qubit: int, job_number: int) -> float:
        """Return the relative error of the angle of this qubit's pulses."""
        return self.hidden.over_rotation.get(qubit, 0.0) + OVER_ROTATION_DRIFT * self._drift(qubit, job_number)

    def readout(self, qubit: int, job_number: int) -> ReadoutError:
        """Return readout errors as they are at this job."""
        known, change = self.known_readout(qubit), 1 + READOUT_DRIFT * self._drift(qubit, job_number)
        return ReadoutError(known.p1_given_0 * change, known.p0_given_1 * change)

    def known_readout(self, qubit: int) -> ReadoutError:
        """Return readout errors as the cloud's own amendment knows them: without drift."""
        # A qubit decays while it is read, so a 1 is misread more often than a 0, while the list has their mean.
        error, skew = 1 - self.chip.qubits[qubit].readout_fidelity, self.hidden.readout_skew.get(qubit, 0.0)
        return ReadoutError(error * (1 - skew), error * (1 + skew))

    def phase_error(self, edge: Edge) -> float:
        """Return the radians that CZ on this edge adds to pi."""
        return self.hidden.phase_error.get((min(edge), max(edge)), 0.0)

    def zz(self, edge: Edge) -> float:
        """Return the radians of RZZ that a CZ on one of the two qubits leaves on this edge."""
        return self.hidden.zz.get((min(edge), max(edge)), 0.0)

    def _drift(self, qubit: int, job_number: int) -> float:
        """Return how far the qubit has drifted, from -1 to 1."""
        if qubit not in self.hidden.phases:
            return 0.0
        # Every qubit has its own phase, so that at no time all of them are at their best or worst.
        return math.sin(2 * math.pi * job_number / DRIFT_PERIOD + self.hidden.phases[qubit])


def _damping(listed: QubitCalibration, nanoseconds: int) -> Damping:
    # T2 <= 2 T1 by physics, after the factor as well as before.
    t2 = min(2 * listed.t1, ECHO_FACTOR * listed.t2)
    return Damping.from_times(t1=listed.t1, t2=t2, duration=nanoseconds / 1000)


ChipName = Literal["wukong", "clean", "perfect"]


def open_machine(name: ChipName, seed: int) -> Machine:
    """Return a chip with what it hides: only Wukong hides anything, and only Wukong depends on the seed."""
    if name == "wukong":
        chip = chips.wukong(seed)
        return Machine(chip, HiddenEffects.drawn(chip, seed))
    return Machine(chips.clean() if name == "clean" else chips.perfect())
