"""Compare ansätze and depths by what a chip keeps of them, on the same qubits and with the same inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from jaxtyping import Float
from torch import Tensor

from qpeft.circuits.ansatz import ANSATZE, find_ansatz
from qpeft.devices.chip.blocks import find_blocks
from qpeft.devices.chip.prediction import MAX_ROWS, Preflight, Usability, preflight
from qpeft.errors import DeviceError
from qpeft.simulation.noise import NoiseModel, SampleKey
from qpeft.simulation.noise.counter import Stream

DEPTHS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Candidate:
    """One circuit of a family, and what is predicted for it.

    Attributes:
        ansatz, depth: of the circuit.
        predictions: once for trained weights, else once per draw of them.
        verdict: the best that at least half of the predictions reach.
        signal_to_noise, slope, correlation: means over the predictions.
        num_pulses, num_cz: of the circuit on the chip.
    """

    ansatz: str
    depth: int
    predictions: tuple[Preflight, ...]
    verdict: Usability
    signal_to_noise: float
    slope: float
    correlation: float
    num_pulses: int
    num_cz: int

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
        """Return one of the candidates. Raises: DeviceError if that one was not compared."""
        for candidate in self.candidates:
            if (candidate.ansatz, candidate.depth) == (ansatz, depth):
                return candidate
        raise DeviceError(f"{ansatz} of depth {depth} is not among {', '.join(map(str, self.candidates))}.")

    def __str__(self) -> str:
        head = f"{'ansatz':>10} {'depth':>5} {'pulses':>6} {'CZ':>4} {'slope':>6} {'corr':>6} {'SNR':>7}  verdict"
        rows = [
            f"{found.ansatz:>10} {found.depth:5} {found.num_pulses:6} {found.num_cz:4} {found.slope:6.3f} "
            f"{found.correlation:6.3f} {found.signal_to_noise:7.1f}  {found.verdict.value}"
            for found in self.candidates
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
    draws: int = 8,
    seed: int = 0,
    max_rows: int = MAX_ROWS,
) -> Comparison:
    """Return predictions for every ansatz at every depth, on one block of the chip.

    Args:
        num_qubits: of every candidate, at most 8.
        inputs: as for `preflight`; all ansätze read one angle per qubit.
        calibration, shots, max_rows: as for `preflight`.
        block: where; by default where the first candidate has its best place.
        ansatze: names in `circuits.ansatz.ANSATZE`.
        depths: each at least 1.
        weights: trained angles by (ansatz, depth); for a candidate without, angles are drawn uniformly from [-pi, pi].
        draws: of such angles, since one draw can be lucky; each has its share of `max_rows`, and at least 4 rows.
        seed: of the angles drawn.

    Raises: as `preflight`; DeviceError for nothing to compare, or weights for what is not compared; CircuitError
        for an unknown ansatz, naming the nearest, or a depth below 1.
    """
    pairs = [(name, depth) for name in ansatze for depth in depths]
    if not pairs or draws < 1:
        raise DeviceError(
            "There is nothing to compare: give at least one ansatz, one depth and one draw of weights; got "
            f"{len(pairs)} circuit(s) and draws={draws}."
        )
    if strangers := set(weights or {}) - set(pairs):
        raise DeviceError(f"There are weights for {sorted(strangers)}, which is not among what is compared: {pairs}.")
    circuits = {(name, depth): find_ansatz(name)(num_qubits, depth) for name, depth in pairs}
    # One block for all, so that it is the circuits that are compared and not the qubits.
    place = find_blocks(circuits[pairs[0]], calibration, most=1)[0] if block is None else tuple(block)
    candidates = []
    for (name, depth), circuit in circuits.items():
        rows = max_rows
        if (given := (weights or {}).get((name, depth))) is not None:
            tried = [given]
        else:
            keys = [SampleKey(seed, module=f"preflight {name} {depth} {draw}") for draw in range(draws)]
            tried = [(2 * Stream(key).uniforms(circuit.num_weights) - 1) * math.pi for key in keys]
            # The draws share the rows, so that a comparison costs about as much with any number of them.
            rows = max(4, max_rows // draws)
        found = tuple(
            preflight(circuit, inputs, angles, calibration, shots=shots, block=place, max_rows=rows) for angles in tried
        )
        candidates.append(
            Candidate(
                ansatz=name,
                depth=depth,
                predictions=found,
                verdict=Usability.reached_by_half(one.verdict for one in found),
                signal_to_noise=fmean(one.signal_to_noise for one in found),
                slope=fmean(one.slope for one in found),
                correlation=fmean(one.correlation for one in found),
                num_pulses=found[0].num_pulses,
                num_cz=found[0].num_cz,
            )
        )
    return Comparison(tuple(sorted(candidates, key=_order)))


def suggest(current: Candidate, comparison: Comparison) -> str:
    """Say in one sentence whether `current` can stay, and which candidate is better by how much if there is one."""
    best = comparison.best
    state = (
        f"{current} is {current.verdict.value} (SNR {current.signal_to_noise:.1f}, correlation "
        f"{current.correlation:.2f})"
    )
    if _order(current) > _order(best):
        return (
            f"{state}; {best} is better: {best.verdict.value}, SNR {best.signal_to_noise:.1f}, correlation "
            f"{best.correlation:.2f}, {best.num_cz} CZ instead of {current.num_cz}."
        )
    if current.verdict is Usability.USABLE:
        return f"{state}; nothing compared here is better."
    block = list(current.predictions[0].block)
    return f"{state}; nothing compared here is better: take fewer qubits, better ones than {block}, or more shots."


def _order(candidate: Candidate) -> tuple[int, float, int]:
    # Verdict first: a high ratio with a low correlation says that the chip computes something else.
    return candidate.verdict.rank, -candidate.signal_to_noise, candidate.depth
