"""Chips of Origin's cloud, such as Wukong, by the vendor's unmodified client in a process of its own."""

from qpeft.devices.origin.account import DEFAULT_URL
from qpeft.devices.origin.chip import Chip
from qpeft.devices.origin.cloud import ListedChip, list_chips
from qpeft.devices.origin.device import OriginDevice

__all__ = ["DEFAULT_URL", "Chip", "ListedChip", "OriginDevice", "list_chips"]
