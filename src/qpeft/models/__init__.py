"""Base models and their tokenizers: from a folder, from the Hub, or the small one that comes in a Python package."""

from qpeft.models.load import load_model, load_skeleton, load_tokenizer
from qpeft.models.package import PACKAGE_MODEL
from qpeft.models.precision import Precision, choose_precision, default_device, device_name, prepare_for_training

__all__ = [
    "PACKAGE_MODEL",
    "Precision",
    "choose_precision",
    "default_device",
    "device_name",
    "load_model",
    "load_skeleton",
    "load_tokenizer",
    "prepare_for_training",
]
