"""Everything that is measured of one ansatz, at random angles and before any training."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from qpeft.adapters.qtha import QthaConfig
from qpeft.adapters.qtha.config import MAX_QUBITS
from qpeft.analysis.circuits import (
    Estimate,
    GradientSize,
    at_start,
    decay_per_qubit,
    entangling_capability,
    expressibility,
    gradient_size,
    reached_states,
    uniform,
)
from qpeft.analysis.resources import Resources, resources
from qpeft.analysis.spectrum import Spectrum, spectrum
from qpeft.circuits import Circuit
from qpeft.circuits.ansatz import ANSATZE
from qpeft.errors import CircuitError
from qpeft.simulation.threads import one_thread

SAMPLES = 5000
GROWTH = tuple(range(2, 11))
"""Numbers of qubits at which gradients are measured, beside that asked for."""


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
        """Factor by which the variance of the gradient of <Z_0> changes with each qubit, from 4 qubits on."""
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
        """As JSON stores it."""
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
    """Measure the circuit that `config` describes, on so many qubits. The same seed gives the same numbers.

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
    if samples < 100 or bins < 2:
        raise CircuitError(f"It takes at least 100 samples and 2 bins; got {samples} and {bins}.")

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    circuit = circuit_of(config, num_qubits)
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
        gradients=growing(config, sorted({*GROWTH, num_qubits}), samples // 20, generator),
        spectrum=spectrum(circuit, samples // 50, generator()),
    )


@one_thread()
def growing(
    config: QthaConfig, num_qubits: Sequence[int], samples: int, generator: Callable[[], torch.Generator]
) -> Gradients:
    """Gradients of the circuit of `config` at several numbers of qubits. `generator` makes a fresh one."""
    circuits = [circuit_of(config, count) for count in num_qubits]
    return Gradients(
        tuple(num_qubits),
        uniform=tuple(gradient_size(one, uniform(one, samples, generator())) for one in circuits),
        start=tuple(gradient_size(one, at_start(one, config, samples, generator())) for one in circuits),
    )


def circuit_of(config: QthaConfig, num_qubits: int) -> Circuit:
    """The circuit of a config, on so many qubits."""
    return ANSATZE[config.ansatz](num_qubits, config.depth, reupload=config.reupload)


def check_ansatz(name: str) -> None:
    """Raises: CircuitError, naming the nearest, if there is no ansatz of that name."""
    if name not in ANSATZE:
        near = difflib.get_close_matches(name, ANSATZE, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(ANSATZE)}."
        raise CircuitError(f"There is no ansatz {name!r}. {hint}")
