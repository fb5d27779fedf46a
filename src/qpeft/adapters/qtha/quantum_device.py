"""QTHA layers whose circuits run on a quantum device, chosen at run time and never stored with the adapter."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.layer import QthaLayer
from qpeft.adapters.qtha.middle import CircuitMiddle, Evaluate
from qpeft.circuits import Circuit, bind
from qpeft.devices import AbstractDevice, CallKey, Runner, device_expectations, run_now
from qpeft.devices.gradients import AbstractGradient, GradientChoice, find_gradient
from qpeft.devices.protocol import check_request
from qpeft.errors import AdapterError


class DeviceEvaluator:
    """Evaluates the circuits of any number of modules through one device, and numbers their calls.

    Within a step a module's calls are numbered from 0. One with the angles of an earlier one has its number: so a
    forward pass repeated by gradient checkpointing is known by its key.

    Args:
        device: where circuits run.
        shots: per circuit; None for exact values.
        gradient: as for `devices.device_expectations`.
        runner: through which everything is sent.

    Attributes:
        step: of the training, for the keys of calls; set it by `begin_step`.
        tokens: whose output can reach the loss, a mask of the batch shape of the layers' inputs, such as (batch,
            sequence), from `reachable_tokens`; None for all. Others are not sent, and their values are zeros, so what
            the model says at those positions is not to be used. Set it before the forward pass, leave it until the
            backward pass is over (gradient checkpointing repeats the forward pass), and set None before generating.
    """

    def __init__(
        self, device: AbstractDevice, shots: int | None, gradient: AbstractGradient | None, runner: Runner
    ) -> None:
        self.device, self.shots, self.gradient, self.runner = device, shots, gradient, runner
        self.step = 0
        self.tokens: Tensor | None = None
        self._calls: dict[str, dict[bytes, int]] = {}

    def begin_step(self, step: int) -> None:
        """Number all further calls within this step, from 0 for every module."""
        self.step = step
        self._calls.clear()

    def evaluate(self, module: str, circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        """Expectation values of a module's circuits side by side, in one call of the runner.

        Args:
            module: whose circuits they are.
            circuit: that all of them are, but for their weights.
            angles: (*batch, num_circuits, num_inputs), radians.
            weights: (num_circuits, num_weights), radians.

        Returns:
            (*batch, num_circuits, num_observables), zero where `tokens` is not set.

        Raises: AdapterError if `tokens` does not fit the batch; otherwise as `device_expectations`.
        """
        if self.tokens is None:
            return self._evaluate(module, circuit, angles, weights)
        chosen = _chosen(self.tokens, angles)
        values = angles.new_zeros(*angles.shape[:-1], circuit.num_observables)
        return values.index_put((chosen,), self._evaluate(module, circuit, angles[chosen], weights))

    def _evaluate(self, module: str, circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        calls = self._calls.setdefault(module, {})
        key = CallKey(module, step=self.step, call=calls.setdefault(_digest(angles, weights), len(calls)))
        return device_expectations(
            circuit, angles, weights, self.device, self.shots, gradient=self.gradient, runner=self.runner, key=key
        ).values


def set_quantum_device(
    model: nn.Module,
    device: AbstractDevice | None,
    *,
    shots: int | None = 1000,
    gradient: GradientChoice = None,
    layers: Iterable[str] | None = None,
    runner: Runner = run_now,
) -> DeviceEvaluator | None:
    """Let QTHA layers evaluate their circuits on `device`, and all other QTHA layers of the model on the simulator.

    Holds for every adapter of those layers until the next call; it is stored neither with the adapter nor in copies of
    the model. torch.compile leaves its graph for such layers, and refuses them if asked for one graph.

    Args:
        model: any module with QTHA layers in it.
        device: of `qpeft.devices`; None puts every layer back onto the simulator.
        shots: per circuit; None for exact values, from devices that can.
        gradient: 'parameter-shift', 'spsa', 'simulated' or an object of `devices.gradients`; None raises in training.
        layers: names of linear layers, or their last parts, such as 'layers.29.self_attn.v_proj' or 'v_proj'; None for
            every QTHA layer.
        runner: through which everything is sent to the device.

    Returns:
        What the layers call, whose `begin_step` numbers training steps; None if they use the simulator.

    Raises:
        AdapterError: the model has no QTHA layer, a name fits none (naming the nearest), or one that has no circuit.
        GradientError: unknown gradient. ShotsError, DeviceError: the device takes no such circuits or shots.
        In each case every layer stays as it was.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, QthaLayer)}
    if not found:
        raise AdapterError("The model has no QTHA layer; add an adapter first: get_peft_model(model, QthaConfig(...)).")
    if device is None:
        _put_on({}, found.values())
        return None
    if not isinstance(device, AbstractDevice):
        raise AdapterError(f"device is an object, as qpeft.devices.load_device(name) makes them; got {device!r}.")
    chosen = dict(_circuits(found if layers is None else _matching(found, layers)))
    evaluator = DeviceEvaluator(device, shots, find_gradient(gradient), runner)
    for middle in chosen.values():
        circuit = middle.circuit
        bound = bind(circuit, [0.0] * circuit.num_inputs, [0.0] * circuit.num_weights)
        check_request(device.capabilities(), [bound], shots)
    _put_on({middle: _evaluate_as(name, evaluator) for name, middle in chosen.items()}, found.values())
    return evaluator


