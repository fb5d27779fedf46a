"""Layers whose circuits run on a quantum device, chosen at run time and never stored with the adapter."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from qpeft.adapters.qtha.bottleneck import CircuitBottleneck
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.layer import QthaLayer
from qpeft.adapters.quantum_weighted import CircuitBank, circuit_banks
from qpeft.circuits import Circuit, bind
from qpeft.devices import AbstractDevice, AbstractMitigation, CallKey, Runner, device_expectations, run_now
from qpeft.devices.estimator import device_gradients
from qpeft.devices.gradients import AbstractGradient, DeviceGradients, GradientChoice, find_gradient
from qpeft.devices.mitigation import check_suits
from qpeft.devices.protocol import check_request
from qpeft.errors import AdapterError
from qpeft.simulation.layer import CircuitModule, Evaluate, QuantumLayer

FINAL_STEP = 2**31 - 1
"""In place of a training step, for what is measured after the last."""


class DeviceEvaluator:
    """Evaluates the circuits of any number of modules through one device, and numbers their calls.

    Within a step a module's calls are numbered from 0. One with the angles of an earlier one has its number: so a
    forward pass repeated by gradient checkpointing is known by its key.

    Args:
        device: where circuits run.
        shots: per circuit; None for exact values.
        gradient: as for `devices.device_expectations`.
        runner: through which everything is sent.
        mitigation: of errors, None for none.

    Attributes:
        tokens: whose output can reach the loss, a mask of the batch shape of the layers' inputs, such as (batch,
            sequence), from `reachable_tokens`; None for all. Others are not sent, and their values are zeros, so what
            the model says at those positions is not to be used. Set it before the forward pass, leave it until the
            backward pass is over (gradient checkpointing repeats the forward pass), and set None before generating.
        records: by name of the module, its gradients since `begin_step` and their standard errors.
    """

    def __init__(
        self,
        device: AbstractDevice,
        shots: int | None,
        gradient: AbstractGradient | None,
        runner: Runner,
        mitigation: AbstractMitigation | None = None,
    ) -> None:
        self.device, self.shots, self.gradient, self.runner = device, shots, gradient, runner
        self.mitigation = mitigation
        self.tokens: Tensor | None = None
        self.records: dict[str, GradientRecord] = {}
        self._calls = CallNumbers()

    @property
    def step(self) -> int:
        """Of the training, as `begin_step` set it, for the keys of calls."""
        return self._calls.step

    def begin_step(self, step: int) -> None:
        """Number all further calls within this step, from 0 for every module, and start its records."""
        self.records = {}
        self._calls.begin_step(step)

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
        key = CallKey(module, step=self.step, call=self._calls.number(module, angles, weights))
        return device_expectations(
            circuit,
            angles,
            weights,
            self.device,
            self.shots,
            gradient=self.gradient,
            runner=self.runner,
            key=key,
            on_gradients=partial(self.record, module),
            mitigation=self.mitigation,
        ).values

    def record(self, module: str, gradients: DeviceGradients) -> None:
        """Add the gradients of one backward pass to a module's record."""
        self.records.setdefault(module, GradientRecord.empty(gradients)).add(gradients)


def set_quantum_device(
    model: nn.Module,
    device: AbstractDevice | None,
    *,
    shots: int | None = 1000,
    gradient: GradientChoice = None,
    layers: Iterable[str] | None = None,
    runner: Runner = run_now,
    mitigation: AbstractMitigation | None = None,
) -> DeviceEvaluator | None:
    """Let QTHA layers and `QuantumLayer`s evaluate their circuits on `device`, and all others on the simulator.

    Circuits of quantum-weighted adapters go there too, once a step, whatever the number of tokens and layers.

    Holds for every adapter of those layers until the next call; it is stored neither with the adapter nor in copies of
    the model. torch.compile leaves its graph for such layers, and refuses them if asked for one graph.

    Args:
        model: any module with such layers in it, or a QuantumLayer itself.
        device: of `qpeft.devices`; None puts every layer back onto the simulator.
        shots: per circuit; None for exact values, from devices that can.
        gradient: 'parameter-shift', 'spsa', 'simulated' or an object of `devices.gradients`; None raises in training.
        layers: names of layers, or their last parts, such as 'layers.29.self_attn.v_proj' or 'v_proj'; None for all.
        runner: through which everything is sent to the device.
        mitigation: of errors, `ReadoutInversion()` or `ZeroNoise()` of `qpeft.devices`; None for none.

    Returns:
        What the layers call, whose `begin_step` numbers training steps; None if they use the simulator.

    Raises:
        AdapterError: the model has no layer with a circuit, a name fits none (naming the nearest), or one without one.
        GradientError: unknown gradient. ShotsError, DeviceError: the device takes no such circuits or shots, or does
            something that spoils the mitigation.
        In each case every layer stays as it was.
    """
    banks = circuit_banks(model)
    found = circuit_layers(model, required=not banks)
    if device is None:
        set_evaluators({}, found.values())
        for bank in banks.values():
            bank.set_evaluator(None)
        return None
    if not isinstance(device, AbstractDevice):
        raise AdapterError(f"device is an object, as qpeft.devices.load_device(name) makes them; got {device!r}.")
    chosen = device_circuits(model, layers) if found else {}
    if layers is not None and banks:
        raise AdapterError(
            "layers chooses among QTHA layers, and circuits of a quantum-weighted adapter serve all its layers. Leave "
            "layers out."
        )
    _check_not_final(banks)
    evaluator = DeviceEvaluator(device, shots, find_gradient(gradient), runner, mitigation)
    check_suits(mitigation, device.capabilities())
    for circuit in [bottleneck.circuit for bottleneck in chosen.values()] + [bank.circuit for bank in banks.values()]:
        bound = bind(circuit, [0.0] * circuit.num_inputs, [0.0] * circuit.num_weights)
        check_request(device.capabilities(), [bound], shots)
    set_evaluators({bottleneck: _evaluate_as(name, evaluator) for name, bottleneck in chosen.items()}, found.values())
    for name, bank in banks.items():
        bank.set_evaluator(_BankOnDevice(name, evaluator))
    return evaluator


