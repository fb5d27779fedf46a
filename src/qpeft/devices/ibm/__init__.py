"""IBM's quantum computers, and Qiskit's simulators of them."""

from qpeft.devices.ibm.device import IbmDevice

__all__ = ["IbmDevice"]
