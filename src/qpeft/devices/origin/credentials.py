"""The user's key for Origin's cloud: where it is found, and how it is kept out of sight."""

from __future__ import annotations

import importlib.util
import os
from importlib import import_module

from qpeft.devices.origin.address import DEFAULT_URL, is_loopback
from qpeft.errors import CredentialsError

VARIABLE = "QPEFT_ORIGIN_KEY"
ADDRESS_VARIABLE = "QPEFT_ORIGIN_URL"
"""Where the key belongs if not to the usual address. In the environment alone: a recipe may come from somebody else."""
SERVICE, USER = "qpeft", "origin"
"""Under which the keyring has it."""
WAYS = (
    f"Set the environment variable {VARIABLE}, or store the key once with `keyring set {SERVICE} {USER}` "
    "(pip install keyring)."
)


class Secret:
    """A key that shows itself to nobody who does not ask for it by name."""

    def __init__(self, key: str) -> None:
        self._key = key

    def reveal(self) -> str:
        """The key."""
        return self._key

    def redact(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self._key, "<key>")

    def __repr__(self) -> str:
        return "<key>"


def find_key(url: str) -> Secret:
    """The key for this address from the environment, else from the keyring.

    Raises: CredentialsError if neither has one, it cannot be a key, or it may belong elsewhere.
    """
    if not is_loopback(url) and url not in (DEFAULT_URL, os.environ.get(ADDRESS_VARIABLE, "").rstrip("/")):
        raise CredentialsError(
            f"Your key for Origin's cloud goes to {DEFAULT_URL} alone, and the device is at {url}, as its options or a "
            f"recipe say. If your key belongs there, set the environment variable {ADDRESS_VARIABLE} to that address."
        )
    key = os.environ.get(VARIABLE, "").strip()
    source = f"environment variable {VARIABLE}"
    if not key and importlib.util.find_spec("keyring") is not None:
        key, source = _from_keyring(), "keyring"
    if not key:
        raise CredentialsError(f"There is no key for Origin's cloud. {WAYS}")
    if not key.isprintable() or not key.isascii() or " " in key:
        raise CredentialsError(f"The {source} has a key with characters that no key has. {WAYS}")
    return Secret(key)


def _from_keyring() -> str:
    try:
        return (import_module("keyring").get_password(SERVICE, USER) or "").strip()
    except Exception as error:  # every backend of it has errors of its own
        raise CredentialsError(f"The keyring cannot be read: {error}. {WAYS}") from error
