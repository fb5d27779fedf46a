"""Which ansatz at which depth a chip keeps most of, on the same qubits and with the same inputs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.circuits.ansatz import ANSATZE
from qpeft.devices.placement import find_blocks
from qpeft.devices.preflight.prediction import MAX_ROWS, Preflight, preflight
from qpeft.devices.preflight.signal import Verdict
from qpeft.errors import DeviceError
from qpeft.simulation.noise import NoiseModel, SampleKey
from qpeft.simulation.noise.counter import Stream

DEPTHS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Candidate:
    """One circuit of a family, and what is predicted for it."""

    ansatz: str
    depth: int
    prediction: Preflight

    def __str__(self) -> str:
        return f"{self.ansatz} of depth {self.depth}"


@dataclass(frozen=True)
class Comparison:
    """Candidates, the best first: by verdict, then by signal-to-noise ratio. Equally good ones: the shallower first."""

    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    def find(self, ansatz: str, depth: int) -> Candidate:
        """Raises: DeviceError if that one was not compared."""
        for candidate in self.candidates:
            if (candidate.ansatz, candidate.depth) == (ansatz, depth):
                return candidate
        raise DeviceError(f"{ansatz} of depth {depth} is not among {', '.join(map(str, self.candidates))}.")

    def __str__(self) -> str:
        head = f"{'ansatz':>10} {'depth':>5} {'pulses':>6} {'CZ':>4} {'slope':>6} {'corr':>6} {'SNR':>7}  verdict"
        rows = [
            f"{candidate.ansatz:>10} {candidate.depth:5} {found.pulses:6} {found.flips:4} {found.slope:6.3f} "
            f"{found.correlation:6.3f} {found.signal_to_noise:7.1f}  {found.verdict.value}"
            for candidate in self.candidates
            for found in [candidate.prediction]
        ]
        return "\n".join([head, *rows])


def compare(
    num_qubits: int,
    inputs: Float[Tensor, "*batch num_qubits"],
    calibration: NoiseModel,
    *,
    shots: int,
    block: Sequence[int] | None = None,
    ansatze: Iterable[str] = tuple(ANSATZE),
    depths: Iterable[int] = DEPTHS,
    weights: Mapping[tuple[str, int], Tensor] | None = None,
    seed: int = 0,
    max_rows: int = MAX_ROWS,
) -> Comparison:
    """Predictions for every ansatz at every depth, on one block of the chip.

    Args:
        num_qubits: of every candidate, at most 8.
        inputs: as for `preflight`; all ansätze read one angle per qubit.
        calibration, shots, max_rows: as for `preflight`.
        block: where; by default where the first candidate has its best place.
        ansatze: names in `circuits.ansatz.ANSATZE`.
        depths: each at least 1.
        weights: trained angles by (ansatz, depth); a candidate without gets angles drawn uniformly from [-pi, pi].
        seed: of the angles drawn.

    Raises: as `preflight`; DeviceError for an unknown ansatz, naming the nearest, or nothing to compare;
        CircuitError for a depth below 1.
    """
    pairs = [(name, depth) for name in ansatze for depth in depths]
    if not pairs:
        raise DeviceError("There is nothing to compare: give at least one ansatz and one depth.")
    circuits = {pair: _circuit(pair[0], num_qubits, pair[1]) for pair in pairs}
    place = find_blocks(circuits[pairs[0]], calibration, most=1)[0] if block is None else tuple(block)
    candidates = []
    for (name, depth), circuit in circuits.items():
        given = (weights or {}).get((name, depth))
        angles = _drawn(circuit, f"{name} {depth}", seed) if given is None else given
        found = preflight(circuit, inputs, angles, calibration, shots=shots, block=place, max_rows=max_rows)
        candidates.append(Candidate(name, depth, found))
    return Comparison(tuple(sorted(candidates, key=_order)))


def suggest(current: Candidate, comparison: Comparison) -> str:
    """One sentence: whether `current` can stay, and which candidate is better by how much if there is one."""
    now, best = current.prediction, comparison.best
    state = f"{current} is {now.verdict.value} (SNR {now.signal_to_noise:.1f}, correlation {now.correlation:.2f})"
    found = best.prediction
    if (best.ansatz, best.depth) == (current.ansatz, current.depth) or _order(current) <= _order(best):
        end = "nothing compared here is better." if now.verdict is Verdict.USABLE else _no_better(now)
        return f"{state}; {end}"
    return (
        f"{state}; {best} is better: {found.verdict.value}, SNR {found.signal_to_noise:.1f}, "
        f"correlation {found.correlation:.2f}, {found.flips} CZ instead of {now.flips}."
    )


def _no_better(now: Preflight) -> str:
    return f"nothing compared here is better: take fewer qubits, better ones than {list(now.block)}, or more shots."


def _order(candidate: Candidate) -> tuple[int, float, int]:
    found = candidate.prediction
    return found.verdict.rank, -found.signal_to_noise, candidate.depth


def _circuit(name: str, num_qubits: int, depth: int) -> Circuit:
    if name not in ANSATZE:
        near = difflib.get_close_matches(name, ANSATZE, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(ANSATZE)}."
        raise DeviceError(f"There is no ansatz {name!r}. {hint}")
    return ANSATZE[name](num_qubits, depth)


def _drawn(circuit: Circuit, name: str, seed: int) -> Tensor:
    draws = Stream(SampleKey(seed, module=f"preflight {name}")).uniforms(circuit.num_weights)
    return (2 * draws - 1) * math.pi
