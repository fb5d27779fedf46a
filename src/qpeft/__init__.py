"""Quantum tensor hybrid adapters for large language models, inside Hugging Face PEFT.

    import qpeft
    from qpeft import QthaConfig
    model = get_peft_model(base, QthaConfig(rank=8, target_modules=["q_proj", "v_proj"]))

Importing registers the adapters with PEFT and does nothing else.
"""

from qpeft.adapters import QthaConfig, QthaModel
from qpeft.errors import QpeftError

__all__ = ["QpeftError", "QthaConfig", "QthaModel"]
