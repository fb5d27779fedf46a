"""Adapters that qpeft adds to PEFT. Importing this registers them."""

from qpeft.adapters import bridge
from qpeft.adapters.loretta import LorettaConfig, LorettaModel
from qpeft.adapters.qpa import QpaConfig, QpaModel
from qpeft.adapters.qtha import QthaConfig, QthaModel
from qpeft.adapters.quantum_peft import QuantumPeftConfig, QuantumPeftModel

ADAPTERS = {
    "qtha": (QthaConfig, QthaModel),
    "loretta": (LorettaConfig, LorettaModel),
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
    "QuantumPeftConfig",
    "QuantumPeftModel",
]