class _BankOnDevice:
    """Circuits without data through a device: trained angles are their inputs, and each is sent once a step.

    The backward passes of all micro-batches ask for the same shifted circuits under the same key. A journal would
    answer from what it stored; without one, this does.
    """

    def __init__(self, name: str, evaluator: DeviceEvaluator) -> None:
        self._name, self._evaluator, self._numbers = name, evaluator, CallNumbers()
        self._results: dict[Any, Any] = {}

    @property
    def step(self) -> int:
        return self._evaluator.step

    def values(self, circuit: Circuit, angles: Tensor) -> Tensor:
        return device_expectations(circuit, angles, angles.new_empty(0), **self._options(angles)).values

    def gradients(self, circuit: Circuit, angles: Tensor, grad: Tensor) -> Tensor:
        options = self._options(angles) | {"gradient": self._evaluator.gradient}
        found = device_gradients(circuit, angles, angles.new_empty(0), grad, **options, by_weights=False)
        self._evaluator.record(self._name, found)
        return found.inputs

    def _options(self, angles: Tensor) -> dict[str, Any]:
        if self._numbers.step != self.step:
            self._numbers.begin_step(self.step)
            self._results.clear()
        number, evaluator = self._numbers.number(self._name, angles), self._evaluator
        return {
            "device": evaluator.device,
            "shots": evaluator.shots,
            "runner": self._run,
            "key": CallKey(self._name, step=self.step, call=number),
            "mitigation": evaluator.mitigation,
        }

    def _run(self, device: AbstractDevice, circuits: Sequence[Circuit], shots: int | None, *, key: CallKey) -> Any:
        asked = (key, tuple(circuits))
        if asked not in self._results:
            self._results[asked] = self._evaluator.runner(device, circuits, shots, key=key)
        return self._results[asked]


@torch.no_grad()
def finalize(
    model: nn.Module,
    device: AbstractDevice,
    *,
    shots: int | None = 10_000,
    runner: Runner = run_now,
    mitigation: AbstractMitigation | None = None,
) -> dict[str, float]:
    """Measure the values of quantum-weighted adapters once more and keep them: each is a plain matrix from then on.

    One circuit for each group of layers. The values and their standard errors are saved with the adapter, which then is
    the same on every machine and needs no circuit.

    Args:
        model: with trained quantum-weighted adapters.
        device: where the circuits run, once more.
        shots: per circuit; None for exact values.
        runner: through which everything is sent.
        mitigation: of errors, as for `set_quantum_device`.

    Returns:
        The largest standard error of each adapter's values, by the name that the journal has for its circuits.

    Raises:
        AdapterError: there is no such adapter, or one is final already.
        DeviceError, ShotsError: the device takes no such circuits or shots. Adapters then stay as they are.
    """
    banks = circuit_banks(model)
    if not banks:
        raise AdapterError("The model has no quantum-weighted adapter with circuits, and only these become final.")
    _check_not_final(banks)
    measured = {}
    for name, bank in banks.items():
        angles = bank.angles()
        # A step of its own: no training step has this number, and a repetition finds what was paid for.
        key = CallKey(name, step=FINAL_STEP)
        measured[name] = device_expectations(
            bank.circuit, angles, angles.new_empty(0), device, shots, runner=runner, key=key, mitigation=mitigation
        )
    for name, (values, standard_errors) in measured.items():
        banks[name].finalize(values, standard_errors)
    return {name: float(found.standard_errors.max()) for name, found in measured.items()}


