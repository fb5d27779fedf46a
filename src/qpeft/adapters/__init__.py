"""Adapters that qpeft adds to PEFT. Importing this registers them."""

from qpeft.adapters import bridge
from qpeft.adapters.qtha import QthaConfig, QthaModel
from qpeft.adapters.tt_lora import TtLoraConfig, TtLoraModel

ADAPTERS = {"qtha": (QthaConfig, QthaModel), "tt_lora": (TtLoraConfig, TtLoraModel)}

for _name, (_config_class, _model_class) in ADAPTERS.items():
    bridge.register(_name, config_class=_config_class, model_class=_model_class)

__all__ = ["ADAPTERS", "QthaConfig", "QthaModel", "TtLoraConfig", "TtLoraModel"]
