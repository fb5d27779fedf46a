"""Saved adapters put back onto their base model, with a check that nothing is missing."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from qpeft.adapters import ADAPTERS
from qpeft.errors import AdapterError

OURS = "|".join(config_class.__name__ for config_class, _ in ADAPTERS.values())
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
            # And when a config holds options that ours do not have, as those of a newer qpeft may.
            warnings.filterwarnings("error", message=f"Unexpected keyword arguments .* for class ({OURS}),")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, TypeError, KeyError, UserWarning, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise AdapterError(f"The adapter in {folder} does not fit the model: {reason[:300]}") from error
    if surplus := _without_place(adapted, folder / FILES[1]):
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
