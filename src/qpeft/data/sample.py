"""One encoded dialogue as a person reads it, with the trained tokens marked."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from qpeft.data.encode import IGNORED, Encoded

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

TRAINED_STYLE = "bold green"
OPENING, CLOSING = "[[", "]]"
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}


def render_sample(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> Text:
    """The text of an example; what is trained on is green and, for terminals without colour, in double brackets.

    Control characters of the data are shown as pictures, so that they cannot move the cursor.
    """
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    labelled = zip(encoded.input_ids, encoded.labels, strict=True)
    for trained, run in groupby(labelled, key=lambda pair: pair[1] != IGNORED):
        words = str(tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False))
        words = words.translate(CONTROL_PICTURES)
        text.append(f"{OPENING}{words}{CLOSING}" if trained else words, style=TRAINED_STYLE if trained else "dim")
    if encoded.cut:
        text.append(f"\n({encoded.cut} more tokens are cut off)", style="yellow")
    return text
