"""Numbers for the evaluations of a training step, equal for equal angles."""

from __future__ import annotations

import hashlib

from torch import Tensor


class CallNumbers:
    """Numbers the evaluations of any number of modules, within each step and module from 0.

    An evaluation with the angles of an earlier one gets its number: so a forward pass that gradient checkpointing
    repeats is known again.

    Attributes:
        step: of the training; set it by `begin_step`.
    """

    def __init__(self) -> None:
        self.step = 0
        self._numbers: dict[str, dict[bytes, int]] = {}

    def begin_step(self, step: int) -> None:
        """Number all further evaluations within this step, from 0 for every module."""
        self.step = step
        self._numbers.clear()

    def number(self, module: str, *angles: Tensor) -> int:
        """Of an evaluation of a module's circuits with these angles."""
        numbers = self._numbers.setdefault(module, {})
        return numbers.setdefault(_digest(*angles), len(numbers))


def _digest(*tensors: Tensor) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().double().numpy().tobytes())
    return digest.digest()
