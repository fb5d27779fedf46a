"""The tuner: puts Quantum-PEFT layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixModel
from qpeft.adapters.quantum_peft.layer import QuantumPeftLayer


class QuantumPeftModel(AbstractMatrixModel):
    """Made by `get_peft_model(model, QuantumPeftConfig(...))`; without target_modules, PEFT's usual ones for LoRA.

    Raises: AdapterError for a target that is not linear, a rank above a layer's width, and for mixed batches that
    cannot be.
    """

    prefix = "quantum_peft_"
    tuner_layer_cls = QuantumPeftLayer
