"""What a model can be given to read: which tokens, and how many of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LENGTHS = ("max_position_embeddings", "n_positions", "max_target_positions", "n_ctx", "max_seq_len")
"""What configurations call the number of positions."""


@dataclass(frozen=True)
class Reading:
    """What a model can read.

    Attributes:
        name: of the model, for messages.
        tokens: ids below this have a place in the model's embedding and its head.
        positions: tokens that it can read at once; None if nothing stops it.
        whole_rows: whether a row of several examples, each at positions of its own, may not be longer either.
        made_for: tokens that its configuration names, or None. Rotary models read more than that, at positions that
            they were never trained on.
    """

    name: str
    tokens: int
    positions: int | None
    whole_rows: bool
    made_for: int | None

    def unknown_token(self, tokenizer: PreTrainedTokenizerBase, token: int) -> str:
        """Return a sentence, beginning with the token, about an id that the model has no place for."""
        return (
            f"the token {tokenizer.convert_ids_to_tokens(token)!r} has the id {token}, and the embedding of "
            f"{self.name} ends at {self.tokens - 1}"
        )

    def padding_fault(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """Return why short texts cannot be padded to the length of others, and what to do, or None."""
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id < self.tokens:
            return None
        return (
            "The tokenizer pads with a token that the model does not have: "
            f"{self.unknown_token(tokenizer, tokenizer.pad_token_id)}. Name another pad_token in "
            f"tokenizer_config.json, such as {tokenizer.eos_token!r}, or give the model a place for it "
            "(model.resize_token_embeddings) and save it."
        )


def reading(model: PreTrainedModel, name: str | None = None) -> Reading:
    """Return what a model, or its skeleton, can be given to read.

    Args:
        model: with or without weights and adapters.
        name: of it in messages; None for that of its architecture.
    """
    config = model.config.get_text_config()
    lengths = {length for name in _LENGTHS if isinstance(length := getattr(config, name, None), int)}
    positions, whole_rows = _positions(model, lengths)
    if config.model_type == "mpt":  # its table of biases is as wide as this, and made anew in every pass
        positions, whole_rows = config.max_seq_len, True
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # Not the weight's own shape where there is another way: sharded weights may be elsewhere.
    size: int = getattr(embedding, "num_embeddings", None) or embedding.weight.shape[0]
    tokens = min(size, getattr(head, "out_features", None) or size)
    made_for = getattr(config, "max_position_embeddings", None)
    return Reading(name or config.model_type, tokens, positions, whole_rows, positions or made_for)


def _positions(model: PreTrainedModel, lengths: set[int]) -> tuple[int | None, bool]:
    """Return for how many positions the model has a learned vector or a row of a fixed table; and if rows count whole.

    They are found by their size, which is one of `lengths`. Rotary embeddings, relative ones and ALiBi have no such
    thing, and neither have tables that grow.
    """
    from torch import nn  # noqa: PLC0415  (takes seconds to import)

    words, found, whole_rows = model.get_input_embeddings(), [], False
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not words:
            offset = getattr(module, "offset", 0)  # OPT and BART put two rows before the first position, ...
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # ... RoBERTa all up to its padding
            if module.num_embeddings - offset in lengths:
                found.append(module.num_embeddings - offset - first)
        for name, table in module.named_buffers(recurse=False):
            if "pos" in name and table.ndim == 2 and table.shape[0] in lengths:  # GPT-J, CodeGen, CTRL
                found.append(table.shape[0])
            # Ids of positions and masks that are cut to a row's length (BERT, GPT-Neo).
            whole_rows |= table.ndim > 1 and table.shape[-1] in lengths and ("_ids" in name or name == "bias")
    return (min(found), whole_rows) if found else (None, False)
