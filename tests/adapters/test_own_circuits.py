"""Circuits of PennyLane, Qiskit and OpenQASM in the bottleneck of an adapter, and how they are stored."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import pennylane as qml
import pytest
import torch
from peft import PeftModel, get_peft_model
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from torch.testing import assert_close

import qpeft
from qpeft import QthaConfig
from qpeft.adapters.build import build_config
from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.devices import LocalDevice
from qpeft.errors import AdapterError, CircuitError
from qpeft.simulation import expectations

LAYER = "base_model.model.model.layers.1.self_attn.v_proj"
OPENQASM = """OPENQASM 3.0;
include "stdgates.inc";
input float[64] _x_0_;
input float[64] _x_1_;
input float[64] a;
qubit[2] q;
h q[0];
rx(_x_0_) q[0];
rz(2*_x_1_ + 0.3) q[1];
cx q[0], q[1];
ry(a) q[1];
"""


def of_pennylane():
    """Two inputs, a template, and observables of two kinds."""

    def function(inputs, weights):
        qml.AngleEmbedding(inputs, wires=[0, 1])
        qml.BasicEntanglerLayers(weights, wires=[0, 1, 2])
        return qml.expval(qml.Z(0) @ qml.Y(2)), qml.expval(qml.X(1)), qml.expval(qml.Z(2))

    return Circuit.from_pennylane(function, torch.zeros(2), torch.zeros(2, 3))


def of_qiskit():
    """Four inputs on two qubits, one observable for each pair."""
    x, w = ParameterVector("x", 4), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    for qubit in (0, 1):
        circuit.ry(x[qubit], qubit)
        circuit.u(x[qubit + 2], w[0], 0.1, qubit)
    circuit.cp(w[1], 0, 1)
    circuit.rxx(w[2], 0, 1)
    return Circuit.from_qiskit(circuit, inputs=[x], observables=["ZZ", "XI"])


FOREIGN = {
    "pennylane": of_pennylane,
    "qiskit": of_qiskit,
    "openqasm": lambda: Circuit.from_openqasm(OPENQASM, inputs="x"),
}


@pytest.fixture(params=FOREIGN)
def circuit(request):
    return FOREIGN[request.param]()


@pytest.fixture
def adapted(make_model, circuit):
    """A function: the tiny model with two such circuits side by side in every adapted layer, shaken."""

    def make(**options):
        settings = {"ansatz": circuit, "rank": 2 * circuit.num_inputs, "target_modules": ["q_proj", "v_proj"]}
        torch.manual_seed(0)
        return get_peft_model(make_model(), QthaConfig(**(settings | {"init_seed": 1} | options)))

    return make


def shake(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def test_a_fresh_adapter_is_the_base_model(adapted, make_model, tokens):
    assert torch.equal(adapted()(tokens).logits, make_model()(tokens).logits)


def test_the_bottleneck_is_the_circuit_on_slices_of_h(adapted, circuit):
    branch = shake(adapted()).get_submodule(LAYER).branches["default"]
    assert branch.middle.num_features == 2 * circuit.num_observables
    h = torch.randn(5, 2 * circuit.num_inputs, generator=torch.Generator().manual_seed(0))
    halves = h.split(circuit.num_inputs, dim=-1)
    values = [
        expectations(circuit, half + torch.pi / 2, weights)
        for half, weights in zip(halves, branch.middle.weights, strict=True)
    ]
    expected = torch.cat(values, -1) @ branch.middle_weight.T + h @ branch.classical_weight.T
    assert_close(branch.bottleneck(h), expected)


def test_it_is_stored_as_data_and_loads_where_no_other_framework_is(adapted, make_model, tokens, tmp_path):
    model = shake(adapted())
    model.save_pretrained(tmp_path / "adapter")
    make_model().save_pretrained(tmp_path / "base")
    torch.save({"tokens": tokens, "logits": model(tokens).logits.detach()}, tmp_path / "wanted.pt")
    stored = json.loads((tmp_path / "adapter/adapter_config.json").read_text())["ansatz"]
    assert sorted(stored) == ["num_qubits", "observables", "operations"]
    script = f"""
import sys
for name in ("pennylane", "qiskit"):
    sys.modules[name] = None
import torch, qpeft
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(tmp_path / "base")!r})
model = PeftModel.from_pretrained(base, {str(tmp_path / "adapter")!r}).eval()
wanted = torch.load({str(tmp_path / "wanted.pt")!r})
assert torch.allclose(model(wanted["tokens"]).logits, wanted["logits"], atol=1e-6)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_gradients_are_those_of_finite_differences(adapted, tokens):
    model = shake(adapted())
    weights = model.get_submodule(LAYER).branches["default"].middle.weights

    def loss():
        return model(tokens, labels=tokens).loss

    loss().backward()
    step = 1e-2
    with torch.no_grad():
        weights[0, 0] += step
        up = loss().item()
        weights[0, 0] -= 2 * step
        down = loss().item()
    assert weights.grad[0, 0].item() == pytest.approx((up - down) / (2 * step), rel=0.05, abs=2e-5)


def test_an_exact_device_says_what_the_simulator_says(adapted, tokens):
    model = shake(adapted())
    expected = model(tokens).logits
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="parameter-shift")
    assert_close(model(tokens).logits, expected, atol=1e-4, rtol=0)


