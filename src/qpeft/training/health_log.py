"""The health of quantum adapters while they train: measured now and then, stored, with warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from torch import nn
from transformers import TrainerCallback

from qpeft.adapters.qtha.health import CircuitProbe, circuit_branches
from qpeft.adapters.qtha.quantum_device import reachable_tokens

CONSTANT_BELOW = 1e-6
"""Variance of an expectation value over tokens below which a circuit says the same of every token."""
VANISHED_BELOW = 1e-4
"""Root mean square of the circuits' gradients over that of the tensor cores', below which the circuits stand still."""
DIGITS = 4
"""Significant ones that are stored."""

History = dict[str, dict[str, list[float | None]]]
"""Measured values over time, by layer and by the names of `CircuitHealth`; "step" beside them."""


class HealthMonitor(TrainerCallback):
    """Looks at every circuit each `every` steps, and warns once for each layer.

    Args:
        model: with the adapter.
        every: steps between measurements.
        warmup: steps after which gradients of zero are no longer what a fresh adapter has.
        console: for warnings.

    Attributes:
        history: everything measured so far.
        warnings: the one warning of each layer that had one.
    """

    def __init__(self, model: nn.Module, *, every: int, warmup: int, console: Console) -> None:
        self._branches = circuit_branches(model)
        self._every, self._warmup, self._console = every, warmup, console
        self._probe: CircuitProbe | None = None
        self._step = 0
        self.history: History = {}
        self.warnings: dict[str, str] = {}

    def begin(self, step: int, inputs: Mapping[str, Any]) -> None:
        """Look at the first batch of a step, if the step is one of those. To be called before each batch.

        Args:
            step: number of the step that the batch is of; the first is 1.
            inputs: `labels` and perhaps `attention_mask`, (batch, sequence).
        """
        if self._step == step or not self._branches or (step > 1 and step % self._every):
            return
        self._step = step
        # Tokens behind the last label change nothing in training, however constant their circuits are.
        tokens = reachable_tokens(inputs.get("attention_mask"), inputs["labels"])
        if tokens.any():
            self._probe = CircuitProbe(self._branches, tokens)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Store what the probe found, now that gradients are complete."""
        if self._probe is None:
            return
        for layer, found in self._probe.finish().items():
            columns = self.history.setdefault(layer, {"step": [], **{name: [] for name in vars(found)}})
            columns["step"].append(self._step)
            for name, value in vars(found).items():
                # JSON has no infinity, and a record of many layers is short with few digits.
                known = value is not None and math.isfinite(value)
                columns[name].append(float(f"{value:.{DIGITS}g}") if known else None)
            problem = None if layer in self.warnings else problem_of(columns, warmup=self._warmup)
            if problem is not None:
                self.warnings[layer] = problem
                self._console.print(f"warning: {layer}, step {self._step}: {problem}")
        self._probe = None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of this."""
        return {"history": self.history, "warned": self.warnings}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.history, self.warnings = state["history"], state["warned"]


def problem_of(columns: Mapping[str, list[float | None]], *, warmup: int) -> str | None:
    """Return what is wrong with a layer's circuits by the last measurements, one sentence; None if nothing is."""
    variance = columns["variance"][-1]
    if variance is not None and variance < CONSTANT_BELOW:
        return (
            f"its circuits have become constant: expectation values vary by {variance:.1e} over tokens (below "
            f"{CONSTANT_BELOW:.0e}), so they tell tokens apart no more. Lower training.learning_rate or adapter.depth."
        )
    ratios = [
        circuit / cores
        for step, circuit, cores in zip(
            columns["step"], columns["circuit_gradient"], columns["core_gradient"], strict=True
        )
        # The first steps of a fresh adapter, whose `up` is zero, have no gradient yet.
        if step is not None and step > warmup + 1 and circuit is not None and cores
    ]
    # Two in a row: a single batch may have a gradient near zero by chance.
    if len(ratios) > 1 and max(ratios[-2:]) < VANISHED_BELOW:
        return (
            f"its circuits' gradients vanish: {ratios[-1]:.1e} of the tensor cores' (below {VANISHED_BELOW:.0e}), so "
            "their weights stand still. Try adapter.depth: 1, fewer qubits (adapter.num_qubits), or angle_init: "
            "near_zero."
        )
    return None
