"""What an adapter costs besides its loss: memory, and what the model forgets."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from qpeft.data import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEUTRAL = "neutral.txt"


def neutral_text(tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """The paragraphs of the package's own text about everyday things, every token labelled.

    The loss on it, before and after, says how much of the model's general English an adapter costs.
    """
    text = files("qpeft.comparison").joinpath(NEUTRAL).read_text(encoding="utf-8")
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    tokens = tokenizer(paragraphs, add_special_tokens=False)["input_ids"]
    return [Encoded(ids, list(ids), 0, (), f"{NEUTRAL}:{number}") for number, ids in enumerate(tokens, start=1)]


def peak_memory(device: torch.device) -> int | None:
    """The most memory that this process has held, bytes: torch's on a GPU, else all that was resident.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
