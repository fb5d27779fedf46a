"""What the plug-in meets of axolotl 0.19: the names and signatures of its plug-in interface, and its dictionaries."""

import sys
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True)
class AdapterCapabilities:
    name: str
    lora_like: bool = False
    relora: bool = False


class BasePlugin:
    def get_input_args(self):
        return None

    def get_adapter_capabilities(self):
        return []

    def load_adapter(self, model, cfg, inference=False, config_only=False):
        """None: an adapter of somebody else."""


class DictDefault(dict):
    """Missing keys read as None, and dictionaries inside are of the same kind."""

    def __init__(self, *args, **values):
        super().__init__(*args, **values)
        for key, value in self.items():
            if isinstance(value, dict):
                self[key] = DictDefault(value)

    def __missing__(self, key):
        return None


def load_plugin(name):
    """A plug-in by the name that a YAML file has under `plugins`."""
    module, _, class_name = name.rpartition(".")
    return getattr(import_module(module), class_name)()


def install(monkeypatch):
    """Put the stub where `import axolotl` finds it."""
    for name in ("axolotl", "axolotl.integrations", "axolotl.integrations.base"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    base = sys.modules["axolotl.integrations.base"]
    base.AdapterCapabilities, base.BasePlugin = AdapterCapabilities, BasePlugin
    monkeypatch.delitem(sys.modules, "qpeft.integrations.axolotl", raising=False)
