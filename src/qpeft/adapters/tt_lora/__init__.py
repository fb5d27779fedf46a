"""The whole update as one tensor train (TT-LoRA, arXiv:2408.01008)."""

from qpeft.adapters.tt_lora.config import TtLoraConfig
from qpeft.adapters.tt_lora.layer import TtLoraLayer
from qpeft.adapters.tt_lora.model import TtLoraModel

__all__ = ["TtLoraConfig", "TtLoraLayer", "TtLoraModel"]
