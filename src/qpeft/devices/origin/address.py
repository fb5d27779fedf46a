"""Addresses that a key may be sent to."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from qpeft.errors import DeviceError

DEFAULT_URL = "https://pyqanda-admin.qpanda.cn"
"""Host as in the documentation of the vendor's client, which has it with http; nobody has tried this one with https."""


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises: DeviceError if it is none, or would send the key in the clear over a network.
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


def is_server(url: str) -> bool:
    """Whether it is http or https, a host, perhaps a port and a path, and nothing else: no user, no query."""
    try:
        parts = urlsplit(url)
        is_address = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False
    return is_address and not (parts.username or parts.password or parts.query or parts.fragment)


def is_loopback(url: str) -> bool:
    """Whether what is sent there stays on this machine; not so for what is no address."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, or nothing that can be read
        return False
