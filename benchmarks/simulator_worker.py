"""One simulator in a process of its own: evaluates a circuit forwards and backwards when told to, and reports CPU time.

Speaks JSON lines on stdin and stdout with `simulators.py`; needs nothing but the simulator and numpy, so it runs under
any interpreter. Every simulator is a function: circuit, arrays -> a call that returns (values, by_inputs, by_weights).
"""
# ruff: noqa: PLC0415 - each simulator is imported in the one function that uses it

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

Call = Callable[[], tuple[Any, Any, Any]]
MIN_SECONDS = 0.1
"""A turn repeats its call for this long, so that short calls are not all start-up and clock."""


def torch_call(evaluate: Callable[[Any, Any], Any], inputs: Any, weights: Any, grad: Any) -> Call:
    """Forward and backward of a torch function (tokens, inputs), (weights,) -> (tokens, values)."""
    import torch

    torch.set_num_threads(1)
    x, w, g = (torch.tensor(array, dtype=torch.float32) for array in (inputs, weights, grad))

    def call() -> tuple[Any, Any, Any]:
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        values = evaluate(a, b)
        values.backward(g.to(values.dtype))
        return values.detach().numpy(), a.grad.numpy(), b.grad.numpy()

    return call


def qpeft_kernel(circuit: dict[str, Any], *arrays: Any) -> Call:
    """Our compiled kernel."""
    from qpeft.simulation import expectations

    ours = our_circuit(circuit)
    return torch_call(lambda x, w: expectations(ours, x, w), *arrays)


def our_circuit(circuit: dict[str, Any]) -> Any:
    """The circuit as an object of ours."""
    from qpeft.circuits import Circuit, Input, Operation, Weight

    sources = {"input": Input, "weight": Weight}
    operations = tuple(
        Operation(gate, tuple(qubits), sources[kind](index) if kind else None)
        for gate, qubits, kind, index in circuit["operations"]
    )
    return Circuit(circuit["num_qubits"], operations)


def qpeft_torch(circuit: dict[str, Any], *arrays: Any) -> Call:
    """Our torch path."""
    call = qpeft_kernel(circuit, *arrays)
    sys.modules["qpeft.simulation.expectations"].KERNEL_MAX_QUBITS = 0  # type: ignore[attr-defined]
    return call


def pennylane(circuit: dict[str, Any], *arrays: Any) -> Call:
    """default.qubit, broadcast over tokens, gradients by torch."""
    import pennylane as qml
    import torch

    @qml.qnode(qml.device("default.qubit", wires=circuit["num_qubits"]), interface="torch", diff_method="backprop")
    def evaluate(x: Any, w: Any) -> Any:
        for gate, qubits, angle in angles(circuit, lambda index: x[:, index], lambda index: w[index]):
            getattr(qml, gate)(*([] if angle is None else [angle]), wires=qubits)
        return [qml.expval(qml.PauliZ(qubit)) for qubit in range(circuit["num_qubits"])]

    return torch_call(lambda x, w: torch.stack(evaluate(x, w), dim=1), *arrays)


def pennylane_layer(circuit: dict[str, Any], *arrays: Any, device: str = "qpeft.simulator") -> Call:
    """PennyLane's torch interface on a device of its own or on ours, with the device's own gradients."""
    import pennylane as qml
    import torch

    def function(inputs: Any, weights: Any) -> Any:
        for gate, qubits, angle in angles(circuit, lambda index: inputs[..., index], lambda index: weights[index]):
            getattr(qml, gate)(*([] if angle is None else [angle]), wires=qubits)
        return [qml.expval(qml.PauliZ(qubit)) for qubit in range(circuit["num_qubits"])]

    node = qml.QNode(function, qml.device(device, wires=circuit["num_qubits"]), diff_method="adjoint")
    # What TorchLayer does, but for its keeping the weights.
    return torch_call(lambda x, w: torch.stack(node(x, w), dim=-1), *arrays)


