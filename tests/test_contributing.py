"""The worked examples of CONTRIBUTING.md do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from qpeft.circuits import Circuit, Input, Operation, Weight, gates
from qpeft.devices import LocalDevice, device_expectations, load_device
from qpeft.devices.registry import DEVICES
from qpeft.simulation import expectations

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


X, Y, Z = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])


def turn(generator, angle):
    return scipy.linalg.expm(-0.5j * angle * generator)


def rzx_by_hand(first, second, weight, last):
    """Values of ZI, IZ and XY after the circuit of the test of the gate, from dense matrices."""
    state = np.kron(turn(Y, first)[:, 0], turn(X, second)[:, 0])
    state = np.kron(np.eye(2), turn(Y, last)) @ turn(np.kron(Z, X), weight) @ state
    observables = [np.kron(Z, np.eye(2)), np.kron(np.eye(2), Z), np.kron(X, Y)]
    return [(state.conj() @ observable @ state).real for observable in observables]


def test_there_is_an_example_of_each():
    assert list(EXAMPLES) == ["gate", "method", "device", "task"]


def test_a_gate_is_simulated_differentiated_and_run_by_its_row_alone(monkeypatch):
    gate = eval(EXAMPLES["gate"].strip(), vars(gates))
    monkeypatch.setitem(gates.GATES, gate.name, gate)
    operations = [
        Operation("RY", (0,), Input(0)),
        Operation("RX", (1,), Input(1)),
        Operation(gate.name, (0, 1), Weight(0)),
        Operation("RY", (1,), Weight(1)),
    ]
    circuit = Circuit(2, tuple(operations), ("ZI", "IZ", "XY"))
    inputs, weights = torch.tensor([[0.3, -1.1]], dtype=torch.float64), torch.tensor([0.7, 0.2], dtype=torch.float64)
    weights.requires_grad_()
    values = expectations(circuit, inputs, weights)
    np.testing.assert_allclose(values[0].detach().numpy(), rzx_by_hand(0.3, -1.1, 0.7, 0.2), atol=1e-9)
    (slope,) = torch.autograd.grad(values.sum(), weights)
    found = device_expectations(circuit, inputs, weights, LocalDevice(), None, gradient="parameter-shift").values
    (shifted,) = torch.autograd.grad(found.sum(), weights)
    torch.testing.assert_close(slope, shifted, atol=1e-6, rtol=1e-5)


def test_a_method_trains_merges_and_is_known_to_recipes(tmp_path):
    program = (
        EXAMPLES["method"]
        + """
from peft import get_peft_model
from qpeft.adapters.build import build_config
config = build_config("shift", {"task_type": None, "target_modules": ["0"]})
model = get_peft_model(nn.Sequential(nn.Linear(4, 3)), config)
x = torch.randn(5, 4)
before = model(x)
model(x).sum().backward()
with torch.no_grad():
    for weight in model.parameters():
        if weight.requires_grad:
            weight -= weight.grad
after = model(x)
assert not torch.allclose(before, after)
torch.testing.assert_close(model.merge_and_unload()(x), after)
"""
    )
    file = tmp_path / "shift.py"
    file.write_text(program)
    subprocess.run([sys.executable, str(file)], check=True)


def test_a_device_is_loaded_by_its_row(tmp_path, monkeypatch):
    (tmp_path / "upside_down.py").write_text(EXAMPLES["device"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DEVICES, "upside_down", "upside_down:UpsideDown")
    circuit = Circuit(2, (Operation("RY", (0,), Input(0)),))
    inputs = torch.tensor([[0.4]])
    found = device_expectations(circuit, inputs, torch.empty(0), load_device("upside_down", seed=1), None).values
    torch.testing.assert_close(found, -expectations(circuit, inputs, torch.empty(0)))


def test_a_task_is_known_to_recipes_and_their_schema_by_its_row(tmp_path):
    program = (
        EXAMPLES["task"]
        + """
from qpeft.evaluation.tasks import TASKS
TASKS[YesOrNo.name] = YesOrNo()
from qpeft.training.config import parse_recipe, recipe_schema
values = {"model": {"name": "m"}, "data": {"train": "t"}, "output": {"folder": "o"}}
values["evaluation"] = {"task": "yes_or_no"}
assert parse_recipe(values, source="test").evaluation.task_name == "yes_or_no"
assert "yes_or_no" in str(recipe_schema())
assert TASKS["yes_or_no"].grade("Yes, it is.", "yes") == {"agrees": 1.0}
"""
    )
    file = tmp_path / "yes_or_no.py"
    file.write_text(program)
    subprocess.run([sys.executable, str(file)], check=True)


@pytest.mark.parametrize("word", ["gates.py", "adapters/__init__.py", "`DEVICES`", "`TASKS`"])
def test_the_page_says_where_the_row_goes(word):
    assert word in PAGE
