"""Everything that is measured of one ansatz before any training: what it costs, and what it does at random angles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from qpeft.adapters.qtha import QthaConfig
from qpeft.adapters.qtha.config import MAX_QUBITS
from qpeft.analysis.random_angles import (
    Estimate,
    GradientSize,
    at_start,
    entangling_capability,
    expressibility,
    gradient_size,
    reached_states,
    uniform,
)
from qpeft.analysis.spectrum import Spectrum, spectrum
from qpeft.circuits import Circuit, Operation
from qpeft.circuits.ansatz import ANSATZE
from qpeft.circuits.circuit import bind
from qpeft.circuits.decomposition import to_controlled_z
from qpeft.errors import CircuitError
from qpeft.simulation import compile_plan, dead_weights
from qpeft.simulation.threads import one_thread

SAMPLES = 5000
GROWTH = tuple(range(2, 11))
"""Numbers of qubits at which gradients are measured, beside that asked for."""


@dataclass(frozen=True)
class Resources:
    """Counts of one circuit, and whether it needs a quantum computer or a simulator at all.

    Attributes:
        gates, two_qubit_gates: as the circuit is drawn.
        controlled_z: two-qubit gates once all are written with CZ, the gate of common superconducting chips.
        depth: gates one after another on the longest path, as drawn.
        weights: trained angles; `dead_weights` of them have no effect on any value.
        has_classical_form: whether values are short sums of products of sines and cosines, so that simulating it
            exactly needs no state vector and it is no evidence of anything quantum.
    """

    gates: int
    two_qubit_gates: int
    controlled_z: int
    depth: int
    weights: int
    dead_weights: int
    has_classical_form: bool


def resources(circuit: Circuit) -> Resources:
    """Return the counts of a circuit. Raises: CircuitError if a gate on two qubits cannot be written with CZ."""
    # Which gates a circuit comes apart into does not depend on its angles.
    bound = bind(circuit, [0.0] * circuit.num_inputs, [0.0] * circuit.num_weights)
    return Resources(
        gates=len(circuit.operations),
        two_qubit_gates=sum(len(operation.qubits) == 2 for operation in circuit.operations),
        controlled_z=sum(len(operation.qubits) == 2 for operation in to_controlled_z(bound.operations)),
        depth=longest_path(circuit.operations),
        weights=circuit.num_weights,
        dead_weights=len(dead_weights(circuit)),
        has_classical_form=compile_plan(circuit).is_closed_form,
    )


def longest_path(operations: Sequence[Operation]) -> int:
    """Return the number of time steps, where each gate starts as soon as its qubits are free."""
    ends: dict[int, int] = {}
    for operation in operations:
        end = 1 + max(ends.get(qubit, 0) for qubit in operation.qubits)
        ends |= dict.fromkeys(operation.qubits, end)
    return max(ends.values(), default=0)


def decay_per_qubit(num_qubits: Sequence[int], sizes: Sequence[float]) -> float:
    """Return the factor by which a size changes with each qubit more. Below 1 it vanishes as circuits grow."""
    # Least squares in the logarithm.
    slope, _ = np.polyfit(num_qubits, np.log(sizes), 1)
    return math.exp(slope)


@dataclass(frozen=True)
class Gradients:
    """How gradients change as the circuit grows, entry by entry.

    Attributes:
        num_qubits: of the circuits.
        uniform: at inputs and weights anywhere in a turn, where mean squares are variances.
        start: at inputs and weights of fresh adapters.
    """

    num_qubits: tuple[int, ...]
    uniform: tuple[GradientSize, ...]
    start: tuple[GradientSize, ...]

    @property
    def decay_per_qubit(self) -> float:
        """The factor by which the variance of the gradient of <Z_0> changes with each qubit, from 4 qubits on."""
        # Rings of 2 and 3 qubits are special: all of their qubits are neighbours.
        kept = [place for place, count in enumerate(self.num_qubits) if count >= 4]
        return decay_per_qubit([self.num_qubits[i] for i in kept], [self.uniform[i].first for i in kept])


@dataclass(frozen=True)
class Portrait:
    """One ansatz at one size. `samples`: pairs of states; gradients take a twentieth of them, spectra a fiftieth."""

    ansatz: str
    num_qubits: int
    depth: int
    reupload: bool
    samples: int
    bins: int
    seed: int
    resources: Resources
    expressibility: Estimate
    entangling: Estimate
    gradients: Gradients
    spectrum: Spectrum

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON stores it."""
        fields = asdict(self)
        fields["gradients"]["decay_per_qubit"] = self.gradients.decay_per_qubit
        return fields


@one_thread()
def portrait(
    config: QthaConfig,
    num_qubits: int,
    *,
    samples: int = SAMPLES,
    bins: int = 75,
    seed: int = 0,
) -> Portrait:
    """Return what is measured of the circuit that `config` describes. The same seed gives the same numbers.

    Args:
        config: its ansatz, depth, reupload, and how weights start and inputs are encoded.
        num_qubits: 1 to 12.
        samples: pairs of states, at least 100.
        bins: of the histogram of fidelities.
        seed: of all random angles.

    Raises: CircuitError for a number out of range.
    """
    if not 1 <= num_qubits <= MAX_QUBITS:
        raise CircuitError(f"Circuits are looked at on 1 to {MAX_QUBITS} qubits; got {num_qubits}.")
    if not isinstance(config.ansatz, str):
        raise CircuitError(
            "Families of circuits are looked at over many sizes, and an own circuit has one. Circuit.draw() shows it."
        )
    if samples < 100 or bins < 2:
        raise CircuitError(f"It takes at least 100 samples and 2 bins; got {samples} and {bins}.")

    # A fresh one for each measure, so that no measure depends on which others are made.
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    circuits = {
        count: ANSATZE[config.ansatz](count, config.depth, reupload=config.reupload)
        for count in sorted({*GROWTH, num_qubits})
    }
    circuit = circuits[num_qubits]
    # Gradients and spectra take fewer samples than states: theirs cost a backward pass or a whole grid.
    fidelities, entanglements = reached_states(circuit, samples, generator())
    return Portrait(
        ansatz=config.ansatz,
        num_qubits=num_qubits,
        depth=config.depth,
        reupload=config.reupload,
        samples=samples,
        bins=bins,
        seed=seed,
        resources=resources(circuit),
        expressibility=expressibility(fidelities, num_qubits, bins=bins),
        entangling=entangling_capability(entanglements, num_qubits),
        gradients=Gradients(
            tuple(circuits),
            uniform=tuple(gradient_size(one, uniform(one, samples // 20, generator())) for one in circuits.values()),
            start=tuple(
                gradient_size(one, at_start(one, config, samples // 20, generator())) for one in circuits.values()
            ),
        ),
        spectrum=spectrum(circuit, samples // 50, generator()),
    )
