"""Quantum tensor hybrid adaptation (QTHA, arXiv:2503.12790)."""

from qpeft.adapters.qtha.compositions import COMPOSITIONS
from qpeft.adapters.qtha.config import QthaConfig
from qpeft.adapters.qtha.layer import QthaLayer
from qpeft.adapters.qtha.model import QthaModel

__all__ = ["COMPOSITIONS", "QthaConfig", "QthaLayer", "QthaModel"]
