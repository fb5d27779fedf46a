"""QTHA layers whose circuits run on a quantum device, chosen at run time and never stored with the adapter."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qpeft.adapters.qtha.call_numbers import CallNumbers
from qpeft.adapters.qtha.gradient_record import GradientRecord
from qpeft.adapters.qtha.middle import CircuitMiddle, Evaluate
from qpeft.adapters.qtha.selection import circuits_of, matching, put_elsewhere, qtha_layers
from qpeft.circuits import Circuit, bind
from qpeft.devices import AbstractDevice, AbstractMitigation, CallKey, Runner, device_expectations, run_now
from qpeft.devices.differentiation import DeviceGradients, OnGradients
from qpeft.devices.gradients import AbstractGradient, GradientChoice, find_gradient
from qpeft.devices.mitigation import check_suits
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
            on_gradients=self._record_as(module),
            mitigation=self.mitigation,
        ).values

    def _record_as(self, module: str) -> OnGradients:
        def record(gradients: DeviceGradients) -> None:
            self.records.setdefault(module, GradientRecord.empty(gradients)).add(gradients)

        return record


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
        mitigation: of errors, `ReadoutInversion()` or `ZeroNoise()` of `qpeft.devices`; None for none.

    Returns:
        What the layers call, whose `begin_step` numbers training steps; None if they use the simulator.

    Raises:
        AdapterError: the model has no QTHA layer, a name fits none (naming the nearest), or one that has no circuit.
        GradientError: unknown gradient. ShotsError, DeviceError: the device takes no such circuits or shots, or does
            something that spoils the mitigation.
        In each case every layer stays as it was.
    """
    found = qtha_layers(model)
    if device is None:
        put_elsewhere({}, found.values())
        return None
    if not isinstance(device, AbstractDevice):
        raise AdapterError(f"device is an object, as qpeft.devices.load_device(name) makes them; got {device!r}.")
    chosen = device_circuits(model, layers)
    evaluator = DeviceEvaluator(device, shots, find_gradient(gradient), runner, mitigation)
    check_suits(mitigation, device.capabilities())
    for middle in chosen.values():
        circuit = middle.circuit
        bound = bind(circuit, [0.0] * circuit.num_inputs, [0.0] * circuit.num_weights)
        check_request(device.capabilities(), [bound], shots)
    put_elsewhere({middle: _evaluate_as(name, evaluator) for name, middle in chosen.items()}, found.values())
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
    found = qtha_layers(model)
    return dict(circuits_of(found if layers is None else matching(found, layers)))


def _evaluate_as(name: str, evaluator: DeviceEvaluator) -> Evaluate:
    def evaluate(circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        return evaluator.evaluate(name, circuit, angles, weights)

    # Compilers cannot look into jobs: they leave their graph here, or refuse if they were asked for one graph.
    outside_graphs: Evaluate = torch.compiler.disable(evaluate)
    return outside_graphs
