"""The chips that a key can see, whichever of them is to be used."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from qpeft.devices.origin.address import DEFAULT_URL, checked_url
from qpeft.devices.origin.chip import Chip, chip_from
from qpeft.devices.origin.cloud import Cloud

SIMULATORS = {"full_amplitude", "partial_amplitude", "single_amplitude"}
"""Names that the client adds to every listing."""
OTHER_NAMES = {"72": "origin_wukong"}
"""Names of a chip that the vendor's client and documents use for what the cloud lists, and the reverse: the client
sends 72 for origin_wukong. Either may be written, whichever is listed."""
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


def listed_as(name: str, chips: Collection[str]) -> str | None:
    """Under which name a cloud that lists these chips has the one that the user means; None if it has none."""
    same = {name, OTHER_NAMES.get(name), *(listed for listed, other in OTHER_NAMES.items() if other == name)}
    return name if name in chips else next((one for one in chips if one in same), None)


def written(name: str) -> str:
    """A name as it is listed, with the other one that may be written for it."""
    others = [OTHER_NAMES.get(name), *(listed for listed, other in OTHER_NAMES.items() if other == name)]
    other = next((one for one in others if one), None)
    return f"{name} (or {other})" if other else name
