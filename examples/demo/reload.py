"""Load a saved adapter with plain PEFT and compare its logits with stored ones: reload.py MODEL ADAPTER PROBE."""

from __future__ import annotations

import sys
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file

import qpeft  # noqa: F401  (makes the adapter type known to PEFT)
from qpeft.models import load_model

TOLERANCE = 1e-5


def main(model_name: str, adapter: str, probe: str) -> None:
    """Print the largest difference; exit with 1 if it exceeds the tolerance."""
    stored = load_file(probe)
    model = PeftModel.from_pretrained(load_model(model_name), adapter).eval()
    with torch.no_grad():
        logits = model(stored["input_ids"]).logits
    difference = (logits - stored["logits"]).abs().max().item()
    print(f"largest difference of logits: {difference:.1e} (at most {TOLERANCE:.0e} is allowed)")
    if difference > TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    main(*sys.argv[1:])
