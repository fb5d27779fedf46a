"""Error mitigation: better values from a noisy device, for more circuits or more shots."""

from qpeft.devices.mitigation.reading import AbstractMitigation, check_suits
from qpeft.devices.mitigation.readout_inversion import ReadoutInversion
from qpeft.devices.mitigation.zero_noise import ZeroNoise

__all__ = ["AbstractMitigation", "ReadoutInversion", "ZeroNoise", "check_suits"]
