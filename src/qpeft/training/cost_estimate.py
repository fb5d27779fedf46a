"""What training and generating on a quantum device would send, counted before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from torch import nn

from qpeft.adapters.qtha.quantum_device import device_circuits
from qpeft.adapters.quantum_weighted import circuit_banks
from qpeft.data import Encoded
from qpeft.data.encode import IGNORED
from qpeft.devices import Capabilities, ReadoutInversion, backward_circuits, forward_circuits
from qpeft.devices.gradients import GradientChoice
from qpeft.devices.markers import CIRCUITS_PER_MARKER
from qpeft.training.quantum import build_gradient, build_mitigation
from qpeft.training.sections import DeviceSection, Recipe


@dataclass(frozen=True)
class Price:
    """Circuits, their shots together (0 if exact), and the jobs that they take."""

    circuits: int = 0
    shots: int = 0
    jobs: int = 0

    def __add__(self, other: Price) -> Price:
        return Price(self.circuits + other.circuits, self.shots + other.shots, self.jobs + other.jobs)

    def __mul__(self, times: int) -> Price:
        return Price(self.circuits * times, self.shots * times, self.jobs * times)


@dataclass(frozen=True)
class CostEstimate:
    """Prices of parts of the work, by name. Equal circuits of one call are sent once, which no price counts on.

    Circuits of known outcome, which show the order of results (`devices.markers`), are counted with the others.

    Attributes:
        capabilities: of the device.
        prices: what is named.
        text_enters: whether angles are computed from text, as those of QTHA are; those of quantum-weighted adapters are
            trained numbers.
    """

    capabilities: Capabilities
    prices: dict[str, Price]
    text_enters: bool = True

    def seconds(self, price: Price) -> float | None:
        """Return the rough time on the device, without other users' jobs; None if the device does not know."""
        job, shot = self.capabilities.seconds_per_job, self.capabilities.seconds_per_shot
        return None if job is None or shot is None else price.jobs * job + price.shots * shot

    def table(self) -> Table:
        """Return a table for printing."""
        table = Table(f"on {self.capabilities.name}", "circuits", "shots", "jobs", "about")
        if self.capabilities.answers_by_place:
            table.caption = (
                f"1 circuit to {CIRCUITS_PER_MARKER} others has a known outcome: it shows the order of results"
            )
        for name, price in self.prices.items():
            seconds, about = self.seconds(price), "-"
            if seconds is not None:
                about = f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"
            shots = f"{price.shots:,}" if price.shots else "exact"
            table.add_row(name, f"{price.circuits:,}", shots, f"{price.jobs:,}", about)
        return table


