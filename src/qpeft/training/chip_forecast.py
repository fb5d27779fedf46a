"""A forecast of how well a chip would run a recipe's circuits, from its calibration alone: nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from qpeft.adapters.qtha.angles import Angles, collect_angles
from qpeft.adapters.qtha.quantum_device import qtha_layers
from qpeft.adapters.quantum_weighted import circuit_banks
from qpeft.data import Encoded
from qpeft.devices import AbstractDevice
from qpeft.devices.chip import Preflight, compare, depolarising_only, preflight, suggest
from qpeft.errors import DeviceError, SimulationError
from qpeft.evaluation import held_out_loss
from qpeft.simulation.noise import NoiseModel, ReadoutError
from qpeft.training.sections import Recipe

EXAMPLES = 4
"""Whose tokens give the angles."""
DEPTHS = (1, 2)
"""Compared with the recipe's own ansatz and depth."""


def expected_quality(
    recipe: Recipe, device: AbstractDevice, model: nn.Module, encoded: Sequence[Encoded]
) -> dict[str, Preflight | str]:
    """Predict the first circuit of every layer, on the qubits that the device names or else the best ones.

    Args:
        recipe: with a device.
        device: that it names.
        model: with the adapter, fresh or trained.
        encoded: examples whose tokens give the angles.

    Returns:
        The prediction of each layer, or why there is none; nothing without calibration.

    Raises: DeviceError if a circuit cannot run where it is to run.
    """
    calibration = _calibration(device)
    if calibration is None:
        return {}
    found = _angles(recipe, model, encoded)
    return {name: _predict(recipe, one, device.place(one.circuit), calibration) for name, one in found.items()}


def better_circuit(recipe: Recipe, device: AbstractDevice, model: nn.Module, encoded: Sequence[Encoded]) -> str:
    """Return one sentence on whether another ansatz or depth would do better; empty without a prediction.

    Args:
        recipe: with a device.
        device: that it names.
        model: with the adapter.
        encoded: examples whose tokens give the angles.
    """
    if not qtha_layers(model):
        return ""  # other depths have other numbers of weights, which are the user's choice
    calibration = _calibration(device)
    angles = next(iter(_angles(recipe, model, encoded).values()), None)
    if calibration is None or angles is None:
        return ""
    prediction = _predict(recipe, angles, device.place(angles.circuit), calibration)
    if isinstance(prediction, str):
        return ""
    ansatz, depth = recipe.adapter.options.get("ansatz", "ring_crz"), recipe.adapter.options.get("depth", 1)
    if not isinstance(ansatz, str):
        return ""  # an own circuit has no family to compare it with
    comparison = compare(
        angles.circuit.num_qubits,
        angles.inputs[:, 0],
        calibration,
        shots=prediction.shots,
        block=prediction.block,
        depths=sorted({*DEPTHS, depth}),
    )
    # Not the prediction above: weights of a fresh adapter are near zero, and those of the others would be anywhere.
    return f"With weights anywhere, {suggest(comparison.find(ansatz, depth), comparison)}"


def _angles(recipe: Recipe, model: nn.Module, encoded: Sequence[Encoded]) -> dict[str, Angles]:
    assert recipe.device is not None
    # Circuits that make weights take trained angles in place of inputs, and no weights beside them.
    banks = {
        name: Angles(bank.circuit, bank.angles()[:, None], bank.turns.detach().new_empty(1, 0))
        for name, bank in circuit_banks(model).items()
    }
    if banks and not qtha_layers(model):
        return banks
    found = collect_angles(model, lambda: held_out_loss(model, encoded[:EXAMPLES]), layers=recipe.device.layers)
    return found | banks


def _predict(recipe: Recipe, angles: Angles, block: tuple[int, ...] | None, calibration: NoiseModel) -> Preflight | str:
    assert recipe.device is not None
    shots = recipe.device.shots
    if shots is None:
        return "exact values have no shots to predict"
    try:
        return preflight(angles.circuit, angles.inputs[:, 0], angles.weights[0], calibration, shots=shots, block=block)
    except (DeviceError, SimulationError) as error:
        return str(error)


def _calibration(device: AbstractDevice) -> NoiseModel | None:
    """Return what the device says of itself, without readout errors that it corrects."""
    listed = device.calibration()
    if listed is None:
        return None
    # Of all models with the listed fidelities, depolarising is the cautious one: it spares no value.
    found = depolarising_only(listed)
    if not device.capabilities().corrects_readout:
        return found
    return replace(found, qubits=tuple((one, replace(noise, readout=ReadoutError())) for one, noise in found.qubits))
