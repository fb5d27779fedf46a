"""Chips of Origin's cloud, such as Wukong, by the vendor's unmodified client in a process of its own."""

from qpeft.devices.origin.address import DEFAULT_URL
from qpeft.devices.origin.chip import Chip
from qpeft.devices.origin.device import OriginDevice
from qpeft.devices.origin.listing import ListedChip, list_chips

__all__ = ["DEFAULT_URL", "Chip", "ListedChip", "OriginDevice", "list_chips"]
