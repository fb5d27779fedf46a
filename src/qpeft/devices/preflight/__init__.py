"""What a chip would make of circuits, from its calibration alone and before anything is sent."""

from qpeft.devices.preflight.comparison import Candidate, Comparison, compare, suggest
from qpeft.devices.preflight.lines import Line, fit_line
from qpeft.devices.preflight.prediction import Preflight, preflight
from qpeft.devices.preflight.signal import Signal, Verdict
from qpeft.devices.preflight.split import depolarising_only

__all__ = [
    "Candidate",
    "Comparison",
    "Line",
    "Preflight",
    "Signal",
    "Verdict",
    "compare",
    "depolarising_only",
    "fit_line",
    "preflight",
    "suggest",
]
