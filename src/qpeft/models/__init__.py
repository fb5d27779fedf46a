"""Base models and their tokenizers: from a folder, from the Hub, or the small one that comes in a Python package."""

from qpeft.models.device import default_device, device_name
from qpeft.models.load import load_model, load_skeleton, load_tokenizer
from qpeft.models.package import PACKAGE_MODEL

__all__ = ["PACKAGE_MODEL", "default_device", "device_name", "load_model", "load_skeleton", "load_tokenizer"]