def test_two_active_adapters_add_up_and_a_frozen_circuit_is_a_control(adapted, tokens):
    model = adapted(bottleneck="frozen_circuit")
    model.add_adapter("other", model.peft_config["default"])
    shake(model)
    layer = model.get_submodule(LAYER)
    x = torch.randn(3, layer.in_features)
    alone = []
    for name in ("default", "other"):
        layer.set_adapter([name])
        alone.append(layer(x) - layer.get_base_layer()(x))
    layer.set_adapter(["default", "other"])
    assert_close(layer(x) - layer.get_base_layer()(x), sum(alone), atol=1e-5, rtol=0)
    assert not layer.branches["default"].middle.weights.requires_grad


def test_a_family_of_another_package_is_asked_once_and_stored(monkeypatch, make_model, tmp_path):
    entry = EntryPoint("sandwich", f"{__name__}:sandwich", "qpeft.ansatze")
    monkeypatch.setattr("qpeft.circuits.ansatz.entry_points", lambda group: [entry] if group == "qpeft.ansatze" else [])
    config = QthaConfig(ansatz="sandwich", rank=3, depth=2, target_modules=["v_proj"])
    assert Circuit.from_dict(config.ansatz) == sandwich(3, 2)
    model = shake(get_peft_model(make_model(), config))
    model.save_pretrained(tmp_path)
    monkeypatch.undo()
    assert PeftModel.from_pretrained(make_model(), tmp_path).peft_config["default"].ansatz == config.ansatz
    with pytest.raises(AdapterError, match="There is no ansatz 'sandwich'"):
        QthaConfig(ansatz="sandwich")


def sandwich(num_qubits, depth, *, reupload=True):
    """What a package registers."""
    assert reupload
    layers = [Operation("RY", (q,), Input(q)) for q in range(num_qubits)] * depth
    return Circuit(num_qubits, [*layers, *(Operation("RX", (q,), Weight(q)) for q in range(num_qubits))])


def test_a_recipe_names_an_openqasm_file(tmp_path):
    file = tmp_path / "mine.qasm"
    file.write_text(OPENQASM)
    config = build_config("qtha", {"ansatz": str(file), "rank": 4})
    assert Circuit.from_dict(config.ansatz) == FOREIGN["openqasm"]()
    file.write_text(OPENQASM.replace("_x_", "_y_"))
    with pytest.raises(CircuitError, match="the circuit has no parameter 'x'; it has"):
        build_config("qtha", {"ansatz": str(file)})
    with pytest.raises(CircuitError, match="cannot be read as OpenQASM"):
        build_config("qtha", {"ansatz": str(tmp_path / "missing.qasm")})
    with pytest.raises(AdapterError, match="There is no ansatz"):
        QthaConfig(ansatz=str(file))  # a config that came with an adapter opens no file


STORED = ansatz.ring_cz(2).to_dict()


@pytest.mark.parametrize(
    "made", [ansatz.ring_crz(3, 2), of_qiskit(), Circuit(2, [Operation("RX", (1,), 0.25)], ["XY"])]
)
def test_a_stored_circuit_is_the_same_again(made):
    assert Circuit.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_qubits": 10**9}, "1 to 24 qubits; got 1000000000"),
        ({"num_qubits": "2"}, "1 to 24 qubits; got '2'"),
        ({"operations": [["H", [0]]] * 20_000}, "at most 10,000 operations; got 20,000"),
        ({"observables": ["ZZ"] * 5000}, "at most 4,096 observables; got 5,000"),
        ({"operations": {"H": 0}}, "list of at most 10,000 operations; got dict"),
        ({"operations": [["H", [0]], ["EXEC", [0]]]}, r"Gate 1 of a stored circuit.*no gate 'EXEC'"),
        ({"operations": [["RX", [0], "x123456"]]}, "Gate 0 of a stored circuit"),
        ({"operations": [["RX", [0], float("nan")]]}, "finite angle"),
        ({"operations": [["RX", [0.0], 1.0]]}, "Gate 0"),
        ({"operations": [["RX"]]}, "Gate 0"),
        ({"operations": ["H"]}, "Gate 0"),
        ({"operations": [["H", [7]]]}, "leaves the circuit"),
        ({"observables": ["ZQ"]}, "Pauli|letters"),
        ({"observables": [3]}, "Pauli strings"),
        ({"surprise": 1}, "num_qubits, operations and observables, no more; got"),
    ],
)
def test_a_damaged_or_huge_circuit_is_refused_in_one_sentence(change, text):
    with pytest.raises(AdapterError, match=text):
        QthaConfig(ansatz=STORED | change)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"ansatz": ansatz.ring_cz(3), "rank": 8},
            r"reads 3 inputs, so rank must be a multiple of that; got 8.*rank=9",
        ),
        ({"ansatz": ansatz.cz_ring(3, 1)}, "reads no inputs.*quantum_weighted"),
        ({"ansatz": ansatz.ring_cz(13), "rank": 13}, "at most 12 qubits; got 13"),
        ({"ansatz": ansatz.ring_cz(2), "depth": 3}, "num_qubits, depth and reupload belong to families"),
        ({"ansatz": ansatz.ring_cz(2), "bottleneck": "classical_form"}, "written out for ansatz='ring_cz'"),
    ],
)
def test_what_an_own_circuit_cannot_be_is_said(options, text):
    with pytest.raises(AdapterError, match=text):
        QthaConfig(**options)
