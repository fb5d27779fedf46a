"""Where models compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def default_device() -> torch.device:
    """This process's accelerator as transformers' Trainer chooses it: a GPU if there is one, else the CPU."""
    from accelerate import PartialState  # noqa: PLC0415  (takes seconds to import)

    device: torch.device = PartialState().device
    return device


def device_name(device: torch.device) -> str:
    """Name of the hardware, or of the kind of device where the hardware does not tell."""
    import torch  # noqa: PLC0415  (takes seconds to import)

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
