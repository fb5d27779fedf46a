"""The type of a base model's weights: as the recipe says, or what the hardware is fastest in."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpeft.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel


@dataclass(frozen=True)
class Precision:
    """`dtype`: name of a floating-point type of torch. `reason`: why that one, a part of a sentence."""

    dtype: str
    reason: str

    def __str__(self) -> str:
        return f"{self.dtype}: {self.reason}"


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """Return the type of the base weights. Adapters of half-precision models are trained in float32 all the same.

    Args:
        wanted: 'float32', 'bfloat16', 'float16', or 'auto'.
        device: where the model computes.
    """
    if wanted != "auto":
        return Precision(wanted, "as the recipe says")
    if device.type == "cpu":
        return Precision("float32", "on most CPUs bfloat16 is several times slower")
    if device.type == "cuda":
        import torch  # noqa: PLC0415  (takes seconds to import)

        # Older GPUs emulate bfloat16, more slowly than they compute in float32.
        with torch.cuda.device(device):
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return Precision("bfloat16", "this GPU computes in it; the adapter stays in float32")
    return Precision("float32", f"this {device.type} device does not compute in bfloat16")


def default_device() -> torch.device:
    """Return this process's accelerator as transformers' Trainer chooses it: a GPU if there is one, else the CPU."""
    from accelerate import PartialState  # noqa: PLC0415  (takes seconds to import)

    device: torch.device = PartialState().device
    return device


def device_name(device: torch.device) -> str:
    """Return the name of the hardware, or of the kind of device where the hardware does not tell."""
    import torch  # noqa: PLC0415  (takes seconds to import)

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


QUANTIZATIONS = ("4bit", "8bit")


def quantization_config(quantization: str, *, dtype: str) -> BitsAndBytesConfig:
    """Return how transformers is to load a model in 4 or 8 bits, by bitsandbytes.

    Args:
        quantization: one of `QUANTIZATIONS`. '4bit' is NF4 with quantized constants, as in QLoRA (arXiv:2305.14314);
            '8bit' is LLM.int8() (arXiv:2208.07339).
        dtype: that the weights are computed with in.

    Raises: ModelError for another quantization, or if bitsandbytes is missing.
    """
    if quantization not in QUANTIZATIONS:
        raise ModelError(f"quantization must be one of {', '.join(QUANTIZATIONS)}; got {quantization!r}.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f'A base model in {quantization} needs bitsandbytes: pip install "qpeft[quantized]".')
    import torch  # noqa: PLC0415  (takes seconds to import)
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    # Norms, embeddings and the head are not quantized in either.
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def prepare_for_training(model: PreTrainedModel, *, gradient_checkpointing: bool) -> PreTrainedModel:
    """Return the quantized model as PEFT prepares it: no gradients for its weights, the rest in float32."""
    from bitsandbytes.nn import Linear4bit  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415
    from peft import prepare_model_for_kbit_training  # noqa: PLC0415  (takes seconds to import)

    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On some CPUs bitsandbytes packs weights for good when it first evaluates, and no gradient passes those.
            module.support_avx512bf16_for_cpu = False
    prepared: PreTrainedModel = prepare_model_for_kbit_training(
        model,
        use_gradient_checkpointing=gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    return prepared
