"""torch.compile: the whole layer in one graph, circuit included, with the same values and gradients.

Compiled in new processes, since the checks of shapes that tests switch on are no code for a compiler; with torch's own
back end that needs no C++ compiler.
"""

import subprocess
import sys

import pytest
import torch

from qpeft.adapters.qtha.traced import register, traced_expectations
from qpeft.circuits import ansatz
from qpeft.simulation import expectations

PROGRAM = """
import sys, torch
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
    out = module(x)
    (out if isinstance(out, torch.Tensor) else out.logits).square().sum().backward()
    values = out if isinstance(out, torch.Tensor) else out.logits
    return [values.detach(), *(w.grad.clone() for w in model.parameters() if w.grad is not None)]

target = model.base_model.model.model.layers[0].self_attn.q_proj if sys.argv[1] == "layer" else model.base_model.model
x = torch.randn(3, 5, 32) if sys.argv[1] == "layer" else torch.randint(0, 64, (2, 7))
compiled = torch.compile(target, backend="aot_eager", fullgraph=True)
plain, traced = run(target, x), run(compiled, x)
assert len(plain) > 5
assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(plain, traced, strict=True))
model.eval()
with torch.no_grad():
    first, second = target(x), compiled(x)
    first, second = (v if isinstance(v, torch.Tensor) else v.logits for v in (first, second))
    assert torch.allclose(first, second, atol=1e-5)
    model.base_model.model.model.layers[0].self_attn.q_proj.qtha_branch["default"].down.bottleneck.mul_(2)
    third, fourth = target(x), compiled(x)
    third, fourth = (v if isinstance(v, torch.Tensor) else v.logits for v in (third, fourth))
    assert torch.allclose(third, fourth, atol=1e-5) and not torch.allclose(first, third)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["layer", "model"])
def test_one_graph_holds_layer_and_circuit_and_gives_equal_values_and_gradients(part):
    done = subprocess.run([sys.executable, "-c", PROGRAM, part], capture_output=True, text=True, check=False)
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
