"""Our adapters in axolotl, a trainer that takes foreign adapters from plug-ins. axolotl imports this, qpeft does not.

    plugins:
      - qpeft.integrations.axolotl.QpeftPlugin
    adapter: qtha
    qpeft:
      rank: 8
      target_modules: [q_proj, v_proj]

The interface, as of axolotl 0.18 and 0.19: `axolotl.integrations.base` has `BasePlugin`, whose methods axolotl calls,
and `AdapterCapabilities`, by which a plug-in says which values of `adapter` it serves; `load_adapter` of the first
plug-in that returns something is used. Configurations are dictionaries whose missing keys read as None.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
from axolotl.integrations.base import AdapterCapabilities, BasePlugin
from peft import PeftConfig, PeftModel
from pydantic import BaseModel, Field
from transformers import PreTrainedModel

from qpeft.adapters import ADAPTERS
from qpeft.adapters.build import add_adapter, build_config
from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError, RecipeError

OLDEST_PEFT = (0, 21)
"""Older ones keep the adapter's name in the keys of its file where parts of a layer have parts; it cannot be loaded."""

QUANTIZED = ("load_in_4bit", "load_in_8bit", "gptq")
"""axolotl quantizes for its own adapters only; beside a plug-in's it leaves these without effect, and says nothing."""

KEPT = {"lora_model_dir"}
"""The one key of axolotl's LoRA section that says something of every adapter: where a trained one lies."""


class QpeftArgs(BaseModel):
    """The keys that the plug-in adds to axolotl's configuration."""

    qpeft: dict[str, Any] | None = Field(
        None, description="Fields of the adapter's PEFT config, such as rank and target_modules."
    )


class QpeftPlugin(BasePlugin):
    """Serves `adapter: NAME` for every method of qpeft, with the options under `qpeft:`."""

    def get_input_args(self) -> str:
        """Where axolotl finds the keys that we add."""
        return f"{QpeftArgs.__module__}.{QpeftArgs.__name__}"

    def get_adapter_capabilities(self) -> list[AdapterCapabilities]:
        """Our methods; none takes LoRA's options, and none is merged and restarted as ReLoRA does."""
        return [AdapterCapabilities(name=name, lora_like=False, relora=False) for name in ADAPTERS]

    def load_adapter(
        self, model: PreTrainedModel, cfg: Mapping[str, Any], inference: bool = False, config_only: bool = False
    ) -> tuple[PeftModel | None, PeftConfig] | None:
        """The model with a new adapter, or the trained one of `lora_model_dir`, and its config.

        Args:
            model: the base model.
            cfg: axolotl's whole configuration.
            inference: whether the adapter is only used, not trained further.
            config_only: leave the model alone and return (None, config), as for trainers that add the adapter.

        Returns: None if `cfg` names an adapter that is not ours.
        Raises: RecipeError for keys or a folder without effect, AdapterError for options or a trained adapter
            that do not fit, or a PEFT that cannot save the adapter.
        """
        method = cfg.get("adapter")
        if method not in ADAPTERS:
            return None
        _refuse_an_old_peft()
        _refuse_what_has_no_effect(cfg, method)
        autocast = cfg.get("peft_autocast_adapter_dtype")
        options = {} if autocast is None else {"autocast_adapter_dtype": autocast}
        if folder := cfg.get("lora_model_dir"):
            if config_only:
                raise RecipeError(
                    f"lora_model_dir: axolotl asks for options alone here, as it does for preference training, and the "
                    f"weights in {folder} would be left out. Without lora_model_dir a new adapter is trained."
                )
            trained = load_adapter(model, Path(folder), is_trainable=not inference, **options)
            found = trained.active_peft_config
            if found.peft_type != method.upper():
                raise RecipeError(
                    f"lora_model_dir: {folder} holds a {found.peft_type.value}, not the adapter {method!r}."
                )
            return trained, found
        config = build_config(method, cfg.get("qpeft") or {})
        return (None, config) if config_only else (add_adapter(model, config, **options), config)


def _refuse_an_old_peft() -> None:
    if tuple(int(part) for part in peft.__version__.split(".")[:2]) < OLDEST_PEFT:
        raise AdapterError(
            f"PEFT {peft.__version__} would save the adapter in a file that cannot be loaded again; qpeft needs PEFT "
            f"{'.'.join(map(str, OLDEST_PEFT))} or newer, which this axolotl does not install by itself."
        )


def _refuse_what_has_no_effect(cfg: Mapping[str, Any], method: str) -> None:
    given = sorted(key for key in cfg if key.startswith(("lora_", "peft_use_")) and key not in KEPT and cfg[key])
    if given:
        raise RecipeError(
            f"{', '.join(given)} would have no effect on adapter {method!r}; its options stand under 'qpeft:', "
            "such as rank and target_modules."
        )
    if quantized := [key for key in QUANTIZED if cfg.get(key)]:
        raise RecipeError(
            f"{quantized[0]} would have no effect: axolotl quantizes for its own adapters only, not for {method!r}. "
            "Name a base model that is stored quantized, or leave it out."
        )