def _check_not_final(banks: Mapping[str, CircuitBank]) -> None:
    """Raises: AdapterError if values of a bank are measured for good, so that no device changes them."""
    if final := [name for name, bank in banks.items() if bank.config.finalized]:
        raise AdapterError(f"{final[0]} is final already. Take the adapter as it was before, to measure it anew.")


def _chosen(tokens: Tensor, angles: Tensor) -> Tensor:
    batch = tuple(angles.shape[:-2])
    if tokens.dtype != torch.bool or tuple(tokens.shape) != batch:
        raise AdapterError(
            f"DeviceEvaluator.tokens must be a mask (bool) of the shape of the layers' batch, here {batch}; got "
            f"{tokens.dtype} of shape {tuple(tokens.shape)}. Set it for each forward pass, or None to send all tokens, "
            "as generating needs."
        )
    return tokens.to(angles.device)


def device_circuits(model: nn.Module, layers: Iterable[str] | None = None) -> dict[str, CircuitModule]:
    """Return the circuits that `set_quantum_device` would put on a device, by module.

    Those of quantum-weighted adapters are not among them. Raises: AdapterError as there.
    """
    found = circuit_layers(model, required=not circuit_banks(model))
    if not found:
        return {}
    return dict(circuits_of(found if layers is None else matching(found, layers)))


def _evaluate_as(name: str, evaluator: DeviceEvaluator) -> Evaluate:
    def evaluate(circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        return evaluator.evaluate(name, circuit, angles, weights)

    # Compilers cannot look into jobs: they leave their graph here, or refuse if they were asked for one graph.
    outside_graphs: Evaluate = torch.compiler.disable(evaluate)
    return outside_graphs


# Numbers for the evaluations of a training step, equal for equal angles.


class CallNumbers:
    """Numbers the evaluations of any number of modules, within each step and module from 0.

    An evaluation with the angles of an earlier one gets its number: so a forward pass that gradient checkpointing
    repeats is known again.

    Attributes:
        step: of the training; set it by `begin_step`.
    """

    def __init__(self) -> None:
        self.step = 0
        self._numbers: dict[str, dict[bytes, int]] = {}

    def begin_step(self, step: int) -> None:
        """Number all further evaluations within this step, from 0 for every module."""
        self.step = step
        self._numbers.clear()

    def number(self, module: str, *angles: Tensor) -> int:
        """Of an evaluation of a module's circuits with these angles."""
        numbers = self._numbers.setdefault(module, {})
        return numbers.setdefault(_digest(*angles), len(numbers))


def _digest(*tensors: Tensor) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().double().numpy().tobytes())
    return digest.digest()


# What a step's backward passes through a device said of one module: sums, and how far off they are.


@dataclass
class GradientRecord:
    """Gradients of the circuits of one module, over its backward passes since `DeviceEvaluator.begin_step`.

    Attributes:
        passes: so many.
        weights: gradient by the circuits' weights, summed over the passes, (num_circuits, num_weights).
        weight_errors: its standard errors, same shape.
        squares, variances: sums over the entries of all gradients, by inputs and by weights, of their squares and of
            their squared standard errors.

    Standard errors are as in `DeviceGradients`; NaN if one of them is.
    """

    passes: int
    weights: Tensor
    weight_errors: Tensor
    squares: float = 0.0
    variances: float = 0.0

    @classmethod
    def empty(cls, gradients: DeviceGradients) -> GradientRecord:
        """Without a pass, for gradients of this shape."""
        return cls(0, torch.zeros_like(gradients.weights), torch.zeros_like(gradients.weights))

    @property
    def relative_error(self) -> float:
        """Root of the summed variances over the length of the gradients; NaN if these are all zero."""
        return math.sqrt(self.variances / self.squares) if self.squares else math.nan

    def add(self, gradients: DeviceGradients) -> None:
        """Count one more pass, whose errors are independent of the others'."""
        self.passes += 1
        self.weights = self.weights + gradients.weights
        self.weight_errors = torch.hypot(self.weight_errors, gradients.weight_errors)
        self.squares += _sum_of_squares(gradients.inputs, gradients.weights)
        self.variances += _sum_of_squares(gradients.input_errors, gradients.weight_errors)


def _sum_of_squares(*tensors: Tensor) -> float:
    return sum(tensor.double().square().sum().item() for tensor in tensors)


# Layers of a model by name, and their circuits, whose evaluation is chosen at run time.


Layer: TypeAlias = QthaLayer | QuantumLayer


