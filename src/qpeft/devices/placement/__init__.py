"""Where on a chip circuits run: blocks of its qubits, as many side by side as it has good ones."""

from qpeft.devices.placement.blocks import block_calibration, find_blocks

__all__ = ["block_calibration", "find_blocks"]