def quantum_layer(circuit: dict[str, Any], *arrays: Any) -> Call:
    """Our QuantumLayer."""
    import torch

    from qpeft import QuantumLayer

    layer = QuantumLayer(our_circuit(circuit))
    return torch_call(lambda x, w: torch.func.functional_call(layer, {"weights": w[None]}, (x,)), *arrays)


def qiskit_network(circuit: dict[str, Any], inputs: Any, weights: Any, grad: Any, *, ours: bool) -> Call:
    """Qiskit Machine Learning's EstimatorQNN on Qiskit's estimator, with its parameter-shift gradient, or on ours."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector
    from qiskit.primitives import StatevectorEstimator
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    from qpeft.integrations.qiskit import Estimator
    from qpeft.integrations.qiskit_gradient import AdjointEstimatorGradient

    names = {"CNOT": "cx"}
    num_qubits = circuit["num_qubits"]
    x, w = ParameterVector("x", inputs.shape[1]), ParameterVector("w", len(weights))
    made = QuantumCircuit(num_qubits)
    for gate, qubits, angle in angles(circuit, x.__getitem__, w.__getitem__):
        getattr(made, names.get(gate, gate.lower()))(*([] if angle is None else [angle]), *qubits)
    observables = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits) for q in range(num_qubits)]
    estimator = Estimator() if ours else StatevectorEstimator()
    network = EstimatorQNN(
        circuit=made,
        estimator=estimator,
        observables=observables,
        input_params=x,
        weight_params=w,
        input_gradients=True,
        gradient=AdjointEstimatorGradient(estimator) if ours else None,
        default_precision=0.0,
    )

    def call() -> tuple[Any, Any, Any]:
        values = network.forward(inputs, weights)
        by_inputs, by_weights = network.backward(inputs, weights)
        return values, np.einsum("rop,ro->rp", by_inputs, grad), np.einsum("rop,ro->p", by_weights, grad)

    return call


def torchquantum(circuit: dict[str, Any], *arrays: Any) -> Call:
    """TorchQuantum, batched over tokens."""
    import torchquantum as tq
    import torchquantum.functional as tqf

    measure = tq.MeasureAll(tq.PauliZ)

    def evaluate(x: Any, w: Any) -> Any:
        device = tq.QuantumDevice(n_wires=circuit["num_qubits"], bsz=len(x))
        for gate, qubits, angle in angles(circuit, lambda index: x[:, index : index + 1], lambda index: w[index]):
            getattr(tqf, gate.lower())(device, wires=qubits, **({} if angle is None else {"params": angle}))
        return measure(device)

    return torch_call(evaluate, *arrays)


def tensorcircuit(circuit: dict[str, Any], inputs: Any, weights: Any, grad: Any) -> Call:
    """TensorCircuit-NG on JAX: vmap over tokens, compiled; compilation is not timed."""
    import jax
    import jax.numpy as jnp
    import tensorcircuit as tc

    tc.set_backend("jax")
    num_qubits = circuit["num_qubits"]

    def evaluate(x: Any, w: Any) -> Any:
        state = tc.Circuit(num_qubits)
        for gate, qubits, angle in angles(circuit, lambda index: x[index], lambda index: w[index]):
            getattr(state, gate.lower())(*qubits, **({} if angle is None else {"theta": angle}))
        return jnp.real(jnp.stack([state.expectation_ps(z=[qubit]) for qubit in range(num_qubits)]))

    @jax.jit
    def both(x: Any, w: Any, g: Any) -> Any:
        values, pull = jax.vjp(jax.vmap(evaluate, in_axes=(0, None)), x, w)
        return values, *pull(g)

    tensors = [jnp.asarray(array, dtype=jnp.float32) for array in (inputs, weights, grad)]
    return lambda: tuple(np.asarray(result) for result in both(*tensors))  # type: ignore[return-value]


def pyqtorch(circuit: dict[str, Any], *arrays: Any) -> Call:
    """PyQTorch, batched over tokens, in complex64; the state is computed once for all observables."""
    import pyqtorch as pyq
    import torch

    num_qubits = circuit["num_qubits"]
    operations = [
        getattr(pyq, gate)(*qubits, **({} if angle is None else {"param_name": angle}))
        for gate, qubits, angle in angles(circuit, "input {}".format, "weight {}".format)
    ]
    ours = pyq.QuantumCircuit(num_qubits, operations).to(dtype=torch.complex64)
    observables = [pyq.Observable([pyq.Z(qubit)]).to(dtype=torch.complex64) for qubit in range(num_qubits)]

    def evaluate(x: Any, w: Any) -> Any:
        values = {f"input {index}": column for index, column in enumerate(x.T)}
        values |= {f"weight {index}": weight for index, weight in enumerate(w)}
        state = pyq.run(ours, values=values)
        return torch.stack([observable.expectation(state) for observable in observables], dim=1)

    return torch_call(evaluate, *arrays)


def deepquantum(circuit: dict[str, Any], *arrays: Any) -> Call:
    """DeepQuantum, which maps over tokens by torch's vmap; weights enter as data that all tokens share."""
    import deepquantum as dq
    import torch

    ours = dq.QubitCircuit(circuit["num_qubits"])
    for gate, qubits, angle in angles(circuit, str, str):
        getattr(ours, gate.lower())(*qubits, **({} if angle is None else {"encode": True}))
    for qubit in range(circuit["num_qubits"]):
        ours.observable(qubit)

    def evaluate(x: Any, w: Any) -> Any:
        columns = angles(circuit, lambda index: x[:, index], lambda index: w[index].expand(len(x)))
        ours(torch.stack([angle for _, _, angle in columns if angle is not None], dim=1))
        return ours.expectation()

    return torch_call(evaluate, *arrays)


