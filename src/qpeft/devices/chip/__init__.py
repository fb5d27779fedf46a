"""A chip's calibration: where on it circuits run, and what it would make of them, before anything is sent."""

from qpeft.devices.chip.blocks import block_calibration, find_blocks
from qpeft.devices.chip.comparison import Candidate, Comparison, compare, suggest
from qpeft.devices.chip.prediction import Line, Preflight, Signal, Usability, depolarising_only, fit_line, preflight

__all__ = [
    "Candidate",
    "Comparison",
    "Line",
    "Preflight",
    "Signal",
    "Usability",
    "block_calibration",
    "compare",
    "depolarising_only",
    "find_blocks",
    "fit_line",
    "preflight",
    "suggest",
]
