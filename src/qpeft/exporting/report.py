"""The report of an export: what it keeps layer by layer, in logits, and in held-out loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qpeft.errors import OutputError
from qpeft.exporting.comparison import LogitsDifference, Losses
from qpeft.exporting.updates import LinearUpdate

ENOUGH_TOKENS = 1000
"""With fewer tokens measured, the kept share depends more on the text than on the adapter."""


@dataclass(frozen=True)
class LayerReport:
    """Measures of one exported layer.

    Attributes:
        rank: of the exported matrix; None for a matrix that is the adapter's own.
        svd_error: norm of what cutting to this rank lost of the matrix, relative to its norm.
        explained: share of the update's variance that the best linear map with a constant gives; None if none was
            fitted, since the update is a linear map.
        constant_share: size of that constant relative to the update's root mean square.
        missed: root mean square of what the exported map misses of the update, relative to the update's.
        keeps_constant: whether the constant was exported as well.
    """

    rank: int | None
    svd_error: float
    explained: float | None = None
    constant_share: float | None = None
    missed: float | None = None
    keeps_constant: bool = False


@dataclass(frozen=True)
class ExportReport:
    """Reports of all layers, and how much of the adapter the export keeps.

    Attributes:
        method: of the adapter, in lower case.
        layers: by name.
        base_logits, logits: what the base model and what the export differ in from the adapter, on the probe text; None
            for a LoRA that was copied as it is, where nothing was measured.
        losses: on held-out text; None without any.
        calibration_tokens: on which linear maps were fitted; 0 for none.
        reloaded: what a merged model, as read back from its files, differs in from the adapter; None for a LoRA.
    """

    method: str
    layers: dict[str, LayerReport]
    base_logits: LogitsDifference | None
    logits: LogitsDifference | None
    losses: Losses | None
    calibration_tokens: int
    reloaded: LogitsDifference | None = None

    @property
    def has_gain(self) -> bool:
        """Whether the adapter improves the held-out loss, so that a share of the improvement means something."""
        return self.losses is not None and self.losses.adapter < self.losses.base

    @property
    def kept(self) -> float:
        """Share of the adapter's improvement in held-out loss that the export keeps.

        Without held-out text, or an improvement on it: how much nearer to the adapter the export is than the base
        model, as 1 - the ratio of the divergences of their next tokens.
        """
        if self.losses is not None and self.has_gain:
            return (self.losses.base - self.losses.export) / (self.losses.base - self.losses.adapter)
        # A copied LoRA, or an adapter that moves nothing on this text: nothing could have been lost.
        if self.logits is None or self.base_logits is None or not self.base_logits.divergence > 0:
            return 1.0
        return 1 - self.logits.divergence / self.base_logits.divergence

    @property
    def criterion(self) -> str:
        """Name the quantity that `kept` is a share of."""
        # In the order of `kept`: losses say most, divergences are what is left without held-out text.
        if self.has_gain:
            return "the adapter's improvement in held-out loss"
        if self.logits is None:
            return "the adapter's matrices, copied as they are"
        return "the adapter's divergence from the base model on the probe text"

    def require(self, tolerance: float, *, written: str = "export") -> None:
        """Raise OutputError if a larger share than `tolerance` is lost; `written` names the result in the error."""
        # Not `kept < ...`: a kept share that is NaN must be refused as well.
        if self.kept >= 1 - tolerance:
            return
        cut = [layer.svd_error for layer in self.layers.values() if layer.svd_error > 0]
        advice = (
            "The update is too far from linear: calibrate on more or other text, export a LoRA with --constant keep if "
            "plain PEFT is to read it, serve the adapter itself, raise --tolerance, or --force it."
        )
        if cut:
            advice = f"Raise --rank (it cuts off up to {max(cut):.1%} of a matrix), raise --tolerance, or --force it."
        measured = self.losses or self.logits
        tokens = measured.tokens if measured else 0
        if tokens < ENOUGH_TOKENS:
            advice += (
                f" But first name more text with --data: chance decides on so few as the {tokens:,} tokens that this "
                "was measured on."
            )
        raise OutputError(
            f"The {written} would keep {self.kept:.1%} of {self.criterion}; with a tolerance of {tolerance:g} it "
            f"must keep {1 - tolerance:.1%}. Nothing was written. {advice}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        return asdict(self) | {"kept": self.kept, "kept_of": self.criterion}


def layer_reports(updates: Mapping[str, LinearUpdate]) -> dict[str, LayerReport]:
    """Return the rank, errors and fit of every layer's update."""
    reports = {}
    for name, update in updates.items():
        factors, fit = update.factors, update.fit
        report = LayerReport(None, 0.0) if factors is None else LayerReport(factors.rank, factors.error)
        # Without a fit the shares stay None: the update is a linear map, so there is nothing to explain.
        if fit is not None:
            keeps = update.constant is not None
            report = LayerReport(
                report.rank, report.svd_error, fit.explained, fit.constant_share, fit.missed, keeps_constant=keeps
            )
        reports[name] = report
    return reports
