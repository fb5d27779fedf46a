"""Random angles at which circuits are looked at, and circuits that take all of them as inputs, a row each."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.adapters.qtha import QthaConfig
from qpeft.adapters.qtha.middle import CircuitMiddle
from qpeft.circuits import Circuit, Input, Weight


def freed(circuit: Circuit) -> Circuit:
    """The circuit with every weight an input after the last, so that each row has weights of its own."""
    first = circuit.num_inputs
    operations = tuple(
        replace(operation, angle=Input(first + operation.angle.index))
        if isinstance(operation.angle, Weight)
        else operation
        for operation in circuit.operations
    )
    return replace(circuit, operations=operations)


def uniform(circuit: Circuit, samples: int, generator: torch.Generator) -> Float[Tensor, "samples angles"]:
    """Inputs and weights in [-pi, pi], radians, float64: a row for `freed`."""
    shape = (samples, circuit.num_inputs + circuit.num_weights)
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * math.pi


def at_start(
    circuit: Circuit, config: QthaConfig, samples: int, generator: torch.Generator
) -> Float[Tensor, "samples angles"]:
    """Inputs and weights of fresh adapters, radians, float64: a row for `freed`.

    Weights begin and inputs are encoded as `config` says. The bottleneck is normal of variance 1/3, which is what an
    orthogonal `down` makes of layer inputs of variance 1.
    """
    middle = CircuitMiddle(
        circuit,
        samples,
        trained=False,
        input_scaling=config.input_scaling,
        offset=config.encoding_offset,
        init=config.angle_init,
    )
    middle.initialize(generator)
    bottleneck = torch.randn(samples, circuit.num_inputs, generator=generator, dtype=torch.float64) / math.sqrt(3)
    return torch.cat([middle.angles(bottleneck), middle.weights.double()], dim=1)
