"""Options that every adapter of ours has, as PEFT stores them in adapter_config.json, and their checks."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft import PeftConfig

from qpeft.adapters.bridge import get_pattern_key, peft_type
from qpeft.errors import AdapterError, UnknownOptionError

FORMAT_VERSION = 1
"""Raised when a saved adapter would mean something else to an older qpeft. Files without one are of version 1."""


LORA_NAMES = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout"}
"""What LoRA's options are called here."""


def option(default: Any, description: str, *, added: bool = False) -> Any:
    """A field of a config, with the sentence that tables of options show.

    `added`: whether saved adapters may lack it, since it came later; they were trained with what is the default.

    Args:
        default: value where nobody says otherwise.
        description: one sentence, for tables and help.
        added: whether the option came after the first saved adapters.
    """
    return field(default=default, metadata={"help": description, "added": added})


def is_number(value: Any) -> bool:
    """Whether a value is a finite number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_counts(counts: Mapping[str, Any]) -> None:
    """Raises: AdapterError for a value that is no whole number of at least 1, by its name."""
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise AdapterError(f"{name} must be a whole number of at least 1; got {value!r}.")


def check_numbers(numbers: Mapping[str, Any]) -> None:
    """Raises: AdapterError for a value that is no finite number, by its name."""
    for name, value in numbers.items():
        if not is_number(value):
            raise AdapterError(f"{name} must be a finite number; got {value!r}.")


def check_pattern(name: str, pattern: Any) -> None:
    """Raises: AdapterError for a string that is no regular expression, by the option's name."""
    try:
        re.compile(pattern if isinstance(pattern, str) else "")
    except re.error as error:
        raise AdapterError(f"{name} {pattern!r} is no regular expression: {error}.") from error


