"""Chinese text as tokens. The default tokenizers of BLEU and ROUGE find none in it, and score it 0."""

from __future__ import annotations

import logging
import re
import warnings

_SYMBOLS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_SYMBOLS}]|[^\W_{_SYMBOLS}]+")


def characters(text: str) -> list[str]:
    """Every Chinese character and Japanese kana, and every run of other letters or digits, in lower case.

    Punctuation and spaces are left out.
    """
    return _TOKEN.findall(text.lower())


def words(text: str) -> list[str]:
    """The words that jieba finds, without punctuation and spaces; in lower case."""
    with warnings.catch_warnings():
        # It looks for pkg_resources, which tells everybody that it is going away.
        warnings.simplefilter("ignore")
        import jieba  # noqa: PLC0415
    jieba.setLogLevel(logging.WARNING)  # it tells how long its dictionary takes to load
    return [word for word in jieba.lcut(text.lower()) if _TOKEN.search(word)]
