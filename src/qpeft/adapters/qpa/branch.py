"""One QPA adapter beside one linear layer: two generated matrices."""

from __future__ import annotations

from qpeft.adapters.base import AbstractLoraLikeBranch
from qpeft.adapters.qpa.config import QpaConfig
from qpeft.adapters.qpa.generator import GeneratedFactor


class QpaBranch(AbstractLoraLikeBranch):
    """The update that one QPA adapter adds to one linear layer.

        update = scaling * x down^T up

    Shapes: x (..., in_features); down (rank, in_features); up (rank, out_features), each a `GeneratedFactor`.
    Source: arXiv:2410.09846.
    """

    @staticmethod
    def make_factor(config: QpaConfig, rank: int, width: int) -> GeneratedFactor:
        """A generated matrix of this config's chunks, network and depth."""
        sizes = {"chunk_size": config.chunk_size, "hidden_size": config.hidden_size, "depth": config.depth}
        return GeneratedFactor(rank, width, **sizes)
