"""Options of a QuanTA adapter, as PEFT stores them in adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.adapters.base import AdapterConfig, check_counts, check_factors, given_factors, option
from qpeft.adapters.base.config import check_numbers
from qpeft.adapters.bridge import peft_type
from qpeft.errors import AdapterError
from qpeft.tensor_networks import Modes, factorize

INITS = ("orthogonal", "kaiming")


@dataclass
class QuantaConfig(AdapterConfig):
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
        self.peft_type = peft_type("QUANTA")
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
