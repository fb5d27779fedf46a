"""LoRA whose two matrices are tensor trains (the reparametrised form of LoRETTA, arXiv:2402.11417)."""

from qpeft.adapters.tt_lora.config import TtLoraConfig
from qpeft.adapters.tt_lora.layer import TtLoraLayer
from qpeft.adapters.tt_lora.model import TtLoraModel

__all__ = ["TtLoraConfig", "TtLoraLayer", "TtLoraModel"]
