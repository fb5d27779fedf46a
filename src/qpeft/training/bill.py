"""What training and generating on a quantum device would send, counted before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from torch import nn

from qpeft.adapters.qtha.middle import CircuitMiddle
from qpeft.adapters.qtha.quantum_device import device_circuits
from qpeft.data import Encoded
from qpeft.data.encode import IGNORED
from qpeft.devices import Capabilities, backward_circuits, forward_circuits
from qpeft.devices.gradients import GradientChoice
from qpeft.training.quantum import build_gradient
from qpeft.training.sections import DeviceSection, Recipe


@dataclass(frozen=True)
class Price:
    """Circuits and the jobs that they take."""

    circuits: int
    jobs: int

    def __add__(self, other: Price) -> Price:
        return Price(self.circuits + other.circuits, self.jobs + other.jobs)

    def __mul__(self, times: int) -> Price:
        return Price(self.circuits * times, self.jobs * times)


@dataclass(frozen=True)
class Bill:
    """Prices of parts of the work, by name. No price is exceeded; equal circuits of one call are sent once.

    Attributes:
        capabilities: of the device.
        shots: per circuit; None for exact values.
        prices: what is named.
    """

    capabilities: Capabilities
    shots: int | None
    prices: dict[str, Price]

    def seconds(self, price: Price) -> float | None:
        """Rough time on the device, without other users' jobs; None if the device does not know."""
        job, shot = self.capabilities.seconds_per_job, self.capabilities.seconds_per_shot
        if job is None or shot is None:
            return None
        return price.jobs * job + price.circuits * (self.shots or 0) * shot

    def table(self) -> Table:
        """For printing."""
        table = Table(f"on {self.capabilities.name}", "circuits", "shots", "jobs", "about")
        for name, price in self.prices.items():
            shots = "exact" if self.shots is None else f"{price.circuits * self.shots:,}"
            table.add_row(name, f"{price.circuits:,}", shots, f"{price.jobs:,}", _duration(self.seconds(price)))
        return table


def training_bill(recipe: Recipe, capabilities: Capabilities, model: nn.Module, encoded: Sequence[Encoded]) -> Bill:
    """What the steps of a run send at most, if all angles of all tokens differ.

    Args:
        recipe: with a device.
        capabilities: of the device.
        model: with the recipe's adapter; weights are not looked at.
        encoded: training examples.

    Raises: AdapterError if the device's layers are not there.
    """
    assert recipe.device is not None
    training, gradient = recipe.training, build_gradient(recipe.device, seed=recipe.seed)
    middles = device_circuits(model, recipe.device.layers).values()
    num_steps = training.num_steps(len(encoded))
    rows = sorted((reachable(one) for one in encoded), reverse=True)
    size, micro = training.batch_size, training.gradient_accumulation

    def price(num_rows: int) -> Price:
        return _price(capabilities, middles, gradient, num_rows)

    batches = [price(sum(rows[first : first + size])) for first in range(0, len(rows), size)]
    largest = sum(batches[:micro], Price(0, 0))
    typical = price(-(-sum(rows) * size // len(rows))) * micro
    return Bill(
        capabilities,
        recipe.device.shots,
        {
            "a step of average length": typical,
            "the largest step": largest,
            "an epoch": sum(batches, Price(0, 0)),
            f"this run, {num_steps} steps, at most": largest * num_steps,
            "a generated token": _price(capabilities, middles, None, 1),
        },
    )


def generation_bill(
    section: DeviceSection,
    capabilities: Capabilities,
    model: nn.Module,
    prompt_lengths: Iterable[int],
    max_new_tokens: int,
) -> Bill:
    """What answering prompts of so many tokens sends at most."""
    middles = device_circuits(model, section.layers).values()
    lengths = list(prompt_lengths)
    prompts = _price(capabilities, middles, None, sum(lengths))
    token = _price(capabilities, middles, None, len(lengths))
    # The last token of an answer is never read.
    everything = prompts + token * (max_new_tokens - 1)
    return Bill(
        capabilities,
        section.shots,
        {"the questions": prompts, "a token of each answer": token, "all of it, at most": everything},
    )


def reachable(encoded: Encoded) -> int:
    """Tokens of an example that can influence its loss: those before its last trained token."""
    return max((place for place, label in enumerate(encoded.labels) if label != IGNORED), default=0)


def _price(
    capabilities: Capabilities, middles: Iterable[CircuitMiddle], gradient: GradientChoice, num_rows: int
) -> Price:
    """Of one forward pass with its backward pass, each of which is a call per layer."""
    size, total = capabilities.max_circuits, Price(0, 0)
    for middle in middles:
        parts = (
            forward_circuits(middle.circuit, num_rows),
            backward_circuits(middle.circuit, gradient, num_rows) if num_rows else 0,
        )
        for circuits in (part * middle.num_circuits for part in parts):
            total += Price(circuits, -(-circuits // size) if size else min(circuits, 1))
    return total


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"
