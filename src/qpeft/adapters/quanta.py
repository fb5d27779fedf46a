"""QuanTA (arXiv:2406.00132): high-rank updates from matrices on pairs of axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import (
    AbstractMatrixBranch,
    AbstractMatrixLayer,
    AbstractMatrixModel,
    AdapterConfig,
    check_counts,
    check_factors,
    generator,
    given_factors,
    option,
)
from qpeft.adapters.base.config import check_numbers
from qpeft.errors import AdapterError
from qpeft.tensor_networks import Modes, PairNetwork, factorize

INITS = ("orthogonal", "kaiming")


@dataclass
class QuantaConfig(AdapterConfig, method="quanta"):
    """Configuration of a QuanTA adapter.

        y = base(x) + alpha * (T - S) dropout(x)

    T and S are products of small matrices, one for each pair of axes into which the widths are factored. S is what T
    was at first and stays so: a fresh adapter leaves the model as it is. T - S may have any rank.
    Trained parameters: sum over pairs of (d_m d_n)^2 where all widths are d_1 ... d_N.

    Raises: AdapterError for a value out of range, and for axes that do not fit each other or the model.
    Source: QuanTA, arXiv:2406.00132; docs/quanta.md lists the departures.
    """

    num_axes: int = option(5, "Axes that each width is factored into; a matrix for each pair. More axes, smaller size.")
    axes: list[list[int]] | None = option(
        None, "Axes of every width, as [[16, 8, 8, 4], [8, 8, 4, 4]] for 4096 and 1024; None for balanced ones."
    )
    alpha: float = option(1.0, "The update is multiplied by alpha.")
    init: str = option(
        "orthogonal", "'orthogonal' (S keeps the variance of unit inputs) or 'kaiming' (as published, far smaller)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts({"num_axes": self.num_axes})
        check_numbers({"alpha": self.alpha})
        if self.num_axes < 2:
            raise AdapterError("num_axes must be at least 2: each matrix acts on a pair of axes.")
        if self.init not in INITS:
            raise AdapterError(f"init must be one of {', '.join(INITS)}; got {self.init!r}.")
        if self.axes is not None:
            self._check_axes(self.axes)

    def modes(self, width: int) -> Modes:
        """The axes of a width: balanced, unless axes are given. Raises: AdapterError if they are, but none for it."""
        if self.axes is None:
            return factorize(width, self.num_axes)
        return given_factors("axes", self.axes, width, factorize(width, self.num_axes))

    def _check_axes(self, axes: list[list[int]]) -> None:
        check_factors("axes", axes)
        for factors in axes:
            if len(factors) != self.num_axes:
                raise AdapterError(
                    f"axes {factors} are {len(factors)}, but num_axes is {self.num_axes}: make them equal."
                )


class QuantaBranch(AbstractMatrixBranch):
    """The update that one QuanTA adapter adds to one linear layer.

        update = alpha (T - S) x;   T = (S_P + D_P) ... (S_1 + D_1),   S = S_P ... S_1

    Each D and S is the matrix of one pair of axes; see `PairNetwork`. The differences D are trained, from zero. The
    starts S never change and are saved beside them as buffers, so that no generator has to return the same numbers.
    Shapes: x (..., in_features), update (..., out_features); `differences[k]` and `start_k`: those of the k-th pair.
    Source: arXiv:2406.00132, where the S + D are trained and S is subtracted from the base weight.
    """

    def __init__(self, config: QuantaConfig, in_features: int, out_features: int) -> None:
        super().__init__()
        self.network = PairNetwork(config.modes(in_features), config.modes(out_features))
        self.alpha, self.dropout = config.alpha, nn.Dropout(config.dropout)
        shapes = [step.shape for step in self.network.steps]
        self.differences = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)
        for k, shape in enumerate(shapes):
            self.register_buffer(f"start_{k}", torch.zeros(shape))

    @property
    def starts(self) -> list[Tensor]:
        """The matrices that T is made of at first, and S always."""
        return [self.get_buffer(f"start_{k}") for k in range(len(self.differences))]

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """The update for inputs x, in the type of the branch's weights.

        A few vectors go from pair to pair. From half as many as the layer is wide, the matrix is formed first: the two
        take the same time for a quarter of the width (576) to the whole of it (2048), and it saves memory.
        """
        x = self.dropout(x)
        if 2 * x.numel() >= self.network.inputs.width**2:
            return nn.functional.linear(x, self.matrix())
        return self._pair_by_pair(x)

    def matrix(self) -> Float[Tensor, "out_features in_features"]:
        """alpha (T - S), of any rank."""
        with self.without_autocast():
            moved, starts = self._matrices()
            return (self.alpha * (self.network.dense(moved) - self.network.dense(starts))).to(self.dtype)

    def _pair_by_pair(self, x: Tensor) -> Tensor:
        with self.without_autocast():
            moved, starts = self._matrices()
            x = x.to(starts[0].dtype)
            return (self.alpha * (self.network.apply(x, moved) - self.network.apply(x, starts))).to(self.dtype)

    def _matrices(self) -> tuple[list[Tensor], list[Tensor]]:
        # T and S nearly cancel, so they are formed in float32 at least.
        exact = torch.promote_types(self.dtype, torch.float32)
        starts = [start.to(exact) for start in self.starts]
        return [start + moved.to(exact) for start, moved in zip(starts, self.differences, strict=True)], starts

    @torch.no_grad()
    def initialize(self, init: str, generator: torch.Generator | None) -> None:
        """Random starts. Does nothing on the meta device, where they are loaded later.

        `orthogonal`: unit inputs give S x unit variance, whatever the number of pairs. `kaiming`: uniform within
        1 / sqrt(inputs of the matrix), as published, so that every pair divides the variance by 3.
        """
        if next(self.parameters()).is_meta:
            return
        for start in self.starts:
            if init == "kaiming":
                nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
            else:
                nn.init.orthogonal_(start, gain=math.sqrt(max(start.shape) / start.shape[1]), generator=generator)

    def extra_repr(self) -> str:
        """Axes of both widths, for `print(model)`."""
        return f"in_axes={self.network.inputs.factors}, out_axes={self.network.outputs.factors}, alpha={self.alpha}"


class QuantaLayer(AbstractMatrixLayer, method="quanta"):
    """A linear layer plus the updates of its active QuanTA adapters; see `QuantaBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    def make_branch(self, config: QuantaConfig) -> QuantaBranch:
        """A branch on the axes that the config gives this layer's widths; its differences are zero."""
        branch = QuantaBranch(config, self.in_features, self.out_features)
        branch.initialize(config.init, generator(config.init_seed, self.name))
        return branch


class QuantaModel(AbstractMatrixModel, layer=QuantaLayer):
    """Made by `get_peft_model(model, QuantaConfig(...))`; without target_modules, PEFT's usual
    ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear or of a width without axes, and for mixed batches that cannot
    be.
    """
