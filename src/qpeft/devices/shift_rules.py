"""Parameter-shift rules: exact derivatives of expectation values as weighted values at shifted angles.

With U(angle) = exp(-i angle G / 2), an expectation value is a trigonometric polynomial of the angle, whose frequencies
are half the differences of the eigenvalues of G. For R frequencies 2 R shifted values give the derivative.
Source: Wierichs et al., General parameter-shift rules for quantum gradients, arXiv:2107.12390, equation (19).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from qpeft.circuits import GATES
from qpeft.circuits.gates import Gate


@dataclass(frozen=True)
class Shift:
    """One term of a rule: `coefficient` times the value with the angle moved by `amount`, radians."""

    amount: float
    coefficient: float


@cache
def shift_rule(gate_name: str) -> tuple[Shift, ...]:
    """Terms whose sum is the derivative by the angle of a gate: two for rotations, four for controlled rotations."""
    positive = frequencies(GATES[gate_name])
    if not positive:
        return ()
    base, count = positive[0], len(positive)
    # Spread evenly over half a period of the slowest frequency, where no two rows of the system are alike.
    amounts = np.array([(2 * term - 1) * math.pi / (2 * count * base) for term in range(1, count + 1)])
    # f(x + s) - f(x - s) has 2 sin(w s) times what f'(x) has w times, for every frequency w.
    system = 2 * np.sin(np.outer(positive, amounts))
    coefficients = np.linalg.solve(system, np.array(positive))
    pairs = zip(amounts.tolist(), coefficients.tolist(), strict=True)
    return tuple(Shift(sign * amount, sign * coefficient) for amount, coefficient in pairs for sign in (1, -1))


def frequencies(gate: Gate) -> tuple[float, ...]:
    """Positive frequencies of expectation values as functions of the gate's angle, ascending."""
    levels = [level for level, _ in gate.spectrum]
    return tuple(sorted({round(abs(one - other) / 2, 9) for one in levels for other in levels} - {0.0}))
