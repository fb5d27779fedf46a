"""The tuner: puts QPA layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixModel
from qpeft.adapters.qpa.layer import QpaLayer


class QpaModel(AbstractMatrixModel):
    """Made by `get_peft_model(model, QpaConfig(...))`; without target_modules, PEFT's usual ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for mixed batches that cannot be.
    """

    prefix = "qpa_"
    tuner_layer_cls = QpaLayer
