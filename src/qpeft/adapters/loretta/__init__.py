"""LoRA whose two matrices are tensor trains (the reparametrised form of LoRETTA, arXiv:2402.11417)."""

from qpeft.adapters.loretta.config import LorettaConfig
from qpeft.adapters.loretta.layer import LorettaLayer
from qpeft.adapters.loretta.model import LorettaModel

__all__ = ["LorettaConfig", "LorettaLayer", "LorettaModel"]
