"""Errors of vendors without the keys that may stand in them."""

from __future__ import annotations

from collections.abc import Iterable

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
