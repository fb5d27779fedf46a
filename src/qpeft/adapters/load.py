"""Saved adapters put back onto their base model, with a check that nothing is missing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from qpeft.adapters.validation import WEIGHTS, check_saved
from qpeft.errors import AdapterError


def load_adapter(
    model: PreTrainedModel, folder: Path, *, is_trainable: bool = False, autocast_adapter_dtype: bool = True
) -> PeftModel:
    """`model` with the adapter saved in `folder`, in evaluation mode. Reads files, and runs none of them.

    Args:
        model: the base model.
        folder: with the adapter's config and weights.
        is_trainable: whether the adapter's weights take gradients.
        autocast_adapter_dtype: whether weights in half precision are made float32, as PEFT does.

    Raises: AdapterError if something in the folder is missing, damaged or of a newer version, or if the adapter's
    weights do not fit the model, which may then hold parts of the adapter: load it again.
    """
    check_saved(folder)
    try:
        with warnings.catch_warnings():
            # PEFT only warns when weights that the model expects are not in the file.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            adapted = PeftModel.from_pretrained(
                model, str(folder), is_trainable=is_trainable, autocast_adapter_dtype=autocast_adapter_dtype
            )
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, UserWarning) as error:
        reason = " ".join(str(error).split())
        raise AdapterError(f"The adapter in {folder} does not fit the model: {reason[:300]}") from error
    if surplus := _without_place(adapted, folder / WEIGHTS):
        raise AdapterError(
            f"The adapter in {folder} does not fit the model: it has weights for places that the model lacks, "
            f"{surplus[0]!r} first. Load it onto the base model that it was trained on."
        )
    adapted.eval()
    return adapted


def _without_place(model: PeftModel, file: Path) -> list[str]:
    """Names in the file that PEFT silently left out; embeddings are saved under the model's own names."""
    taken = {*get_peft_model_state_dict(model, save_embedding_layers=False), *model.state_dict()}
    with safe_open(file, framework="pt") as weights:
        return sorted(name for name in weights.keys() if name not in taken)  # noqa: SIM118  (no mapping)


# A model in evaluation mode for a while.


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; outside, every module has the mode from before."""
    were_training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was_training in were_training:
            module.training = was_training
