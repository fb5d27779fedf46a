"""Adapters that qpeft adds to PEFT. Importing this registers them."""

from qpeft.adapters import bridge
from qpeft.adapters.loretta import LorettaConfig, LorettaModel
from qpeft.adapters.qpa import QpaConfig, QpaModel
from qpeft.adapters.qtha import QthaConfig, QthaModel
from qpeft.adapters.quanta import QuantaConfig, QuantaModel
from qpeft.adapters.quantum_peft import QuantumPeftConfig, QuantumPeftModel
from qpeft.adapters.tt_lora import TtLoraConfig, TtLoraModel

ADAPTERS = {
    "qtha": (QthaConfig, QthaModel),
    "loretta": (LorettaConfig, LorettaModel),
    "quanta": (QuantaConfig, QuantaModel),
    "tt_lora": (TtLoraConfig, TtLoraModel),
    "qpa": (QpaConfig, QpaModel),
    "quantum_peft": (QuantumPeftConfig, QuantumPeftModel),
}

for _name, (_config_class, _model_class) in ADAPTERS.items():
    bridge.register(_name, config_class=_config_class, model_class=_model_class)

__all__ = [
    "ADAPTERS",
    "LorettaConfig",
    "LorettaModel",
    "QpaConfig",
    "QpaModel",
    "QthaConfig",
    "QthaModel",
    "QuantaConfig",
    "QuantaModel",
    "QuantumPeftConfig",
    "QuantumPeftModel",
    "TtLoraConfig",
    "TtLoraModel",
]
