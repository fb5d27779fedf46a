"""How we call transformers: its failures as one sentence, its progress bars off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qpeft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_REASON = 600


@contextmanager
def vendor_errors(name: str) -> Iterator[None]:
    """Turns what loading `name` raises into a ModelError of one sentence, with the original as its cause."""
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as e:
        reason = " ".join(str(e).split())
        reason = reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "..."
        raise ModelError(f"{name} cannot be loaded: {reason or type(e).__name__}") from e


@contextmanager
def no_progress_bars(*, unless_downloading: bool = False) -> Iterator[None]:
    """Without the progress bars of transformers, unless a download may take long. Its warnings stay."""
    from transformers.utils import logging  # noqa: PLC0415  (takes seconds to import)

    if unless_downloading or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def forget_gguf(model: PreTrainedModel) -> None:
    """Let a model out of a GGUF file be saved: its weights are plain tensors by now, but it calls itself quantized."""
    quantization = getattr(model.config, "quantization_config", None)
    if quantization is not None and quantization.quant_method == "gguf":
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
