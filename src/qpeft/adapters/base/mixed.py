"""Mixed batches: `model(tokens, adapter_names=["first", "__base__", "second"])`, an adapter for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn
from transformers import PreTrainedModel

from qpeft.adapters.base.layer import AbstractAdapterLayer
from qpeft.adapters.bridge import AuxiliaryTrainingWrapper
from qpeft.errors import AdapterError

BASE = "__base__"
"""In `adapter_names`, PEFT's word for a row without an adapter."""


@contextmanager
def mixed_batch(tuner: nn.Module, adapter_names: Sequence[str], num_beams: int | None) -> Iterator[None]:
    """A context in which row i of every batch goes through adapter_names[i].

    Args:
        tuner: with the layers of one method.
        adapter_names: one a row; `BASE` for none.
        num_beams: of a beam search, which repeats each row so many times.

    Raises: AdapterError in training mode, while merged, beside modules_to_save, or with a name that no layer knows.
    """
    layers = [module for module in tuner.modules() if isinstance(module, AbstractAdapterLayer)]
    _check(tuner, adapter_names, layers)
    names = [name for name in adapter_names for _ in range(num_beams or 1)]
    # Of (batch, tokens, features): with a dimension less, tokens of all rows are mixed up, as an expert gets them.
    dimensions = 3 if isinstance(tuner.get_submodule("model"), PreTrainedModel) else 2
    with ExitStack() as contexts:
        for layer in layers:
            contexts.enter_context(layer.mixed(names, dimensions=dimensions))
        yield


def _check(tuner: nn.Module, adapter_names: Sequence[str], layers: Sequence[AbstractAdapterLayer]) -> None:
    if tuner.training:
        raise AdapterError("adapter_names is for inference; call model.eval() first, or train one adapter a batch.")
    if any(layer.merged for layer in layers):
        raise AdapterError("adapter_names needs adapters beside the weights; call model.unmerge_adapter() first.")
    if any(isinstance(module, AuxiliaryTrainingWrapper) for module in tuner.modules()):
        # PEFT would send all rows through those of the active adapter.
        raise AdapterError("adapter_names does not reach modules_to_save: run one batch per adapter, by set_adapter.")
    known = {name for layer in layers for name in layer.branches}
    if unknown := sorted({*adapter_names} - known - {BASE}):
        raise AdapterError(
            f"adapter_names holds {', '.join(map(repr, unknown))}; the model has {', '.join(sorted(known))}, and "
            f"{BASE!r} for no adapter."
        )
