"""Shots where they help: few for every circuit first, the others by what the first ones say of its spread.

The estimate is a fixed mix of both parts, so the first part decides how often a circuit is measured, and never how much
its own result counts: that would be a bias, since samples that happen to agree look certain. For the shots of the
second part, minimal total variance has them in proportion to each circuit's standard deviation (Neyman, On the two
different aspects of the representative method, 1934); here they are powers of two, so that they fit into a few jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qpeft.devices.calls import DeviceCall, Operations
from qpeft.errors import ShotsError

UNITS = 8
"""Of so many units is the second part of an average circuit; a circuit gets 1, 2, 4 ... units."""
HIGHEST_LEVEL = 6
"""A circuit gets at most 2**6 units, 8 times the average."""


def moments_by_variance(
    call: DeviceCall, circuits: Sequence[Operations], pilot_share: float, variances: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Values and covariances as `DeviceCall.moments`, with as many shots in all, or a few less.

    Args:
        call: whose shots are the average. Its parts have keys of their own: "... pilot", "... level 0" and so on.
        circuits: all different.
        pilot_share: of the shots, spread evenly.
        variances: from covariances of one shot of each circuit, what each circuit adds to the variance to be minimised.

    Raises: ShotsError if there are too few shots to share out.
    """
    assert call.shots is not None
    if not circuits:
        return _moments(call, circuits, "pilot")
    unit = int((1 - pilot_share) * call.shots) // UNITS
    pilot = call.shots - UNITS * unit
    if unit < 1 or pilot < 2:
        raise ShotsError(
            f"Shots are allocated from a pilot of at least 2 and {UNITS} or more others; got {call.shots} with a pilot "
            f"share of {pilot_share}. Take more shots, or allocate=None."
        )
    values, covariances = _moments(replace(call, shots=pilot), circuits, "pilot")
    covariances *= pilot
    # As if one more shot had come out with full spread: a pilot that always agreed does not prove certainty.
    cautious = (pilot * covariances + torch.eye(values.shape[1])) / (pilot + 1)
    levels = allocate(variances(cautious).tolist(), _highest_level(call, unit))
    share = pilot / call.shots
    for level in sorted(set(levels)):
        chosen, shots = [place for place, own in enumerate(levels) if own == level], unit << level
        part = replace(call, shots=shots)
        more, spread = _moments(part, [circuits[place] for place in chosen], f"level {level}")
        values[chosen] = share * values[chosen] + (1 - share) * more
        pooled = (pilot - 1) * covariances[chosen] + (shots - 1) * shots * spread
        covariances[chosen] = pooled / (pilot + shots - 2) * (share**2 / pilot + (1 - share) ** 2 / shots)
    return values, covariances


def allocate(variances: Sequence[float], highest_level: int = HIGHEST_LEVEL) -> list[int]:
    """Level of each circuit, which then has 2**level units; together at most `UNITS` units per circuit.

    From one unit each, the circuit whose variance falls most per further unit is doubled, until the units are gone.
    """
    levels, left = [0] * len(variances), (UNITS - 1) * len(variances)
    # Doubling n units takes n and halves variance / n: by variance / (2 n**2) per unit. Of equals, the lowest first.
    gains = [(-variance, 0, place) for place, variance in enumerate(variances) if highest_level > 0]
    heapq.heapify(gains)
    while gains:
        gain, level, place = heapq.heappop(gains)
        if 1 << level > left:
            continue
        left -= 1 << level
        levels[place] = level + 1
        if levels[place] < highest_level:
            heapq.heappush(gains, (gain / 4, levels[place], place))
    return levels


def _highest_level(call: DeviceCall, unit: int) -> int:
    most = call.device.capabilities().max_shots
    return HIGHEST_LEVEL if most is None else min(HIGHEST_LEVEL, max(0, (most // unit).bit_length() - 1))


def _moments(call: DeviceCall, circuits: Sequence[Operations], part: str) -> tuple[Tensor, Tensor]:
    named = replace(call, key=replace(call.key, part=f"{call.key.part} {part}"))
    values, covariances = named.moments(circuits)
    return torch.from_numpy(values), torch.from_numpy(covariances)
