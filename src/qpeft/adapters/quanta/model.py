"""The tuner: puts QuanTA layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixModel
from qpeft.adapters.quanta.layer import QuantaLayer


class QuantaModel(AbstractMatrixModel):
    """Made by `get_peft_model(model, QuantaConfig(...))`; without target_modules, PEFT's usual
    ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear or of a width without axes, and for mixed batches that cannot
    be.
    """

    prefix = "quanta_"
    tuner_layer_cls = QuantaLayer
