"""Quantum tensor hybrid adapters for large language models, inside Hugging Face PEFT.

    import qpeft
    from qpeft import QthaConfig
    model = get_peft_model(base, QthaConfig(rank=8, target_modules=["q_proj", "v_proj"]))

Importing registers the adapters with PEFT and does nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qpeft.adapters import (
    CayleyConfig,
    CayleyModel,
    LorettaConfig,
    LorettaModel,
    QpaConfig,
    QpaModel,
    QthaConfig,
    QthaModel,
    QuantaConfig,
    QuantaModel,
    QuantumPeftConfig,
    QuantumPeftModel,
    QuantumWeightedConfig,
    QuantumWeightedModel,
    TtLoraConfig,
    TtLoraModel,
)
from qpeft.errors import QpeftError

if TYPE_CHECKING:
    from qpeft.adapters.gradient_start import start_from_gradient
    from qpeft.adapters.qtha.fitting import fit_inputs
    from qpeft.adapters.qtha.quantum_device import finalize, set_quantum_device
    from qpeft.adapters.qtha.training_noise import set_training_noise
    from qpeft.simulation.layer import QuantumLayer

__all__ = [
    "CayleyConfig",
    "CayleyModel",
    "LorettaConfig",
    "LorettaModel",
    "QpaConfig",
    "QpaModel",
    "QpeftError",
    "QthaConfig",
    "QthaModel",
    "QuantaConfig",
    "QuantaModel",
    "QuantumLayer",
    "QuantumPeftConfig",
    "QuantumPeftModel",
    "QuantumWeightedConfig",
    "QuantumWeightedModel",
    "TtLoraConfig",
    "TtLoraModel",
    "finalize",
    "fit_inputs",
    "set_quantum_device",
    "set_training_noise",
    "start_from_gradient",
]
_MODULES = {
    "QuantumLayer": "qpeft.simulation.layer",
    "finalize": "qpeft.adapters.qtha.quantum_device",
    "fit_inputs": "qpeft.adapters.qtha.fitting",
    "set_quantum_device": "qpeft.adapters.qtha.quantum_device",
    "set_training_noise": "qpeft.adapters.qtha.training_noise",
    "start_from_gradient": "qpeft.adapters.gradient_start",
}


def __getattr__(name: str) -> Any:
    # What only some need is imported when they do.
    if name not in _MODULES:
        raise AttributeError(f"module 'qpeft' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
