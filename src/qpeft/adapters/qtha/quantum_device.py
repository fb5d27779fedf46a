"""QTHA layers whose circuits run on a quantum device, chosen at run time and never stored with the adapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qpeft.adapters.qtha.call_numbers import CallNumbers
from qpeft.adapters.qtha.gradient_record import GradientRecord
from qpeft.adapters.qtha.middle import CircuitMiddle, Evaluate
from qpeft.adapters.qtha.selection import circuits_of, matching, put_elsewhere, qtha_layers
from qpeft.adapters.quantum_weighted import CircuitBank, circuit_banks
from qpeft.circuits import Circuit, bind
from qpeft.devices import AbstractDevice, AbstractMitigation, CallKey, Runner, device_expectations, run_now
from qpeft.devices.differentiation import DeviceGradients, device_gradients
from qpeft.devices.gradients import AbstractGradient, GradientChoice, find_gradient
from qpeft.devices.mitigation import check_suits
from qpeft.devices.protocol import check_request
from qpeft.errors import AdapterError

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
    """Let QTHA layers evaluate their circuits on `device`, and all other QTHA layers of the model on the simulator.

    Circuits of quantum-weighted adapters go there too, once a step, whatever the number of tokens and layers.

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
    banks = circuit_banks(model)
    found = qtha_layers(model, required=not banks)
    if device is None:
        put_elsewhere({}, found.values())
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
    for circuit in [middle.circuit for middle in chosen.values()] + [bank.circuit for bank in banks.values()]:
        bound = bind(circuit, [0.0] * circuit.num_inputs, [0.0] * circuit.num_weights)
        check_request(device.capabilities(), [bound], shots)
    put_elsewhere({middle: _evaluate_as(name, evaluator) for name, middle in chosen.items()}, found.values())
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


def device_circuits(model: nn.Module, layers: Iterable[str] | None = None) -> dict[str, CircuitMiddle]:
    """Circuits of QTHA that `set_quantum_device` would put on a device, by module. Raises: AdapterError as there."""
    found = qtha_layers(model, required=not circuit_banks(model))
    if not found:
        return {}
    return dict(circuits_of(found if layers is None else matching(found, layers)))


def _evaluate_as(name: str, evaluator: DeviceEvaluator) -> Evaluate:
    def evaluate(circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        return evaluator.evaluate(name, circuit, angles, weights)

    # Compilers cannot look into jobs: they leave their graph here, or refuse if they were asked for one graph.
    outside_graphs: Evaluate = torch.compiler.disable(evaluate)
    return outside_graphs
