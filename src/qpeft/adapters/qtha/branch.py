"""One adapter's branch beside one linear layer: down, middle and classical path, fusion, up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.qtha.config import QthaConfig
from qpeft.adapters.qtha.factors import Factor, build_factor
from qpeft.adapters.qtha.middle import CircuitMiddle, Middle, MlpMiddle
from qpeft.circuits.ansatz import ANSATZE


@dataclass(frozen=True)
class _Contracted:
    """Both factors as matrices, and the weights they came from in the state of that moment.

    The weights are held, so that no other tensor can take their place in memory and be mistaken for them.
    """

    factors: tuple[Tensor, Tensor]
    weights: tuple[Tensor, ...]
    versions: tuple[int, ...]

    def is_current(self, weights: tuple[Tensor, ...]) -> bool:
        return all(
            now.data_ptr() == then.data_ptr() and now._version == version
            for now, then, version in zip(weights, self.weights, self.versions, strict=True)
        )


class QthaBranch(nn.Module):
    """The update that one adapter adds to one linear layer.

        h = x down^T;   z = W_q middle(h) + W_c h   (or their elementwise product);   update = scaling z up

    Shapes: x (..., in_features); h, z (..., rank); down (rank, in_features); up (rank, out_features).
    Source: arXiv:2503.12790 in the form of its released code; see docs/qtha.md.
    """

    def __init__(self, config: QthaConfig, in_features: int, out_features: int, *, rank: int, scaling: float) -> None:
        super().__init__()
        self.rank, self.in_features = rank, in_features
        self.scaling, self.fusion = scaling, config.fusion
        self.down = _factor(config, config.down, rank, in_features)
        self.up = _factor(config, config.up, rank, out_features)
        self.middle = _middle(config, rank)
        self.middle_weight = None if self.middle is None else nn.Parameter(torch.empty(rank, rank))
        self.classical_weight = nn.Parameter(torch.empty(rank, rank)) if config.classical_path else None
        self.dropout = nn.Dropout(config.dropout)
        self._contracted: _Contracted | None = None

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """The update for inputs x, in the type of the branch's weights."""
        down, up = self.effective_factors()
        h = nn.functional.linear(self.dropout(x), down)
        # Scaled where it is narrow: the product with `up` is as wide as the layer.
        return (self.scaling * self.bottleneck(h)) @ up

    def bottleneck(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """z from h: middle and classical path, fused, in the type of the weights."""
        paths = []
        with self._without_autocast():
            h = h.to(self.dtype)
            if self.middle is not None and self.middle_weight is not None:
                paths.append(nn.functional.linear(self.middle(h), self.middle_weight))
            if self.classical_weight is not None:
                paths.append(nn.functional.linear(h, self.classical_weight))
            if len(paths) == 1:
                return paths[0]
            return paths[0] * paths[1] if self.fusion == "hadamard" else paths[0] + paths[1]

    def effective_factors(self) -> tuple[Float[Tensor, "rank in_features"], Float[Tensor, "rank out_features"]]:
        """`down` and `up` as matrices, contracted anew in training, kept while evaluating until a weight changes.

        A change is seen as torch counts it: optimizers, `load_state_dict`, in-place operations and new tensors, but not
        writing into `weight.data`; after that, one forward pass with gradients or in training mode forgets.
        """
        if torch.compiler.is_compiling():
            return self._contract()
        weights = (*self.down.parameters(), *self.up.parameters())
        if self.training or torch.is_grad_enabled() or any(weight.is_inference() for weight in weights):
            self._contracted = None
            return self._contract()
        if self._contracted is None or not self._contracted.is_current(weights):
            held = tuple(weight.detach() for weight in weights)
            self._contracted = _Contracted(self._contract(), held, tuple(weight._version for weight in weights))
        return self._contracted.factors

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, and of x and the update."""
        return next(self.parameters()).dtype

    @torch.no_grad()
    def initialize(self, config: QthaConfig, generator: torch.Generator | None) -> None:
        """Random weights, `up` zero: the update starts at zero. Does nothing on the meta device.

        With `orthogonal` factors, inputs of unit variance give angles of variance 1/3, as LoRA's h has, and z keeps it.
        """
        if next(self.parameters()).is_meta:
            return
        down_variance, up_variance = 1 / (3 * self.in_features), 1 / self.rank
        self.down.initialize(config.factor_init, reads="wide", variance=down_variance, generator=generator)
        self.up.initialize(config.factor_init, reads="narrow", variance=up_variance, generator=generator)
        self.up.zero()
        if isinstance(self.middle, CircuitMiddle):
            init = "uniform" if config.middle == "frozen_circuit" else config.angle_init
            self.middle.initialize(init, generator)
        elif isinstance(self.middle, MlpMiddle):
            self.middle.initialize(generator)
        mixers = [weight for weight in (self.middle_weight, self.classical_weight) if weight is not None]
        for weight in mixers:
            if config.factor_init == "kaiming":
                nn.init.kaiming_uniform_(weight, a=0, generator=generator)
            else:
                nn.init.orthogonal_(weight, gain=math.sqrt(1 / len(mixers)), generator=generator)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_contracted": None}

    def _contract(self) -> tuple[Tensor, Tensor]:
        with self._without_autocast():
            return self.down(), self.up()

    def _without_autocast(self) -> torch.autocast:
        # What is as narrow as the bottleneck costs next to nothing, and rounding it would move every token's angles.
        return torch.autocast(next(self.parameters()).device.type, enabled=False)


def _factor(config: QthaConfig, kind: str, rank: int, width: int) -> Factor:
    return build_factor(
        kind,
        rank,
        width,
        num_cores=config.num_cores,
        inner_features=config.inner_features,
        bond_dimension=config.bond_dimension,
        parameter_share=config.parameter_share,
    )


def _middle(config: QthaConfig, rank: int) -> Middle | None:
    if config.middle == "none":
        return None
    if config.middle == "mlp":
        return MlpMiddle(rank)
    num_qubits = config.qubits_per_circuit(rank)
    circuit = ANSATZE[config.ansatz](num_qubits, config.depth, reupload=config.reupload)
    return CircuitMiddle(
        circuit,
        rank // num_qubits,
        trained=config.middle == "circuit",
        input_scaling=config.input_scaling,
        offset=config.encoding_offset,
    )
