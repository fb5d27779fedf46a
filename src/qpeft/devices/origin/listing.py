"""The chips that a key can see, whichever of them is to be used."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.devices.origin.address import DEFAULT_URL, checked_url
from qpeft.devices.origin.chip import Chip, chip_from
from qpeft.devices.origin.cloud import Cloud

SIMULATORS = {"full_amplitude", "partial_amplitude", "single_amplitude"}
"""Names that the client adds to every listing."""
SECONDS_PER_ANSWER = 240.0
"""Longer than the client's own three tries of 60 s."""


@dataclass(frozen=True)
class ListedChip:
    """One chip: its name, whether it takes jobs, and what is known of it, None if it is offline."""

    name: str
    is_online: bool
    chip: Chip | None


def list_chips(url: str = DEFAULT_URL) -> list[ListedChip]:
    """Every chip of the cloud by name. Raises: CredentialsError or DeviceError if the cloud does not tell."""
    cloud = Cloud(checked_url(url), SECONDS_PER_ANSWER)
    try:
        return [
            ListedChip(name, is_online, chip_from(cloud.chip(name)) if is_online else None)
            for name, is_online in sorted(chips_of(cloud).items())
        ]
    finally:
        cloud.close()


def chips_of(cloud: Cloud) -> dict[str, bool]:
    """Name of every chip to whether it is online."""
    return {name: is_online for name, is_online in cloud.chips().items() if name not in SIMULATORS}
