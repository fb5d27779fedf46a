"""A stand-in for the Origin cloud: speaks its protocol on this machine's loopback address, with a chip that errs."""

from qpeft.devices.emulator.parser import Program, parse_origin_ir

__all__ = ["Program", "parse_origin_ir"]
