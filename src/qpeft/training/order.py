"""What a run was trained on in which order, as one number that two runs can be compared by."""

from __future__ import annotations

import hashlib

import torch


class OrderRecord:
    """A SHA-256 chained over the tokens of all batches so far; equal exactly if the batches and their order are.

    Checkpoints keep `digest`, so a run that was interrupted ends with the same one as a run that was not.
    """

    def __init__(self) -> None:
        self.digest = hashlib.sha256().hexdigest()

    def add(self, input_ids: torch.Tensor) -> None:
        """Count in a batch, (examples, tokens)."""
        content = f"{tuple(input_ids.shape)}".encode() + input_ids.cpu().numpy().tobytes()
        self.digest = hashlib.sha256(self.digest.encode() + content).hexdigest()
