"""The tuner: puts TT-LoRA layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixModel
from qpeft.adapters.tt_lora.layer import TtLoraLayer


class TtLoraModel(AbstractMatrixModel):
    """Made by `get_peft_model(model, TtLoraConfig(...))`; without target_modules, PEFT's usual
    ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for mixed batches that cannot be.
    """

    prefix = "tt_lora_"
    tuner_layer_cls = TtLoraLayer
