"""QTHA layers whose circuits run on a quantum device: the same numbers, chosen at run time, and leaving no trace."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import qpeft
from qpeft import QthaConfig
from qpeft.devices import LocalDevice, Spsa, backward_circuits, forward_circuits, run_now
from qpeft.errors import AdapterError, DeviceError, GradientError, ShotsError

LAYER = "layers.1.self_attn.v_proj"


class Recorder:
    """A runner that remembers keys and numbers of circuits."""

    def __init__(self):
        self.keys, self.num_circuits = [], 0

    def __call__(self, device, circuits, shots, *, key):
        self.keys.append(key)
        self.num_circuits += len(circuits)
        return run_now(device, circuits, shots, key=key)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def model(adapt, shake):
    return shake(adapt(num_qubits=2))


def bottleneck_of(model, layer=LAYER):
    return model.get_submodule(f"base_model.model.model.{layer}").qtha_branch["default"].middle


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def loss(model, tokens):
    model.zero_grad()
    return model(tokens, labels=tokens).loss


def test_an_exact_device_gives_the_outputs_and_gradients_of_the_simulator(model, tokens, recorder):
    tokens = tokens[:1]
    expected = loss(model, tokens)
    expected.backward()
    simulated = gradients(model)
    qpeft.set_quantum_device(
        model, LocalDevice(), shots=None, gradient="parameter-shift", layers=[LAYER], runner=recorder
    )
    found = loss(model, tokens)
    assert_close(found, expected, atol=1e-5, rtol=0)
    assert recorder.num_circuits == 2 * forward_circuits(bottleneck_of(model).circuit, 8)
    found.backward()
    assert simulated.keys() == gradients(model).keys()
    for name, gradient in gradients(model).items():
        assert_close(gradient, simulated[name], atol=1e-5, rtol=1e-4, msg=name)
    # The last token has no label, so it has no influence on the loss and costs nothing.
    backward = 2 * backward_circuits(bottleneck_of(model).circuit, "parameter-shift", 7)
    assert recorder.num_circuits == 2 * forward_circuits(bottleneck_of(model).circuit, 8) + backward


def test_only_the_named_layers_use_the_device(model, tokens, recorder):
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, layers=[LAYER, "q_proj"], runner=recorder)
    with torch.no_grad():
        model(tokens)
    used = {key.module.removeprefix("base_model.model.model.") for key in recorder.keys}
    layers = ("layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", LAYER)
    assert used == {f"{layer}.default" for layer in layers}


def test_without_names_every_layer_uses_the_device(model, tokens, recorder):
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, runner=recorder)
    with torch.no_grad():
        model(tokens)
    assert len({key.module for key in recorder.keys}) == 2 * 2


def test_none_puts_the_model_back_onto_the_simulator(model, tokens, recorder):
    with torch.no_grad():
        before = model(tokens).logits
        qpeft.set_quantum_device(model, LocalDevice(), shots=20, runner=recorder)
        assert not torch.equal(model(tokens).logits, before)
        sent = recorder.num_circuits
        assert qpeft.set_quantum_device(model, None) is None
        assert torch.equal(model(tokens).logits, before)
    assert recorder.num_circuits == sent


def test_a_new_choice_replaces_the_old_one(model, tokens, recorder):
    first = Recorder()
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, layers=["v_proj"], runner=first)
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, layers=["q_proj"], runner=recorder)
    with torch.no_grad():
        model(tokens)
    assert first.keys == []
    assert {key.module.split(".")[-2] for key in recorder.keys} == {"q_proj"}


def test_calls_are_numbered_within_their_step_and_repeated_ones_keep_their_number(model, tokens, recorder):
    evaluator = qpeft.set_quantum_device(
        model, LocalDevice(), shots=10, gradient=Spsa(), layers=[LAYER], runner=recorder
    )
    loss(model, tokens).backward()
    loss(model, tokens.flip(1))
    loss(model, tokens)
    evaluator.begin_step(5)
    loss(model, tokens.flip(1))
    numbers = [(key.step, key.call, key.part) for key in recorder.keys]
    assert numbers == [(0, 0, "values"), (0, 0, "gradient"), (0, 1, "values"), (0, 0, "values"), (5, 0, "values")]


def test_a_call_is_new_if_any_angle_or_weight_differs(model, recorder):
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, layers=[LAYER], runner=recorder)
    bottleneck = bottleneck_of(model)
    with torch.no_grad():
        for change in (0.0, 0.0, 1e-6):
            bottleneck(torch.tensor([[0.0, 0.0, 0.0, change]]))
        bottleneck.weights[1, -1] += 1e-3
        bottleneck(torch.zeros(1, 4))
    assert [key.call for key in recorder.keys] == [0, 0, 1, 2]


def test_gradient_checkpointing_repeats_a_call_under_its_key(model, recorder):
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="spsa", layers=[LAYER], runner=recorder)
    h = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    checkpoint(bottleneck_of(model), h, use_reentrant=False).sum().backward()
    numbers = [(key.call, key.part) for key in recorder.keys]
    assert numbers == [(0, "values"), (0, "values"), (0, "gradient")]


def test_without_a_gradient_training_raises_and_evaluating_does_not(model, tokens):
    qpeft.set_quantum_device(model, LocalDevice(), shots=10, layers=[LAYER])
    with torch.no_grad():
        model(tokens)
    with pytest.raises(GradientError, match="circuits per input"):
        loss(model, tokens).backward()


def test_the_choice_is_neither_saved_nor_copied(model, tokens, tmp_path, recorder):
    model.save_pretrained(tmp_path / "before")
    names = set(model.state_dict())
    qpeft.set_quantum_device(model, LocalDevice(), shots=10, runner=recorder)
    model.save_pretrained(tmp_path / "after")
    assert set(model.state_dict()) == names
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    for other in (copy.deepcopy(bottleneck_of(model)), pickle.loads(pickle.dumps(bottleneck_of(model)))):
        other(torch.zeros(1, 4))
    assert recorder.keys == []
    bottleneck_of(model)(torch.zeros(1, 4))
    assert recorder.keys != []


def test_half_precision_layers_keep_their_type(adapt, shake, tokens):
    model = shake(adapt(num_qubits=2).bfloat16())
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, layers=[LAYER], gradient="simulated")
    values = bottleneck_of(model)(torch.zeros(3, 4, dtype=torch.bfloat16))
    assert values.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["v_prj"]}, AdapterError, "No layer with circuits is called 'v_prj'; did you mean 'v_proj'"),
        ({"layers": ["roj"]}, AdapterError, "No layer with circuits is called 'roj'"),
        ({"layers": [LAYER, "zzzzzz"]}, AdapterError, r"'zzzzzz'\. They are: .*v_proj"),
        ({"layers": LAYER}, AdapterError, "Write layers="),
        ({"layers": []}, AdapterError, "names no layer"),
        ({"gradient": "shift"}, GradientError, "no gradient 'shift'"),
        ({"shots": 0}, ShotsError, "got 0"),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(model, tokens, recorder, options, error, message):
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, layers=[LAYER], runner=recorder)
    with pytest.raises(error, match=message):
        qpeft.set_quantum_device(model, LocalDevice(), **options)
    bottleneck_of(model)(torch.zeros(1, 4))
    assert recorder.keys != []


def test_a_device_that_is_too_small_is_refused(model):
    with pytest.raises(DeviceError, match="local has 1 qubits; the circuit needs 2"):
        qpeft.set_quantum_device(model, LocalDevice(num_qubits=1))


def test_layers_without_a_circuit_are_refused(adapt):
    with pytest.raises(AdapterError, match="no circuit"):
        qpeft.set_quantum_device(adapt(bottleneck="mlp"), LocalDevice())


def test_a_model_without_qtha_is_refused(make_model):
    with pytest.raises(AdapterError, match="no QTHA layer"):
        qpeft.set_quantum_device(make_model(), None)


def test_an_unknown_name_in_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'set_quantum_devise'"):
        _ = qpeft.set_quantum_devise


def test_a_frozen_circuit_sends_nothing_for_its_weights(one_linear, recorder):
    config = QthaConfig(rank=2, target_modules=["layer"], bottleneck="frozen_circuit", init_seed=0)
    model = get_peft_model(one_linear(), config)
    torch.nn.init.normal_(model.base_model.model.layer.qtha_branch["default"].up.operator.cores[-1])
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="parameter-shift", runner=recorder)
    circuit = model.base_model.model.layer.qtha_branch["default"].middle.circuit
    model(torch.randn(3, 12, generator=torch.Generator().manual_seed(0))).sum().backward()
    backward = backward_circuits(circuit, "parameter-shift", 3, weights=False)
    assert recorder.num_circuits == forward_circuits(circuit, 3) + backward


PROGRAM = """
import sys
import torch
import qpeft
from peft import get_peft_model

