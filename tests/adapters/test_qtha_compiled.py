"""torch.compile: the whole layer in one graph, circuit included, with the same values and gradients.

Compiled in a new process, since the checks of shapes that tests switch on are no code for a compiler; with torch's own
back end that needs no C++ compiler.
"""

import subprocess
import sys

import pytest
import torch

from qpeft.circuits import ansatz
from qpeft.simulation import expectations
from qpeft.simulation.layer import register, traced_expectations

PROGRAM = """
import torch
from peft import get_peft_model
from qpeft import QthaConfig
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
base = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="eager"))
config = QthaConfig(rank=4, num_qubits=2, target_modules=["q_proj", "v_proj"], dropout=0.0)
model = get_peft_model(base, config)
for name, weight in model.named_parameters():
    if "qtha_" in name:
        torch.nn.init.normal_(weight, std=0.5)

def run(module, x):
    model.zero_grad()
    values = logits(module, x)
    values.square().sum().backward()
    return [values.detach(), *(w.grad.clone() for w in model.parameters() if w.grad is not None)]

def logits(module, x):
    out = module(x)
    return out if isinstance(out, torch.Tensor) else out.logits


layer = model.base_model.model.model.layers[0].self_attn.q_proj
for target, x in ((layer, torch.randn(3, 5, 32)), (model.base_model.model, torch.randint(0, 64, (2, 7)))):
    model.train()
    compiled = torch.compile(target, backend="aot_eager", fullgraph=True)
    plain, traced = run(target, x), run(compiled, x)
    assert len(plain) > 5
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(plain, traced, strict=True))
    model.eval()
    with torch.no_grad():
        before = logits(target, x)
        assert torch.allclose(logits(compiled, x), before, atol=1e-5)
        layer.qtha_branch["default"].down.bottleneck.mul_(2)
        after = logits(target, x)
        assert torch.allclose(logits(compiled, x), after, atol=1e-5)
        assert not torch.allclose(before, after)
print("equal")
"""

CONTROLS = """
import torch
from qpeft import QthaConfig
from qpeft.adapters.qtha.branch import QthaBranch

for bottleneck in ("hilbert", "sinusoid", "mlp", "classical_form"):
    config = QthaConfig(rank=4, bottleneck=bottleneck, ansatz="ring_cz")
    branch = QthaBranch(config, 12, 10, rank=4, scaling=1.0)
    for weight in branch.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    x = torch.randn(3, 12)
    compiled = torch.compile(branch, backend="aot_eager", fullgraph=True)
    values = [module(x) for module in (branch, compiled)]
    gradients = [torch.autograd.grad(value.square().sum(), list(branch.parameters())) for value in values]
    for plain, traced in zip((values[0], *gradients[0]), (values[1], *gradients[1]), strict=True):
        assert torch.allclose(plain, traced, atol=1e-4, rtol=1e-4), bottleneck
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [PROGRAM, CONTROLS], ids=["circuits", "controls"])
def test_one_graph_holds_layer_or_model_and_gives_equal_values_and_gradients(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


def test_the_operator_is_what_torch_asks_of_operators():
    circuit = ansatz.ring_crz(3)
    generator = torch.Generator().manual_seed(0)
    angles = torch.randn(5, 3, generator=generator, requires_grad=True)
    weights = torch.randn(12, generator=generator, requires_grad=True)
    torch.library.opcheck(torch.ops.qpeft.expectations, (register(circuit), angles, weights))


def test_the_operator_has_the_values_and_gradients_of_the_simulator():
    circuit = ansatz.ring_cz(3, depth=2)
    generator = torch.Generator().manual_seed(0)
    angles = torch.randn(2, 5, 3, generator=generator, requires_grad=True)
    weights = torch.randn(circuit.num_weights, generator=generator, requires_grad=True)
    into = torch.randn(2, 5, 3, generator=generator)
    direct, traced = expectations(circuit, angles, weights), traced_expectations(register(circuit), angles, weights)
    assert torch.equal(direct, traced)
    for one, other in zip(
        torch.autograd.grad(direct, (angles, weights), into),
        torch.autograd.grad(traced, (angles, weights), into),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_keys_tell_circuits_apart_and_equal_ones_together():
    assert register(ansatz.ring_crz(3)) == register(ansatz.ring_crz(3))
    assert register(ansatz.ring_crz(3)) != register(ansatz.ring_crz(3, depth=2))