def _chosen(tokens: Tensor, angles: Tensor) -> Tensor:
    batch = tuple(angles.shape[:-2])
    if tokens.dtype != torch.bool or tuple(tokens.shape) != batch:
        raise AdapterError(
            f"DeviceEvaluator.tokens must be a mask (bool) of the shape of the layers' batch, here {batch}; got "
            f"{tokens.dtype} of shape {tuple(tokens.shape)}. Set it for each forward pass, or None to send all tokens, "
            "as generating needs."
        )
    return tokens.to(angles.device)


def device_circuits(model: nn.Module, layers: Iterable[str] | None = None) -> dict[str, CircuitMiddle]:
    """Circuits that `set_quantum_device` would put on a device, by module. Raises: AdapterError as there."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, QthaLayer)}
    if not found:
        raise AdapterError("The model has no QTHA layer; add an adapter first: get_peft_model(model, QthaConfig(...)).")
    return dict(_circuits(found if layers is None else _matching(found, layers)))


def _digest(*tensors: Tensor) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().double().numpy().tobytes())
    return digest.digest()


def _put_on(chosen: Mapping[CircuitMiddle, Evaluate], layers: Iterable[QthaLayer]) -> None:
    for _, middle in itertools.chain.from_iterable(_middles("", layer) for layer in layers):
        middle.evaluate_elsewhere(chosen.get(middle))


def _evaluate_as(name: str, evaluator: DeviceEvaluator) -> Evaluate:
    def evaluate(circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        return evaluator.evaluate(name, circuit, angles, weights)

    # Compilers cannot look into jobs: they leave their graph here, or refuse if they were asked for one graph.
    outside_graphs: Evaluate = torch.compiler.disable(evaluate)
    return outside_graphs


def _middles(name: str, layer: QthaLayer) -> Iterator[tuple[str, CircuitMiddle]]:
    for adapter, branch in layer.qtha_branch.items():
        assert isinstance(branch, QthaBranch)
        if isinstance(branch.middle, CircuitMiddle):
            yield f"{name}.{adapter}", branch.middle


def _circuits(layers: Mapping[str, QthaLayer]) -> Iterator[tuple[str, CircuitMiddle]]:
    for name, layer in layers.items():
        middles = list(_middles(name, layer))
        if not middles:
            raise AdapterError(f"Layer {name!r} has no circuit: its adapters have middle='mlp' or 'none'.")
        yield from middles


def _matching(layers: Mapping[str, QthaLayer], wanted: Iterable[str]) -> dict[str, QthaLayer]:
    if isinstance(wanted, str):
        raise AdapterError(f"layers is a list of names; got the string {wanted!r}. Write layers=[{wanted!r}].")
    chosen: dict[str, QthaLayer] = {}
    for name in wanted:
        fits = {full: layer for full, layer in layers.items() if full == name or full.endswith(f".{name}")}
        if not fits:
            raise AdapterError(f"No QTHA layer is called {name!r}{_nearest(name, layers)}")
        chosen |= fits
    if not chosen:
        raise AdapterError("layers names no layer; leave it out for every QTHA layer, or pass device None for none.")
    return chosen


def _nearest(name: str, layers: Iterable[str]) -> str:
    parts = [full.split(".") for full in layers]
    suffixes = sorted({".".join(part[first:]) for part in parts for first in range(len(part))}, key=len)
    near = difflib.get_close_matches(name, suffixes, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f". QTHA layers: {', '.join(layers)}."
