"""Adapters that qpeft adds to PEFT, and those of other packages. Importing this registers them."""

from qpeft.adapters.cayley import CayleyConfig, CayleyModel
from qpeft.adapters.loretta import LorettaConfig, LorettaModel
from qpeft.adapters.plugins import ADAPTERS, load_plugins, register_adapter
from qpeft.adapters.qpa import QpaConfig, QpaModel
from qpeft.adapters.qtha import QthaConfig, QthaModel
from qpeft.adapters.quanta import QuantaConfig, QuantaModel
from qpeft.adapters.quantum_peft import QuantumPeftConfig, QuantumPeftModel
from qpeft.adapters.quantum_weighted import QuantumWeightedConfig, QuantumWeightedModel
from qpeft.adapters.tt_lora import TtLoraConfig, TtLoraModel

for _name, _config_class, _model_class in (
    ("qtha", QthaConfig, QthaModel),
    ("loretta", LorettaConfig, LorettaModel),
    ("quanta", QuantaConfig, QuantaModel),
    ("tt_lora", TtLoraConfig, TtLoraModel),
    ("qpa", QpaConfig, QpaModel),
    ("quantum_peft", QuantumPeftConfig, QuantumPeftModel),
    ("quantum_weighted", QuantumWeightedConfig, QuantumWeightedModel),
    ("cayley", CayleyConfig, CayleyModel),
):
    register_adapter(_name, _config_class, _model_class)
load_plugins()

__all__ = [
    "ADAPTERS",
    "CayleyConfig",
    "CayleyModel",
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
    "QuantumWeightedConfig",
    "QuantumWeightedModel",
    "TtLoraConfig",
    "TtLoraModel",
    "register_adapter",
]
