"""The layer, its branches and the tuner of quantum-weighted adapters."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, svds
from torch import Tensor, nn

from qpeft.adapters.base import AbstractMatrixLayer, AbstractMatrixModel
from qpeft.adapters.base.branch import AbstractMatrixBranch
from qpeft.adapters.quantum_weighted.bank import CircuitBank
from qpeft.adapters.quantum_weighted.config import QuantumWeightedConfig
from qpeft.errors import AdapterError
from qpeft.simulation.noise.counter import SampleKey, Stream

SMALLEST_FOR_LANCZOS = 256
"""Width from which a few singular vectors are found faster without all others."""

_IN_THE_MAKING: ContextVar[CircuitBank] = ContextVar("bank")
"""Bank of the adapter that PEFT is just putting into a model, layer by layer."""


class QuantumWeightedBranch(AbstractMatrixBranch):
    """The update of one layer: `update = U S R V^T x`, R from the bank of circuits.

    Shapes: x (..., in_features); down = V^T (rank, in_features); up = (U S)^T (rank, out_features), frozen.
    """

    bank: CircuitBank

    def __init__(self, layer: QuantumWeightedLayer, bank: CircuitBank) -> None:
        super().__init__()
        self.place = bank.join(layer.name)
        # Registered with the first layer only: one tensor in files, one parameter for optimizers.
        if self.place == 0:
            self.bank = bank
        else:
            object.__setattr__(self, "bank", bank)
        self.dropout = nn.Dropout(bank.config.dropout)
        self._layer = (layer,)
        self._factors: tuple[Tensor, Tensor] | None = None
        if not layer.get_base_layer().weight.is_meta:
            self.factors(layer.get_base_layer().weight.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the angles, and of x and the update."""
        return self.bank.turns.dtype

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """Return the update for inputs x, in their type."""
        down, up = self.factors(x.device)
        # R is multiplied into V^T rather than the tokens: a small product of weights, whatever the batch.
        with torch.autocast(x.device.type, enabled=False):
            mixed = self.bank.matrix(self.place).to(x.device) @ down
        return nn.functional.linear(self.dropout(x), mixed.to(x.dtype)) @ up.to(x.dtype)

    def matrix(self) -> Float[Tensor, "out_features in_features"]:
        """Return U S R V^T, of rank `rank` at most."""
        down, up = self.factors(self.bank.turns.device)
        if not self.bank.turns.isfinite().all():
            # The simulator refuses such angles, and a merge then reports what is broken in words of its own.
            return up.T @ down * torch.nan
        return up.T @ self.bank.matrix(self.place) @ down

    def factors(self, device: torch.device) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
        """Return V^T and (U S)^T of the base weight, computed at the first call.

        Raises: AdapterError if the layer has a smaller rank, or other weights than the adapter was trained beside.
        """
        if self._factors is None:
            layer, config = self._layer[0], self.bank.config
            if config.rank > min(layer.in_features, layer.out_features):
                raise AdapterError(
                    f"rank {config.rank} is above what {layer.name!r} has: {layer.in_features} features in and "
                    f"{layer.out_features} out. Take a smaller rank, or leave the layer out by exclude_modules."
                )
            down, up = top_singular_vectors(_weight_of(layer), config.rank)
            self._factors = (down.to(self.bank.exact), up.to(self.bank.exact))
            self.bank.check_fingerprint(self.place, self._fingerprint(down, up))
        if self._factors[0].device != device or self._factors[0].dtype != self.bank.exact:
            down, up = self._factors
            self._factors = (down.to(device, self.bank.exact), up.to(device, self.bank.exact))
        return self._factors

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Not buffers: PEFT would round them to the type of the base, and DDP would send them around at every step.
        if self.bank.config.save_factors:
            down, up = self.factors(self.bank.turns.device)
            destination |= {f"{prefix}down": down, f"{prefix}up": up}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.bank.config.save_factors and f"{prefix}down" in state_dict:
            self._factors = (state_dict[f"{prefix}down"].float(), state_dict[f"{prefix}up"].float())

    def _fingerprint(self, down: Tensor, up: Tensor) -> float:
        """Return a number that every entry of the frozen parts changes: r^T (U S) P V^T s for fixed random r, P, s."""
        stream = Stream(SampleKey(seed=self.bank._seed, module=f"fingerprint of {self._layer[0].name}"))
        rank = len(down)
        mixed = stream.normals(up.shape[1]).to(up) @ up.T @ stream.normals(rank, rank).to(up) @ down
        return float(mixed @ stream.normals(down.shape[1]).to(down))


