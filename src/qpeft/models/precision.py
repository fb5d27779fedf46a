"""The type of a base model's weights: as the recipe says, or what the hardware is fastest in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Precision:
    """`dtype`: name of a floating-point type of torch. `reason`: why that one, a part of a sentence."""

    dtype: str
    reason: str

    def __str__(self) -> str:
        return f"{self.dtype}: {self.reason}"


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """The type of the base weights. Adapters of half-precision models are trained in float32 all the same.

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

        with torch.cuda.device(device):
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return Precision("bfloat16", "this GPU computes in it; the adapter stays in float32")
    return Precision("float32", f"this {device.type} device does not compute in bfloat16")
