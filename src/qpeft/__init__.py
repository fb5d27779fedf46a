"""Quantum tensor hybrid adapters for large language models, inside Hugging Face PEFT.

    import qpeft
    from qpeft import QthaConfig
    model = get_peft_model(base, QthaConfig(rank=8, target_modules=["q_proj", "v_proj"]))

Importing registers the adapters with PEFT and does nothing else.
"""

from typing import TYPE_CHECKING, Any

from qpeft.adapters import (
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
    TtLoraConfig,
    TtLoraModel,
)
from qpeft.errors import QpeftError

if TYPE_CHECKING:
    from qpeft.adapters.qtha.quantum_device import set_quantum_device
    from qpeft.adapters.qtha.training_noise import set_training_noise

__all__ = [
    "LorettaConfig",
    "LorettaModel",
    "QpaConfig",
    "QpaModel",
    "QpeftError",
    "QthaConfig",
    "QthaModel",
    "QuantaConfig",
    "QuantaModel",
    "QuantumPeftConfig",
    "QuantumPeftModel",
    "TtLoraConfig",
    "TtLoraModel",
    "set_quantum_device",
    "set_training_noise",
]


def __getattr__(name: str) -> Any:
    # Devices are needed by those who use one, and imported when they do.
    if name == "set_quantum_device":
        from qpeft.adapters.qtha.quantum_device import set_quantum_device  # noqa: PLC0415

        return set_quantum_device
    if name == "set_training_noise":
        from qpeft.adapters.qtha.training_noise import set_training_noise  # noqa: PLC0415

        return set_training_noise
    raise AttributeError(f"module 'qpeft' has no attribute {name!r}")
