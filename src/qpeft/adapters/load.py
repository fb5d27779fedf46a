"""Saved adapters put back onto their base model, with a check that nothing is missing."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import PreTrainedModel

from qpeft.adapters.saved import WEIGHTS, check_saved
from qpeft.errors import AdapterError


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the adapter saved in `folder`, in evaluation mode. Reads files, and runs none of them.

    Raises: AdapterError if something in the folder is missing, damaged or of a newer version, or if the adapter's
    weights do not fit the model, which may then hold parts of the adapter: load it again.
    """
    check_saved(folder)
    try:
        with warnings.catch_warnings():
            # PEFT only warns when weights that the model expects are not in the file.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            adapted = PeftModel.from_pretrained(model, str(folder))
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
