"""QTHA layers that train with the noise of a machine, at the price of the simulator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from qpeft.adapters.qtha.quantum_device import CallNumbers, Layer, circuit_layers, circuits_of, matching, set_evaluators
from qpeft.circuits import Circuit
from qpeft.errors import AdapterError
from qpeft.simulation import expectations
from qpeft.simulation.checks import check_shots
from qpeft.simulation.layer import CircuitModule, Evaluate
from qpeft.simulation.noise import LinearNoise, SampleKey


class TrainingNoise:
    """What layers call whose values are disturbed: exact values, stretched, shifted and with shot noise.

    The noise of a value is a function of (seed, step, module, number of the call within the step); a call with the
    angles of an earlier one has its number, so gradient checkpointing meets the same noise twice.

    Args:
        shots: as `set_training_noise`.
        seed: as `set_training_noise`.
    """

    def __init__(self, shots: int | None, seed: int) -> None:
        self.shots, self.seed = shots, seed
        self._calls = CallNumbers()

    @property
    def step(self) -> int:
        """Of the training, as `begin_step` set it."""
        return self._calls.step

    def begin_step(self, step: int) -> None:
        """Say which training step all further noise belongs to; without it, calls are counted on."""
        self._calls.begin_step(step)

    def disturb(self, module: str, noise: LinearNoise, exact: Tensor, *angles: Tensor) -> Tensor:
        """Exact values (..., num_observables) as a machine with this noise would return them at these angles.

        Args:
            module: name of the layer, which keys the samples.
            noise: of the machine.
            exact: values to be disturbed, (..., num_observables).
        """
        key = SampleKey(self.seed, self._calls.step, module, self._calls.number(module, *angles))
        return noise.apply(exact, shots=self.shots, key=key)


def set_training_noise(
    model: nn.Module,
    noise: LinearNoise | Mapping[str, LinearNoise] | None,
    *,
    shots: int | None = 1000,
    seed: int = 0,
    layers: Iterable[str] | None = None,
    in_evaluation: bool = False,
) -> TrainingNoise | None:
    """Let QTHA layers disturb their expectation values as a machine would, and all other QTHA layers compute exactly.

    Values come from the simulator, so a step costs what it did; the gradient is that of slope * exact + offset. Holds
    until the next call of this function or of `set_quantum_device`, which share the place: layers on a device return to
    the simulator. Stored neither with the adapter nor in copies of the model. torch.compile leaves its graph for such
    layers.

    Args:
        model: any module with QTHA layers in it.
        noise: of every chosen layer, from `LinearNoise.fit` on the layer's circuit; or by names of layers, as in
            `layers`; None for exact values in every layer.
        shots: whose Gaussian noise is added, per value; None for none.
        seed: of that noise; give each process of a parallel training its own.
        layers: names of linear layers, or their last parts; None for every QTHA layer, or those named in `noise`.
        in_evaluation: whether to disturb values in `model.eval()` too.

    Returns:
        What the layers call, whose `begin_step` numbers training steps; None without noise.

    Raises:
        AdapterError: the model has no QTHA layer, a name fits none (naming the nearest) or one without a circuit, two
            names fit one layer, names come twice over, or a noise is for another number of observables.
        ShotsError: shots below 1. SimulationError: a seed that is none.
        In each case every layer stays as it was.
    """
    found = circuit_layers(model)
    if noise is None:
        set_evaluators({}, found.values())
        return None
    if shots is not None:
        shots = check_shots(shots, "Shot noise is that of single samples", "For none pass shots=None.")
    source = TrainingNoise(shots, SampleKey(seed).seed)
    chosen = {
        bottleneck: _evaluate_as(name, bottleneck, layer_noise, source, in_evaluation)
        for name, bottleneck, layer_noise in _noisy_circuits(found, noise, layers)
    }
    set_evaluators(chosen, found.values())
    return source


def _noisy_circuits(
    found: Mapping[str, Layer], noise: LinearNoise | Mapping[str, LinearNoise], layers: Iterable[str] | None
) -> Iterator[tuple[str, CircuitModule, LinearNoise]]:
    for name, layer_noise in _by_layer(found, noise, layers).items():
        for full_name, bottleneck in circuits_of({name: found[name]}):
            if len(layer_noise.slopes) != bottleneck.circuit.num_observables:
                raise AdapterError(
                    f"The circuits of {name!r} have {bottleneck.circuit.num_observables} observables; the noise is for "
                    f"{len(layer_noise.slopes)}. Fit it to values of the layer's own circuit."
                )
            yield full_name, bottleneck, layer_noise


def _by_layer(
    found: Mapping[str, Layer], noise: LinearNoise | Mapping[str, LinearNoise], layers: Iterable[str] | None
) -> dict[str, LinearNoise]:
    if isinstance(noise, LinearNoise):
        return dict.fromkeys(found if layers is None else matching(found, layers), noise)
    if layers is not None:
        raise AdapterError("The noise names its layers already; leave out layers, or pass one LinearNoise for all.")
    chosen: dict[str, LinearNoise] = {}
    for wanted, layer_noise in noise.items():
        fits = matching(found, [wanted])
        if twice := sorted(fits.keys() & chosen.keys()):
            raise AdapterError(f"{wanted!r} and another name of the noise both fit layer {twice[0]!r}; write it out.")
        chosen |= dict.fromkeys(fits, layer_noise)
    if not chosen:
        raise AdapterError("The noise names no layer; pass one LinearNoise for every QTHA layer, or None for none.")
    return chosen


def _evaluate_as(
    name: str, bottleneck: CircuitModule, noise: LinearNoise, source: TrainingNoise, in_evaluation: bool
) -> Evaluate:
    def evaluate(circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        parts = zip(angles.unbind(-2), weights.unbind(), strict=True)
        exact = torch.stack([expectations(circuit, *part) for part in parts], dim=-2)
        if not (bottleneck.training or in_evaluation):
            return exact
        return source.disturb(name, noise, exact, angles, weights)

    # Random numbers are drawn by numpy, which compilers cannot look into: they leave their graph here.
    outside_graphs: Evaluate = torch.compiler.disable(evaluate)
    return outside_graphs