assert not any(name.startswith("qpeft.devices") for name in sys.modules), "devices are loaded at import"


class OneLinear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(12, 10)

    def forward(self, x):
        return self.layer(x)


torch.manual_seed(0)
model = get_peft_model(OneLinear(), qpeft.QthaConfig(rank=4, num_qubits=2, target_modules=["layer"]))
for name, weight in model.named_parameters():
    if "qtha_" in name:
        torch.nn.init.normal_(weight, std=0.5)
layer, x = model.base_model.model.layer, torch.randn(3, 12)
broken, whole = (torch.compile(layer, backend=backend, fullgraph=full)
                 for backend, full in (("aot_eager", False), ("eager", True)))
expected = broken(x)
assert torch.allclose(whole(x), expected, atol=1e-5)

from qpeft.devices import LocalDevice, run_now
sent = []


def runner(device, circuits, shots, *, key):
    sent.append(key)
    return run_now(device, circuits, shots, key=key)


for _ in range(2):
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="simulated", runner=runner)
    sent.clear()
    assert torch.allclose(broken(x), expected, atol=1e-5)
    assert len(sent) == 1, sent
    broken(x).sum().backward()
    try:
        whole(x)
        raise SystemExit("one graph was made of a device")
    except torch._dynamo.exc.Unsupported as error:
        assert "torch.compiler.disable" in str(error), error
    qpeft.set_quantum_device(model, None)
    sent.clear()
    assert torch.allclose(broken(x), expected, atol=1e-5)
    assert torch.allclose(whole(x), expected, atol=1e-5)
    assert not sent
# Here, because the checks of types that tests switch on would refuse it first.
try:
    qpeft.set_quantum_device(model, "local")
    raise SystemExit("a name was taken for a device")
except qpeft.QpeftError as error:
    assert "load_device" in str(error)
print("equal")
"""


@pytest.mark.slow
def test_compiled_layers_leave_their_graph_for_the_device_and_come_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr
