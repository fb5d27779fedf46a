"""Circuits of known outcome in a job, which show whether its results came back in the order of its circuits.

Where nothing in an answer says which circuit it is of, results are matched by their place alone. So among the circuits
of a job stand markers, which only flip qubits; where each stands, and what it flips, is drawn anew for every job. If
results change places, a marker's place holds something else, unless what came there looks like that marker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from qpeft.circuits import Circuit, Operation
from qpeft.errors import OrderError
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream

CIRCUITS_PER_MARKER = 49
"""One marker to this many circuits, 2 in 100 of what is sent; a smaller job has none."""
LOWEST_AGREEMENT = 0.75
"""Share of samples in which a marker's bit is read as it was set; real chips read 0.85 to 0.99 of them right."""
STANDARD_ERRORS = 4.0
"""How many of its standard errors sampling may take that share lower."""
LARGEST_DECK = 256
"""Outcomes up to which all are shuffled; of more, enough to be different are drawn."""


def num_markers(num_circuits: int) -> int:
    """Return how many markers a job of `num_circuits` others has."""
    return num_circuits // CIRCUITS_PER_MARKER


def draw_markers(identity: str, num_circuits: int, num_qubits: int) -> dict[int, str]:
    """Return place in the job, markers counted, to outcome, for every marker of a job.

    Args:
        identity: of the job; the same one has the same markers, so that a resumed run knows them.
        num_circuits: without markers.
        num_qubits: of the widest circuit: a marker asks nothing of a chip that the job itself does not ask.
    """
    count = num_markers(num_circuits)
    if not count:
        return {}
    total, stream = num_circuits + count, Stream(SampleKey(0, module=f"markers {identity}"))
    # One in each of as many equal parts, so that no long part of the list can move without one of them; neither first
    # nor last, which stay where they are when two halves are taken in turn.
    bounds = [1, *(total * part // count for part in range(1, count)), total - 1]
    places = []
    for u, first, last in zip(stream.uniforms(count).tolist(), bounds, bounds[1:], strict=False):
        place = first + int(u * (last - first))
        # Not in the middle, which stays where it is when the list is turned round.
        places.append(place if 2 * place != total - 1 else place - 1 if place > first else place + 1)
    # Outcomes differ as far as there are enough; never all zeros, which circuits of small angles give as well.
    if 2**num_qubits > LARGEST_DECK:
        drawn = (stream.uniforms(count, num_qubits) < 0.5).int()
        # An outcome of zeros alone gets a one in front.
        drawn[:, 0] |= ~drawn.any(1)
        outcomes = ["".join(map(str, row)) for row in drawn.tolist()]
    else:
        deck = (torch.argsort(stream.uniforms(2**num_qubits - 1)) + 1).tolist()
        outcomes = [f"{deck[number % len(deck)]:0{num_qubits}b}" for number in range(count)]
    return dict(zip(places, outcomes, strict=True))


def marker_circuit(outcome: str) -> Circuit:
    """Return the circuit that gives this bit string."""
    return Circuit(len(outcome), tuple(Operation("X", (qubit,)) for qubit, bit in enumerate(outcome) if bit == "1"))


def with_markers(circuits: Sequence[Circuit], markers: Mapping[int, str]) -> list[Circuit]:
    """Return the circuits in their order, with the markers at their places."""
    rest = iter(circuits)
    total = len(circuits) + len(markers)
    return [marker_circuit(markers[place]) if place in markers else next(rest) for place in range(total)]


def check_order(markers: Mapping[int, str], results: Sequence[dict[str, float]], shots: int | None) -> None:
    """Compare what stands at the markers' places with their outcomes.

    Args:
        markers: place to outcome, as `draw_markers` gave them.
        results: of the whole job.
        shots: per circuit; None for exact.

    Raises: OrderError if a marker's place holds something else, saying where its outcome stands if that is plain.
    """
    # Where another marker's outcome came, or any circuit's, this one's bits do not fit.
    moved = [place for place, outcome in markers.items() if not _fits(results[place], outcome, shots)]
    if not moved:
        return
    found = [
        f"that of place {place} stands at {elsewhere[0]}"
        for place in moved
        if len(elsewhere := [k for k, one in enumerate(results) if _fits(one, markers[place], shots)]) == 1
    ]
    raise OrderError(
        f"The results are not in the order of the circuits, or the qubits have failed: of {len(markers)} circuits of "
        f"known outcome, at places {', '.join(map(str, sorted(markers)))} of {len(results)}, {len(moved)} came back as "
        f"something else{f' ({found[0]})' if found else ''}.",
        [list(results)],
    )


def _fits(result: dict[str, float], outcome: str, shots: int | None) -> bool:
    """Whether each bit alone, and all of them together, are read as they were set about as often as on a chip."""
    if any(len(bits) != len(outcome) for bits in result):
        return False
    agreement = [sum(share for bits, share in result.items() if bits[k] == bit) for k, bit in enumerate(outcome)]
    # One standard error of a share is sqrt(p (1 - p) / samples); all bits together are as many samples as there are.
    deviation = math.sqrt(LOWEST_AGREEMENT * (1 - LOWEST_AGREEMENT) / shots) if shots else 0.0
    lowest, lowest_mean = (
        LOWEST_AGREEMENT - STANDARD_ERRORS * one for one in (deviation, deviation / math.sqrt(len(outcome)))
    )
    return min(agreement) >= lowest and sum(agreement) / len(outcome) >= lowest_mean
