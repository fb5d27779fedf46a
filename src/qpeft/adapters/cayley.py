"""Cayley unitary adapters (arXiv:2605.05914, our reconstruction): blocks of an input turned by unitaries"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from qpeft.adapters.base import (
    AbstractBranch,
    AbstractMatrixLayer,
    AbstractMatrixModel,
    AdapterConfig,
    check_counts,
    option,
)
from qpeft.errors import AdapterError

MAX_QUBITS = 10
"""Beyond it a block has more than a million parameters, and its inverse takes longer than the layer."""


@dataclass
class CayleyConfig(AdapterConfig, method="cayley"):
    """Configuration of a Cayley unitary adapter.

        y = base(x + (U - 1) dropout(x)),   U = diag(U_1, ..., U_m, 1),   U_k = (1 + A_k) / (1 - A_k)

    A_k is skew-Hermitian, so U_k is a unitary on `num_qubits` qubits, whose amplitudes are a block of the layer's
    inputs. A fresh adapter has A = 0, so U = 1, and leaves the model as it is. The turned weight is one matrix: it
    merges.
    Trained parameters of a block: 4^n with complex amplitudes, 2^n (2^n - 1) / 2 with real ones, which is OFT.

    Raises: AdapterError for a value out of range, and for a layer that is narrower than a block.
    Source: Cayley unitary adapters, arXiv:2605.05914, of which we know no code; docs/cayley.md says what is ours.
    """

    num_qubits: int = option(3, "Qubits of a block, whose 2^n amplitudes are features of the input.")
    amplitudes: str = option(
        "complex", "'complex' (a block is 2^n pairs of features, real and imaginary parts) or 'real' (2^n features)."
    )
    num_blocks: int | None = option(None, "Blocks that are turned, from the first feature; None for all that fit.")
    block_share: bool = option(False, "Whether all blocks of a layer are turned by one unitary, as one circuit would.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts({"num_qubits": self.num_qubits})
        if self.num_blocks is not None:
            check_counts({"num_blocks": self.num_blocks})
        if self.num_qubits > MAX_QUBITS:
            raise AdapterError(f"num_qubits must be at most {MAX_QUBITS}; got {self.num_qubits}.")
        if self.amplitudes not in ("real", "complex"):
            raise AdapterError(f"amplitudes must be 'real' or 'complex'; got {self.amplitudes!r}.")
        if not isinstance(self.block_share, bool):
            raise AdapterError(f"block_share must be true or false; got {self.block_share!r}.")

    @property
    def features(self) -> int:
        """Features of one block."""
        return (1 << self.num_qubits) * (2 if self.amplitudes == "complex" else 1)

    def blocks_of(self, name: str, in_features: int) -> int:
        """How many blocks a layer has.

        Raises: AdapterError if it has not as many as are asked for, or none.
        """
        fitting = in_features // self.features
        wanted = self.num_blocks or max(fitting, 1)
        if wanted > fitting:
            raise AdapterError(
                f"{name!r} takes {in_features} features, and {wanted} block(s) of {self.num_qubits} qubits with "
                f"{self.amplitudes} amplitudes take {wanted * self.features}: lower num_qubits or num_blocks."
            )
        return wanted


class CayleyBranch(AbstractBranch):
    """What one adapter adds to the input of one linear layer: (U - 1) x.

    Real and imaginary parts of a block are its first and second half, so that a complex U = R + iJ is the orthogonal
    matrix [[R, -J], [J, R]], and its generator the skew-symmetric one of the same form.
    Shapes: x (..., in_features); generators (blocks or 1, parameters of a block).
    Source: the Cayley map; its use in language models on a chip is arXiv:2605.05914.
    """

    def __init__(self, config: CayleyConfig, blocks: int) -> None:
        super().__init__()
        self.blocks, self.size, self.is_complex = blocks, 2**config.num_qubits, config.amplitudes == "complex"
        count = self.size**2 if self.is_complex else self.size * (self.size - 1) // 2
        self.generators = nn.Parameter(torch.zeros(1 if config.block_share else blocks, count))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch in_features"]:
        """What the adapter adds to the input."""
        with self.without_autocast():
            return self.turn(self.dropout(x), self.orthogonal() - self._one())

    def turn(self, x: Float[Tensor, "*batch in_features"], by: Float[Tensor, "blocks features features"]) -> Tensor:
        """Every block of x multiplied by its matrix; features beyond the blocks become zero."""
        features = by.shape[-1]
        turned_width = self.blocks * features
        blocks = x[..., :turned_width].unflatten(-1, (self.blocks, features))
        # A shared matrix is one for all blocks, so the sum runs over features alone.
        turned = torch.einsum("...bj,bij->...bi", blocks, by.expand(self.blocks, -1, -1)).flatten(-2)
        return nn.functional.pad(turned, (0, x.shape[-1] - turned_width))

    def orthogonal(self) -> Float[Tensor, "blocks features features"]:
        """The unitaries as orthogonal matrices on features; one if all blocks share it."""
        k, one = self._skew(), self._one()
        # One system of equations in place of an inverse and a product: (1 - K) U = 1 + K, since both commute.
        exact = torch.promote_types(k.dtype, torch.float32)
        solved: Tensor = torch.linalg.solve((one - k).to(exact), (one + k).to(exact))
        return solved.to(k.dtype)

    def unitaries(self) -> Complex[Tensor, "blocks amplitudes amplitudes"]:
        """The unitaries as a chip would be given them."""
        whole = self.orthogonal()
        real = whole[:, : self.size, : self.size]
        imaginary = whole[:, self.size :, : self.size] if self.is_complex else torch.zeros_like(real)
        return torch.complex(real, imaginary)

    def _one(self) -> Tensor:
        width = self.size * (2 if self.is_complex else 1)
        return torch.eye(width, dtype=self.generators.dtype, device=self.generators.device)

    def _skew(self) -> Tensor:
        """The generators as skew-symmetric matrices on features."""
        given = self.generators
        if self.is_complex:
            square = given.unflatten(1, (self.size, self.size))
            upper = square.triu(1)
            # Skew-Hermitian: the real part is skew, made of what is above the diagonal, the imaginary one symmetric.
            real, imaginary = upper - upper.mT, square.tril() + square.tril(-1).mT
            return torch.cat([torch.cat([real, -imaginary], 2), torch.cat([imaginary, real], 2)], 1)
        rows, columns = torch.triu_indices(self.size, self.size, 1, device=given.device)
        upper = given.new_zeros(len(given), self.size, self.size)
        upper = upper.index_put((torch.arange(len(given), device=given.device)[:, None], rows, columns), given)
        return upper - upper.mT


class CayleyLayer(AbstractMatrixLayer, method="cayley"):
    """A linear layer whose input the active Cayley adapters turn; see `CayleyBranch`.

        y = base(x + sum over active adapters of (U - 1) x)

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    def make_branch(self, config: CayleyConfig) -> CayleyBranch:
        """A branch that turns nothing yet."""
        return CayleyBranch(config, config.blocks_of(self.name, self.in_features))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output for the turned input, in one pass through its weight."""
        if self.merged or self.disable_adapters or self._adapter_of_row is not None:
            return super().forward(x, *args, **kwargs)
        turned = x
        for adapter_name in self.active_adapters:
            if adapter_name in self.branches:
                turned = turned + self._added(adapter_name, x)
        output: Tensor = self.base_layer(turned, *args, **kwargs)
        return output

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """What one adapter adds to the output for inputs x."""
        base = self.get_base_layer()
        added: Tensor = base(self._added(adapter_name, x))
        return added if base.bias is None else added - base.bias

    def get_delta_weight(self, adapter_name: str) -> Float[Tensor, "out_features in_features"]:
        """W (U - 1), of the weight W before anything was merged into it, in the type of the adapter's weights."""
        branch = self._turning(adapter_name)
        # Rows of W meet U from the right, as x meets it from the left.
        by = branch.orthogonal() - branch._one()
        return branch.turn(self._original_weight().to(by), by.mT)

    def _added(self, adapter_name: str, x: Tensor) -> Tensor:
        branch = self._turning(adapter_name)
        added: Tensor = branch(self._cast_input_dtype(x, branch.dtype)).to(x.dtype)
        return added

    def _turning(self, adapter_name: str) -> CayleyBranch:
        branch = self.branch(adapter_name)
        assert isinstance(branch, CayleyBranch)
        return branch

    def _original_weight(self) -> Tensor:
        """The base weight without what is merged into it: the unitaries act on that one."""
        weight = self.get_base_weight()
        if not self.merged:
            return weight
        branches = [self._turning(name) for name in self.merged_adapters]
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        one = torch.eye(self.in_features, dtype=weight.dtype, device=weight.device)
        # Rows of `one` turned by U are U^T, the transpose of what stands right of W.
        whole = one + sum(branch.turn(one, branch.orthogonal() - branch._one()) for branch in branches)
        solved: Tensor = torch.linalg.solve(whole, weight.T)
        return solved.T


class CayleyModel(AbstractMatrixModel, layer=CayleyLayer):
    """Made by `get_peft_model(model, CayleyConfig(...))`; without target_modules, PEFT's usual ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear or narrower than a block.
    """
