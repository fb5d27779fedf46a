"""What a run was trained on in which order, as one number that two runs can be compared by."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

FILE_NAME = "order.txt"


class OrderRecord:
    """A SHA-256 chained over the tokens of all batches so far; equal exactly if the batches and their order are.

    It goes into every checkpoint, so a run that was interrupted ends with the same digest as one that was not.
    """

    def __init__(self) -> None:
        self.digest = hashlib.sha256().hexdigest()

    def add(self, input_ids: torch.Tensor) -> None:
        """Count in a batch, (examples, tokens)."""
        content = f"{tuple(input_ids.shape)}".encode() + input_ids.cpu().numpy().tobytes()
        self.digest = hashlib.sha256(self.digest.encode() + content).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the digest into the folder of a checkpoint that is being written."""
        (folder / FILE_NAME).write_text(self.digest + "\n", encoding="ascii")

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        self.digest = (folder / FILE_NAME).read_text(encoding="ascii").strip()