def angles(circuit: dict[str, Any], of_input: Any, of_weight: Any) -> Iterator[tuple[str, list[int], Any]]:
    """Gate, qubits and angle (None for a fixed gate) of every operation."""
    for gate, qubits, kind, index in circuit["operations"]:
        yield gate, qubits, of_input(index) if kind == "input" else of_weight(index) if kind == "weight" else None


SIMULATORS: dict[str, tuple[Callable[..., Call], str, int | None]] = {
    "qpeft kernel": (qpeft_kernel, "qpeft", None),
    "qpeft layer": (quantum_layer, "qpeft", None),
    "qpeft torch": (qpeft_torch, "qpeft", None),
    "pennylane on qpeft": (pennylane_layer, "pennylane", None),
    "qiskit on qpeft": (partial(qiskit_network, ours=True), "qiskit-machine-learning", None),
    "torchquantum": (torchquantum, "torchquantum-ng", None),
    "pennylane": (pennylane, "pennylane", None),
    "lightning.qubit": (partial(pennylane_layer, device="lightning.qubit"), "pennylane_lightning", 64),
    "qiskit": (partial(qiskit_network, ours=False), "qiskit-machine-learning", 1),
    "deepquantum": (deepquantum, "deepquantum", None),
    "pyqtorch": (pyqtorch, "pyqtorch", None),
    "tensorcircuit": (tensorcircuit, "tensorcircuit-ng", None),
}
"""Name: (function, distribution whose version is reported, most rows in a call of one that takes them one by one)."""


def main() -> None:
    """Answers requests until stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; only replies may reach stdout
    make, distribution, _ = SIMULATORS[sys.argv[1]]
    call: Call | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "circuit" in request:
            try:
                call = make(request["circuit"], *(np.array(request[name]) for name in ("inputs", "weights", "grad")))
                reply: dict[str, Any] = {"results": [np.asarray(array).tolist() for array in call()]}
                reply["version"] = importlib.metadata.version(distribution)
            except ImportError as error:
                reply = {"missing": str(error)}
        else:
            assert call is not None
            started, calls = time.process_time(), 0
            while calls == 0 or time.process_time() - started < MIN_SECONDS:
                call()
                calls += 1
            reply = {"cpu": (time.process_time() - started) / calls}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
