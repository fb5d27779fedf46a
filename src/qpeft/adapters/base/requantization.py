"""What a quantized weight loses of an update that is merged into it, or taken out again."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Requantization:
    """Frobenius norms of one layer: of what rounding moved the weight by, of the weight, and of the update."""

    error: float
    weight: float
    update: float

    @classmethod
    def between(cls, wanted: Tensor, stored: Tensor, update: Tensor) -> Requantization:
        """From the weight that was to be stored, the one that is, and the update that was added; of one shape."""
        wanted, stored = wanted.float(), stored.float()
        norms = ((stored - wanted).norm(), wanted.norm(), update.float().norm())
        return cls(*(norm.item() for norm in norms))


def log_requantization(verb: str, layers: Iterable[Requantization | None]) -> None:
    """Warn once about all quantized layers, if there are any; None stands for a layer that is not quantized."""
    found = [layer for layer in layers if layer is not None]
    if not found:
        return
    error, weight, update = (
        math.hypot(*norms)
        for norms in zip(*((layer.error, layer.weight, layer.update) for layer in found), strict=True)
    )
    logger.warning(
        "%s %d quantized weights; the requantization error is %.3g of the weights and %.3g of the updates (Frobenius "
        "norms over all of them). To lose nothing, merge into the base model without quantization.",
        verb,
        len(found),
        error / weight if weight else math.nan,
        error / update if update else math.nan,
    )
