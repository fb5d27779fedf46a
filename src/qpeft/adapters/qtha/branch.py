"""One adapter's branch beside one linear layer: down, bottleneck and classical path, fusion, up."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import Factor, FactoredBranch, build_factor
from qpeft.adapters.qtha.bottleneck import (
    AbstractBottleneck,
    CircuitBottleneck,
    ClassicalFormBottleneck,
    ConstantBottleneck,
    HilbertBottleneck,
    MlpBottleneck,
    UnitBottleneck,
)
from qpeft.adapters.qtha.config import QthaConfig
from qpeft.errors import AdapterError


class QthaBranch(FactoredBranch):
    """The update that one adapter adds to one linear layer.

        h = x down^T;   z = W_q bottleneck(h) + W_c h   (or their elementwise product);   update = scaling z up

    Without a bottleneck its term is left out, without the classical path the other; without both z is h.
    Shapes: x (..., in_features); h, z (..., rank); down (rank, in_features); up (rank, out_features); W_q (rank,
    num_features of the bottleneck); W_c (rank, rank).
    Source: arXiv:2503.12790 in the form of its released code; see docs/qtha.md.
    """

    down: Factor
    up: Factor

    def __init__(self, config: QthaConfig, in_features: int, out_features: int, *, rank: int, scaling: float) -> None:
        down, up = _factor(config, config.down, rank, in_features), _factor(config, config.up, rank, out_features)
        super().__init__(down, up, scaling=scaling, dropout=config.dropout)
        self.rank, self.in_features, self.fusion = rank, in_features, config.fusion
        self.middle = make_bottleneck(config, rank)
        features = None if self.middle is None else self.middle.num_features
        self.middle_weight = None if features is None else nn.Parameter(torch.empty(rank, features))
        self.classical_weight = nn.Parameter(torch.empty(rank, rank)) if config.classical_path else None

    def bottleneck(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """z from h: bottleneck and classical path, fused, in the type of the weights."""
        paths = []
        # What is as narrow as the bottleneck costs next to nothing, and rounding it would move every token's angles.
        with self.without_autocast():
            h = h.to(self.dtype)
            if self.middle is not None and self.middle_weight is not None:
                paths.append(nn.functional.linear(self.middle(h), self.middle_weight))
            if self.classical_weight is not None:
                paths.append(nn.functional.linear(h, self.classical_weight))
            if not paths:
                return h
            if len(paths) == 1:
                return paths[0]
            return paths[0] * paths[1] if self.fusion == "hadamard" else paths[0] + paths[1]

    @torch.no_grad()
    def initialize(self, config: QthaConfig, generator: torch.Generator | None) -> None:
        """Random weights, `up` zero: the update starts at zero. Does nothing on the meta device.

        With `orthogonal` factors, inputs of unit variance give angles of variance 1/3, as LoRA's h has, and z keeps it.
        """
        if next(self.parameters()).is_meta:
            return
        if config.factor_init == "kaiming":
            self.down.initialize_kaiming("wide", generator)
            self.up.initialize_kaiming("narrow", generator)
        else:
            self.down.initialize(variance=1 / (3 * self.in_features), generator=generator)
            self.up.initialize(variance=1 / self.rank, generator=generator)
        self.up.zero()
        if self.middle is not None:
            self.middle.initialize(generator)
        mixers = [weight for weight in (self.middle_weight, self.classical_weight) if weight is not None]
        for weight in mixers:
            if config.factor_init == "kaiming":
                nn.init.kaiming_uniform_(weight, a=0, generator=generator)
            else:
                nn.init.orthogonal_(weight, gain=math.sqrt(1 / len(mixers)), generator=generator)


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


def make_bottleneck(config: QthaConfig, rank: int) -> AbstractBottleneck | None:
    """What the config puts between factors of this rank; None for nothing.

    Raises: AdapterError if units cannot share the parameters of the config's circuit among them.
    """
    return MAKERS[config.bottleneck](config, rank)


def _trained(
    bottleneck_class: type[CircuitBottleneck] | type[ClassicalFormBottleneck], config: QthaConfig, rank: int
) -> AbstractBottleneck:
    scaling, offset = config.input_scaling, config.encoding_offset
    return bottleneck_class(
        *config.circuit_of(rank), trained=True, input_scaling=scaling, offset=offset, init=config.angle_init
    )


def _frozen(config: QthaConfig, rank: int) -> AbstractBottleneck:
    scaling, offset = config.input_scaling, config.encoding_offset
    return CircuitBottleneck(
        *config.circuit_of(rank), trained=False, input_scaling=scaling, offset=offset, init="uniform"
    )


def _units(function: Callable[[Tensor], Tensor], config: QthaConfig, rank: int) -> AbstractBottleneck:
    circuit, _ = config.circuit_of(rank)
    per_channel, left_over = divmod(circuit.num_weights, circuit.num_qubits)
    if left_over or circuit.num_inputs != circuit.num_qubits:
        raise AdapterError(
            f"bottleneck={config.bottleneck!r} shares the circuit's parameters among its channels, but "
            f"the circuit has {circuit.num_weights} for {circuit.num_qubits} qubits and {circuit.num_inputs} inputs. "
            "Choose another ansatz or num_qubits."
        )
    return UnitBottleneck(rank, per_channel, function)


MAKERS: dict[str, Callable[[QthaConfig, int], AbstractBottleneck | None]] = {
    "circuit": partial(_trained, CircuitBottleneck),
    "frozen_circuit": _frozen,
    "classical_form": partial(_trained, ClassicalFormBottleneck),
    "sinusoid": partial(_units, torch.sin),
    "tanh": partial(_units, torch.tanh),
    "hilbert": lambda _, rank: HilbertBottleneck(rank),
    "mlp": lambda config, rank: MlpBottleneck(rank, config.mlp_layers),
    "constant": lambda _, rank: ConstantBottleneck(rank),
    "none": lambda _config, _rank: None,
}
"""One for each of `config.BOTTLENECKS`."""