def qtha_layers(model: nn.Module) -> dict[str, QthaLayer]:
    """Return every QTHA layer by its full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QthaLayer)}


def circuit_layers(model: nn.Module, *, required: bool = True) -> dict[str, Layer]:
    """Return every QTHA layer and every QuantumLayer by its full name; one that is the model itself by its class's.

    Raises: AdapterError if one is required and there is none.
    """
    found: dict[str, Layer] = {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if isinstance(module, (QthaLayer, QuantumLayer))
    }
    if required and not found:
        raise AdapterError(
            "The model has no QTHA layer, no QuantumLayer and no quantum-weighted adapter, and only these have "
            "circuits. In a recipe: adapter.type qtha or quantum_weighted, or no device section; in Python: "
            "get_peft_model(model, QthaConfig(...)) first."
        )
    return found


def set_evaluators(chosen: Mapping[CircuitModule, Evaluate], layers: Iterable[Layer]) -> None:
    """Let the chosen circuits be evaluated as said, and all others of these layers on the simulator."""
    for layer in layers:
        for _, circuits in _circuits_in("", layer):
            circuits.set_evaluator(chosen.get(circuits))


def circuits_of(layers: Mapping[str, Layer]) -> Iterator[tuple[str, CircuitModule]]:
    """Yield circuits of every adapter of these layers, as "layer.adapter"; a QuantumLayer's by its own name.

    Raises: AdapterError for a layer without any.
    """
    for name, layer in layers.items():
        found = list(_circuits_in(name, layer))
        if not found:
            raise AdapterError(
                f"Layer {name!r} has no circuit: no adapter of it has bottleneck='circuit' or 'frozen_circuit'."
            )
        yield from found


def matching(layers: Mapping[str, Layer], wanted: Iterable[str]) -> dict[str, Layer]:
    """Layers whose full names are wanted, or end in what is wanted, part by part.

    Raises: AdapterError for a string in place of a list, an empty list, or a name that fits none, naming the nearest.
    """
    if isinstance(wanted, str):
        raise AdapterError(f"layers is a list of names; got the string {wanted!r}. Write layers=[{wanted!r}].")
    chosen: dict[str, Layer] = {}
    for name in wanted:
        fits = {full: layer for full, layer in layers.items() if full == name or full.endswith(f".{name}")}
        if not fits:
            raise AdapterError(f"No layer with circuits is called {name!r}{_nearest(name, layers)}")
        chosen |= fits
    if not chosen:
        raise AdapterError(
            "layers names no layer; leave it out for every layer that has circuits, or pass None, not a device or "
            "noise, for none."
        )
    return chosen


def _circuits_in(name: str, layer: Layer) -> Iterator[tuple[str, CircuitModule]]:
    if isinstance(layer, QuantumLayer):
        yield name, layer
        return
    for adapter, branch in layer.branches.items():
        assert isinstance(branch, QthaBranch)
        if isinstance(branch.middle, CircuitBottleneck):
            yield f"{name}.{adapter}", branch.middle


def _nearest(name: str, layers: Iterable[str]) -> str:
    parts = [full.split(".") for full in layers]
    suffixes = sorted({".".join(part[first:]) for part in parts for first in range(len(part))}, key=len)
    near = difflib.get_close_matches(name, suffixes, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f". They are: {', '.join(layers)}."


# Which tokens of a batch can reach the loss of a causal language model, so that others need no circuits.


NOT_TRAINED = -100
"""The label that transformers leaves out of the loss."""


def reachable_tokens(
    attention_mask: Tensor | None, labels: Int[Tensor, "batch sequence"]
) -> Bool[Tensor, "batch sequence"]:
    """Mask of the tokens whose hidden states can reach the loss.

    In a causal model the output at a position is compared with the label of the next, and depends on no later token.
    So a token matters if it is no padding and a trained label stands after it in its row. The answer holds for the
    usual loss, the cross-entropy of the labels; a loss that reads other outputs (router losses of mixtures of experts,
    distances to a reference model) reaches more. In packed rows it may include too much, never too little.

    Args:
        attention_mask: (batch, sequence), 0 at padding, on either side; None if there is none.
        labels: one per token, as transformers takes them: at a token's own position, -100 where nothing is trained.

    Returns:
        On the device of `labels`. Rows in which padding itself predicts a trained label (left padding, with a label on
        the first token) are all True: what a padding token attends to differs between implementations.

    Raises: AdapterError if the shapes are not (batch, sequence), both the same.
    """
    if labels.ndim != 2 or (attention_mask is not None and attention_mask.shape != labels.shape):
        mask = "none" if attention_mask is None else tuple(attention_mask.shape)
        raise AdapterError(
            f"Labels and attention mask are both (batch, sequence); got labels {tuple(labels.shape)}, mask {mask}."
        )
    trained = labels != NOT_TRAINED
    predicts = torch.nn.functional.pad(trained[:, 1:], (0, 1))
    reaches = predicts.flip(1).cummax(1).values.flip(1)
    if attention_mask is None:
        return reaches
    token = attention_mask.to(labels.device) != 0
    unclear = (predicts & ~token).any(1, keepdim=True)
    return reaches & token | unclear
