"""Where a key may be sent, and errors of vendors without the keys that may stand in them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

SHORTEST = 6
"""Letters below which a text is taken for no key: blanking it would make messages unreadable and hide nothing."""


def redacted(error: BaseException, secrets: Iterable[object]) -> tuple[str, BaseException | None]:
    """Return what an error says, for a message of ours, and the error itself as the cause, if that gives no key away.

    Args:
        error: of a vendor.
        secrets: what must not be seen; only texts of at least `SHORTEST` letters count.

    Returns:
        Kind and text of the error with every secret as "...", and what to raise ours from: None if it held one.
    """
    texts = [secret for secret in secrets if isinstance(secret, str) and len(secret) >= SHORTEST]
    plain = text = f"{type(error).__name__}: {error}"
    # The longest first: a key may contain another one.
    for secret in sorted(texts, key=len, reverse=True):
        text = text.replace(secret, "...")
    # Tracebacks print causes, and what those were raised from, with their own texts: all of them must be clean.
    earlier = error.__cause__ or error.__context__
    is_clean = text == plain and (earlier is None or redacted(earlier, texts)[1] is not None)
    return text, error if is_clean else None


def is_server(url: str) -> bool:
    """Whether this is http or https, a host, perhaps a port and a path, and nothing else: no user, no query."""
    try:
        parts = urlsplit(url)
        is_address = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:  # a port that is not a number, a bracket that is not closed
        return False
    return is_address and not (parts.username or parts.password or parts.query or parts.fragment)


def is_loopback(url: str) -> bool:
    """Whether what is sent there stays on this machine; False for what is not an address."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, or nothing that can be read
        return False