class PriceList:
    """Prices of forward and backward passes of a model whose circuits run as a recipe says.

    Args:
        section: of the recipe.
        capabilities: of the device.
        model: with the adapter; weights are not looked at.

    Attributes:
        text_enters: whether there are circuits with angles from text.

    Raises: AdapterError if the section's layers are not there.
    """

    def __init__(self, section: DeviceSection, capabilities: Capabilities, model: nn.Module) -> None:
        self._shots, self._capabilities = section.shots, capabilities
        self._bottlenecks = device_circuits(model, section.layers).values()
        self._banks = circuit_banks(model).values()
        self._mitigation = build_mitigation(section)
        self.text_enters = bool(self._bottlenecks)

    def price(self, num_rows: int, gradient: GradientChoice = None) -> Price:
        """Return the price of circuits that read text: one forward and, with a gradient, one backward pass.

        Each pass is one call per layer. `num_rows`: tokens of the batch that can influence the loss.
        """
        total, mitigation = Price(), self._mitigation
        for bottleneck in self._bottlenecks if num_rows else ():
            # Circuits side by side in one layer go out in one call, so they share its last, half-full job.
            beside = bottleneck.num_circuits
            circuits = beside * forward_circuits(bottleneck.circuit, num_rows, mitigation=mitigation)
            total += self._call(circuits, circuits * (self._shots or 0))
            circuits = beside * backward_circuits(bottleneck.circuit, gradient, num_rows, mitigation=mitigation)
            total += self._call(circuits, circuits * (self._shots or 0))
        return total

    def weights(self, gradient: GradientChoice = None, *, shots: int | None = None) -> Price:
        """Return the price of circuits that make weights: once a step, whatever its tokens and micro-batches.

        `shots`: per circuit, if others than the section's.
        """
        total, mitigation, shots = Price(), self._mitigation, shots or self._shots or 0
        for bank in self._banks:
            rows = len(bank.groups)
            circuits = forward_circuits(bank.circuit, rows, mitigation=mitigation)
            total += self._call(circuits, circuits * shots)
            if gradient is not None:
                circuits = backward_circuits(bank.circuit, gradient, rows, weights=False, mitigation=mitigation)
                total += self._call(circuits, circuits * shots)
        return total

    def calibration(self) -> Price:
        """Return the price of what mitigation measures, once for each width of circuits."""
        circuits = self._mitigation.num_calibration_circuits if self._mitigation else 0
        widths = {bottleneck.circuit.num_qubits for bottleneck in self._bottlenecks}
        widths |= {bank.circuit.num_qubits for bank in self._banks}
        return self._call(circuits, circuits * ReadoutInversion.shots) * len(widths)

    def _call(self, circuits: int, shots: int) -> Price:
        size = self._capabilities.circuits_per_job
        jobs = -(-circuits // size) if size else min(circuits, 1)
        # Full jobs together have no fewer than the calls and jobs that these circuits may be spread over.
        markers = self._capabilities.num_markers(circuits)
        each = -(-shots // circuits) if circuits else 0
        return Price(circuits + markers, shots + markers * each if self._shots else 0, jobs)


def training_cost(
    recipe: Recipe, capabilities: Capabilities, model: nn.Module, encoded: Sequence[Encoded]
) -> CostEstimate:
    """Return the most that the steps of a run send.

    Args:
        recipe: with a device.
        capabilities: of the device.
        model: with the recipe's adapter; weights are not looked at.
        encoded: training examples.

    Raises: AdapterError if the device's layers are not there.
    """
    assert recipe.device is not None
    prices, gradient = PriceList(recipe.device, capabilities, model), build_gradient(recipe.device, seed=recipe.seed)
    num_steps, weights = recipe.num_steps(len(encoded)), prices.weights(gradient)
    this_run = f"this run, {num_steps} steps, at most"
    if not prices.text_enters:
        # Weights stay the device's while held-out examples are measured, so each evaluation asks for them again.
        every, final = recipe.training.eval_every, prices.weights(shots=recipe.device.final_shots)
        evaluations = prices.weights() * (num_steps // every if every else 0)
        whole = weights * num_steps + evaluations + final * bool(recipe.device.final_shots) + prices.calibration()
        parts = {"a step": weights} | ({"the final values": final} if recipe.device.final_shots else {})
        return CostEstimate(capabilities, parts | {this_run: whole}, text_enters=False)
    # Longest first, so that the first batches together are the largest step that shuffling could make.
    rows = sorted((reachable(one) for one in encoded), reverse=True)
    size, micro = recipe.training.batch_size, recipe.training.gradient_accumulation
    batches = [prices.price(sum(rows[first : first + size]), gradient) for first in range(0, len(rows), size)]
    largest = sum(batches[:micro], Price()) + weights
    return CostEstimate(
        capabilities,
        {
            "a step of average length": prices.price(-(-sum(rows) * size // len(rows)), gradient) * micro + weights,
            "the largest step": largest,
            "an epoch": sum(batches, Price()),
            this_run: largest * num_steps + prices.calibration(),
            "a generated token": prices.price(1),
        },
    )


def generation_cost(
    section: DeviceSection,
    capabilities: Capabilities,
    model: nn.Module,
    prompt_lengths: Iterable[int],
    max_new_tokens: int,
) -> CostEstimate:
    """Return the most that answering prompts sends.

    Args:
        section: of the recipe, or for another device.
        capabilities: of the device.
        model: with the adapter; weights are not looked at.
        prompt_lengths: tokens of each prompt.
        max_new_tokens: of each answer.

    Raises: AdapterError if the section's layers are not there.
    """
    prices, lengths = PriceList(section, capabilities, model), list(prompt_lengths)
    if not prices.text_enters:
        once = {"the weights, once": prices.weights() + prices.calibration()}
        return CostEstimate(capabilities, once, text_enters=False)
    questions, token = prices.price(sum(lengths)), prices.price(len(lengths))
    # The last token of an answer is never read.
    everything = questions + token * (max_new_tokens - 1) + prices.calibration() + prices.weights()
    return CostEstimate(
        capabilities, {"the questions": questions, "a token of each answer": token, "all of it, at most": everything}
    )


def reachable(encoded: Encoded) -> int:
    """Return how many tokens of an example can influence its loss: those before its last trained token."""
    return max((place for place, label in enumerate(encoded.labels) if label != IGNORED), default=0)
