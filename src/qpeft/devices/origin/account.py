"""The address of Origin's cloud and the user's key for it."""

from __future__ import annotations

import importlib.util
import os
from importlib import import_module
from urllib.parse import urlsplit

from qpeft.devices.secrets import is_loopback, is_server
from qpeft.errors import CredentialsError, DeviceError

DEFAULT_URL = "https://pyqanda-admin.qpanda.cn"
"""Host as in the documentation of the vendor's client, which has it with http; nobody has tried this one with https."""


def checked_url(url: str) -> str:
    """Return the address without a slash at its end.

    Raises: DeviceError if it is not an address, or would send the key in the clear over a network.
    """
    if not is_server(url):
        raise DeviceError(
            f"The url of the cloud is https://host or, on this machine, http://127.0.0.1:port; got {url!r}."
        )
    if urlsplit(url).scheme == "http" and not is_loopback(url):
        raise DeviceError(
            f"{url} is not encrypted, and the key would travel in the clear. Use https://; http:// is for "
            "127.0.0.1 alone."
        )
    return url.rstrip("/")


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
        """Return the key."""
        return self._key

    def redact(self, text: str) -> str:
        """Return the text with the key blanked."""
        return text.replace(self._key, "<key>")

    def __repr__(self) -> str:
        return "<key>"


def find_key(url: str) -> Secret:
    """Return the key for this address from the environment, else from the keyring.

    Raises: CredentialsError if neither has one, it cannot be a key, or it may belong elsewhere.
    """
    # A recipe from somebody else may name a server of his, and the key must not be sent to it. Only the environment,
    # which is the user's own, can say that the key belongs elsewhere.
    if not is_loopback(url) and url not in (DEFAULT_URL, os.environ.get(ADDRESS_VARIABLE, "").rstrip("/")):
        raise CredentialsError(
            f"Your key for Origin's cloud goes to {DEFAULT_URL} alone, and the device is at {url}, as its options or a "
            f"recipe say. If your key belongs there, set the environment variable {ADDRESS_VARIABLE} to that address."
        )
    key = os.environ.get(VARIABLE, "").strip()
    source = f"environment variable {VARIABLE}"
    if not key and importlib.util.find_spec("keyring") is not None:
        source = "keyring"
        try:
            key = (import_module("keyring").get_password(SERVICE, USER) or "").strip()
        except Exception as error:  # every backend of it has errors of its own
            raise CredentialsError(f"The keyring cannot be read: {error}. {WAYS}") from error
    if not key:
        raise CredentialsError(f"There is no key for Origin's cloud. {WAYS}")
    # The key becomes a header of HTTP: a line break in it would add a header of its own.
    if not key.isprintable() or not key.isascii() or " " in key:
        raise CredentialsError(f"The {source} has a key with characters that no key has. {WAYS}")
    return Secret(key)
