"""A text about nothing that anybody trains for: what an adapter makes worse there, the model has forgotten."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from qpeft.data import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEUTRAL = "neutral.txt"


def neutral_text(tokenizer: PreTrainedTokenizerBase, longest: int | None = None) -> list[Encoded]:
    """The paragraphs of the package's own text about everyday things, every token labelled, cut to the `longest`.

    The loss on it, before and after, says how much of the model's general English an adapter costs.
    """
    text = files("qpeft.comparison").joinpath(NEUTRAL).read_text(encoding="utf-8")
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    tokens = tokenizer(paragraphs, add_special_tokens=False)["input_ids"]
    return [
        Encoded(ids[:longest], ids[:longest], 0, (), f"{NEUTRAL}:{number}")
        for number, ids in enumerate(tokens, start=1)
    ]
