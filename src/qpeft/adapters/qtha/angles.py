"""The angles that a model feeds into its circuits, as its adapters see real text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qpeft.adapters.qtha.quantum_device import device_circuits
from qpeft.circuits import Circuit
from qpeft.simulation import expectations
from qpeft.simulation.layer import Evaluate


class Angles(NamedTuple):
    """Of one layer's circuits, radians.

    Attributes:
        circuit: that all of them are, but for their weights.
        inputs: (rows, num_circuits, num_inputs), of every token in turn.
        weights: (num_circuits, num_weights).
    """

    circuit: Circuit
    inputs: Tensor
    weights: Tensor


def collect_angles(
    model: nn.Module, run: Callable[[], object], *, layers: Iterable[str] | None = None
) -> dict[str, Angles]:
    """Angles of every circuit on a layer while `run` calls the model, by module; circuits run on the simulator.

    Afterwards all circuits of these layers are on the simulator.

    Args:
        model: with QTHA layers.
        run: calls the model; what it returns is not looked at.
        layers: names of linear layers or their last parts; None for all.

    Raises: AdapterError as `set_quantum_device`.
    """
    bottlenecks = device_circuits(model, layers)
    collected: dict[str, list[Tensor]] = {name: [] for name in bottlenecks}

    def remember(name: str) -> Evaluate:
        def evaluate(circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
            collected[name].append(angles.detach().flatten(0, -3))
            values = [expectations(circuit, *pair) for pair in zip(angles.unbind(-2), weights.unbind(), strict=True)]
            return torch.stack(values, dim=-2)

        return evaluate

    try:
        for name, bottleneck in bottlenecks.items():
            bottleneck.set_evaluator(remember(name))
        run()
    finally:
        for bottleneck in bottlenecks.values():
            bottleneck.set_evaluator(None)
    return {
        name: Angles(bottleneck.circuit, torch.cat(collected[name]), bottleneck.weights.detach())
        for name, bottleneck in bottlenecks.items()
        if collected[name]
    }
