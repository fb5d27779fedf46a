"""Quantum tensor hybrid adaptation (QTHA, arXiv:2503.12790)."""

from qpeft.adapters.qtha.config import COMPOSITIONS, QthaConfig
from qpeft.adapters.qtha.layer import QthaLayer, QthaModel

__all__ = ["COMPOSITIONS", "QthaConfig", "QthaLayer", "QthaModel"]