def nearest_option(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown option: the one that was meant, or all that there are."""
    names = sorted(known)
    near = [LORA_NAMES[name]] if LORA_NAMES.get(name) in names else difflib.get_close_matches(name, names, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f". Known: {', '.join(names)}."


def current_names(config_class: type[PeftConfig], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a config, of ours or PEFT's, under the names that they have now."""
    renamed = config_class.renamed if issubclass(config_class, AdapterConfig) else {}
    return {renamed.get(name, name): value for name, value in options.items()}


@dataclass
class AdapterConfig(PeftConfig):
    """Where an adapter stands and how it starts; each method adds its own options.

    `class TheirConfig(AdapterConfig, method="theirs")` is what PEFT stores as peft_type THEIRS.

    Raises: UnknownOptionError for an option that the method lacks, naming the nearest; AdapterError for a value out of
    range or at odds with another, and for a format this qpeft does not know.
    """

    dropout: float = option(0.0, "Probability with which entries of x are dropped before the adapter, in training.")
    target_modules: list[str] | str | None = option(
        None, "Names (or endings, or one regular expression) of the linear layers to adapt; 'all-linear' for all."
    )
    exclude_modules: list[str] | str | None = option(None, "Modules to leave out, in the same notation.")
    layers_to_transform: list[int] | int | None = option(None, "Indices of the transformer layers to adapt.")
    layers_pattern: list[str] | str | None = option(None, "Name of the list of layers, where PEFT does not know it.")
    modules_to_save: list[str] | None = option(None, "Further modules to train in full and save with the adapter.")
    init_seed: int | None = option(None, "Seed of the initial weights; None takes them from torch's global generator.")
    format_version: int = option(FORMAT_VERSION, "Format of the saved adapter; qpeft sets it.", added=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Options by the names that saved adapters and recipes of before have for them."""
    _method: ClassVar[str | None] = None

    def __init_subclass__(cls, *, method: str | None = None) -> None:
        super().__init_subclass__()
        if method is not None:
            cls._method = method

    def __new__(cls, *_: Any, **options: Any) -> AdapterConfig:
        """Options are looked at before the dataclass's own `__init__`, whose error names nothing near."""
        known = list(inspect.signature(cls.__init__).parameters)[1:]
        for name in options:
            if name not in known:
                # In words that PEFT knows: it then reads files of newer versions without what it does not know.
                hint = nearest_option(name, known)
                raise UnknownOptionError(f"{cls.__name__} got an unexpected keyword argument {name!r}{hint}")
        made: AdapterConfig = super().__new__(cls)
        return made

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._method is not None:
            self.peft_type = peft_type(self._method.upper())
        if self.format_version != FORMAT_VERSION:
            raise AdapterError(
                f"This adapter is of format {self.format_version!r}; this qpeft knows {FORMAT_VERSION}. "
                "Load it with the qpeft that saved it, or a newer one."
            )
        for name in ("target_modules", "exclude_modules"):
            check_pattern(name, getattr(self, name))
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise AdapterError(f"dropout must be at least 0 and below 1; got {self.dropout!r}.")
        if self.init_seed is not None and type(self.init_seed) is not int:
            raise AdapterError(f"init_seed must be a whole number or left unset; got {self.init_seed!r}.")
        if isinstance(self.target_modules, str) and (self.layers_to_transform is not None or self.layers_pattern):
            raise AdapterError("layers_to_transform and layers_pattern need target_modules as a list, not as a string.")
        if self.layers_pattern and self.layers_to_transform is None:
            raise AdapterError("layers_pattern names where layers_to_transform counts; set layers_to_transform too.")


@dataclass
class RankedConfig(AdapterConfig):
    """Options of a method whose update has a rank and is multiplied by alpha / rank, as LoRA's is.

    Raises: AdapterError for ranks below 1 and alphas that are no finite number, those of patterns included.
    """

    rank: int = option(8, "Width of the bottleneck.")
    alpha: float = option(16.0, "The update is multiplied by alpha / rank.")
    rank_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Ranks of single modules: name or regular expression to rank."}
    )
    alpha_pattern: dict[str, float] = field(
        default_factory=dict, metadata={"help": "Alphas of single modules, in the same notation."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank_pattern", "alpha_pattern"):
            if not isinstance(getattr(self, name), dict):
                raise AdapterError(f"{name} goes from names of modules to numbers; got {getattr(self, name)!r}.")
            for pattern in getattr(self, name):
                check_pattern(name, pattern)
        check_counts({"rank": self.rank, **_named("rank_pattern", self.rank_pattern)})
        check_numbers({"alpha": self.alpha, **_named("alpha_pattern", self.alpha_pattern)})

    @property
    def ranks(self) -> list[int]:
        """Every rank that some layer may get."""
        return [self.rank, *self.rank_pattern.values()]

    def rank_of(self, name: str) -> int:
        """Rank of the layer called `name`."""
        return self.rank_pattern.get(get_pattern_key(self.rank_pattern, name), self.rank)

    def scaling_of(self, name: str) -> float:
        """alpha / rank of the layer called `name`."""
        return self.alpha_pattern.get(get_pattern_key(self.alpha_pattern, name), self.alpha) / self.rank_of(name)


@dataclass
class GradientStartConfig(RankedConfig):
    """Options of a method of two factors that can start from the gradient.

    Raises: AdapterError for another `init`, or batches below 1.
    """

    init: str = option(
        "random",
        "'random' or 'gradient': `down` starts in the directions in which the loss falls fastest, found in a pass over "
        "`init_batches` batches by `qpeft.start_from_gradient`, as `qpeft train` does.",
        added=True,
    )
    init_batches: int = option(8, "Batches of training data that init='gradient' reads in `qpeft train`.", added=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in ("random", "gradient"):
            raise AdapterError(f"init must be 'random' or 'gradient'; got {self.init!r}.")
        check_counts({"init_batches": self.init_batches})


def _named(option_name: str, pattern: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{option_name}[{key!r}]": value for key, value in pattern.items()}
