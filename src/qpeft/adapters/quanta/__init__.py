"""High-rank updates from matrices on pairs of axes (QuanTA, arXiv:2406.00132)."""

from qpeft.adapters.quanta.config import QuantaConfig
from qpeft.adapters.quanta.layer import QuantaLayer
from qpeft.adapters.quanta.model import QuantaModel

__all__ = ["QuantaConfig", "QuantaLayer", "QuantaModel"]
