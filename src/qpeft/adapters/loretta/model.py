"""The tuner: puts LoRETTA layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixModel
from qpeft.adapters.loretta.layer import LorettaLayer


class LorettaModel(AbstractMatrixModel):
    """Made by `get_peft_model(model, LorettaConfig(...))`; without target_modules, PEFT's usual
    ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for mixed batches that cannot be.
    """

    prefix = "loretta_"
    tuner_layer_cls = LorettaLayer
