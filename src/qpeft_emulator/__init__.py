"""A stand-in for the Origin cloud: speaks its protocol on this machine's loopback address, with a chip that errs."""

from qpeft_emulator.machine import open_machine
from qpeft_emulator.parser import ParsedProgram, parse_origin_ir
from qpeft_emulator.server import open_emulator

__all__ = ["ParsedProgram", "open_emulator", "open_machine", "parse_origin_ir"]