@torch.no_grad()
def _weight_of(layer: QuantumWeightedLayer) -> Float[Tensor, "out_features in_features"]:
    """Return the weight that the base layer multiplies with, dequantized."""
    try:
        return layer.get_base_weight()
    except TypeError:
        # A quantization that PEFT cannot read: the layer's answers to unit vectors are the weight's columns.
        base = layer.get_base_layer()
        answers: Tensor = base(torch.eye(layer.in_features, dtype=base.weight.dtype, device=base.weight.device))
        return (answers if base.bias is None else answers - base.bias).T


def top_singular_vectors(weight: Tensor, rank: int) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
    """Return V^T and (U S)^T of the largest singular values, float64; the largest entry of each row of V^T is positive.

    In float64 because neighbouring singular values of real layers come as close as 1e-5 of each other, and in float32
    their vectors would then turn from machine to machine.
    """
    exact = weight.detach().double()
    found = None
    if exact.device.type == "cpu" and min(exact.shape) >= SMALLEST_FOR_LANCZOS and rank <= min(exact.shape) // 8:
        found = _by_lanczos(exact, rank)
    down, up = found or _by_eigenvectors(exact, rank)
    signs = down.gather(1, down.abs().argmax(1, keepdim=True)).sign()
    return signs * down, signs * up


def _by_lanczos(exact: Tensor, rank: int) -> tuple[Tensor, Tensor] | None:
    """Return V^T and (U S)^T by products with the matrix alone; None if they do not converge.

    Three times as fast as all eigenvectors at a width of 576, and more the wider the layer is: a 1.5B model would
    otherwise wait for minutes.
    """
    matrix = exact.numpy()
    # A fixed first vector: one matrix gives one result.
    first = np.random.default_rng(0).normal(size=min(matrix.shape))
    try:
        u, s, vh = svds(matrix, k=rank, v0=first, tol=0)
    except ArpackError:  # a matrix of zeros, for one
        return None
    order = np.argsort(-s)
    return torch.from_numpy(vh[order]), torch.from_numpy((u * s).T[order])


def _by_eigenvectors(exact: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return V^T and (U S)^T from all eigenvectors of the smaller product of the matrix with itself."""
    # Half the work of a singular value decomposition, and exact enough for the largest values.
    is_wide = exact.shape[0] < exact.shape[1]
    _, vectors = torch.linalg.eigh(exact @ exact.T if is_wide else exact.T @ exact)
    top = vectors[:, -rank:].flip(1).T  # rows, largest first
    if not is_wide:
        return top, top @ exact.T
    projected = top @ exact
    norms = torch.linalg.vector_norm(projected, dim=1, keepdim=True).clamp_min(1e-300)
    return projected / norms, norms * top


class QuantumWeightedLayer(AbstractMatrixLayer, method="quantum_weighted"):
    """A linear layer plus the updates of its active quantum-weighted adapters; see `QuantumWeightedBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    def make_branch(self, config: QuantumWeightedConfig) -> QuantumWeightedBranch:
        """Return a branch in the bank of the adapter that is being made; its update is zero."""
        bank = _IN_THE_MAKING.get()
        assert bank.config is config or bank.config == config
        return QuantumWeightedBranch(self, bank)


class QuantumWeightedModel(AbstractMatrixModel, layer=QuantumWeightedLayer):
    """Made by `get_peft_model(model, QuantumWeightedConfig(...))`.

    Raises: AdapterError for a target that is not linear or of smaller rank, and for mixed batches that cannot be.
    """

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """As PEFT's, with one bank of circuits for all layers that get this adapter."""
        config = self.peft_config[adapter_name]
        if config.init_seed is None:
            # The frozen parts must be found again when the adapter is loaded, so the seed is drawn now and saved.
            config.init_seed = int(torch.randint(2**31, (), device="cpu"))
        token = _IN_THE_MAKING.set(CircuitBank(config))
        try:
            return super().inject_adapter(model, adapter_name, *args, **kwargs)
        finally:
            _IN_THE_MAKING.reset(token)


def circuit_banks(model: nn.Module) -> dict[str, CircuitBank]:
    """Return banks of a model whose circuits can run on a device, by the names that a journal has for them."""
    banks = {name: module for name, module in model.named_modules() if isinstance(module, CircuitBank)}
    return {
        f"quantum_weighted.{name.split('.')[-2]}": bank
        for name, bank in banks.items()
        if bank.config.circuit in ("trained", "product")
    }
