"""Saved adapters put back onto their base model, with a check that nothing is missing."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from qpeft.errors import AdapterError

FILES = ("adapter_config.json", "adapter_model.safetensors")


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the adapter saved in `folder`, in evaluation mode.

    Raises: AdapterError if a file is missing or damaged, or if the adapter's weights do not fit the model.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise AdapterError(
                f"{folder} holds no {name}: it is no folder of a trained adapter, or training was cut short."
            )
    try:
        with warnings.catch_warnings():
            # PEFT only warns when weights that the model expects are not in the file.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError, UserWarning, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise AdapterError(f"The adapter in {folder} does not fit the model: {reason[:300]}") from error
    adapted.eval()
    return adapted
