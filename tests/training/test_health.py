"""The health of circuits, against values computed another way, and the warnings made from it."""

import math

import pytest
import torch
from peft import get_peft_model
from rich.console import Console

from qpeft import QthaConfig
from qpeft.adapters.qtha.angles import collect_angles
from qpeft.adapters.qtha.health import CircuitProbe, circuit_branches
from qpeft.models import load_model
from qpeft.simulation import expectations
from qpeft.training import train
from qpeft.training.health_log import CONSTANT_BELOW, VANISHED_BELOW, HealthMonitor, problem_of

IDS = torch.arange(24).reshape(2, 12)
LAYER = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def model(tiny_model):
    """With two circuits of two qubits a layer, whose weights and factors are random."""
    options = {"rank": 4, "num_qubits": 2, "target_modules": ["q_proj", "v_proj"]}
    model = get_peft_model(load_model(str(tiny_model)), QthaConfig(**options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator))
    return model


def backward(model):
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_health_is_what_angles_values_and_gradients_say(model, checkpointing):
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    tokens = torch.ones_like(IDS, dtype=torch.bool)
    tokens[:, 9:] = False
    probe = CircuitProbe(circuit_branches(model), tokens)
    backward(model)
    found = probe.finish()
    assert len(found) == 4
    angles = collect_angles(model, lambda: model(input_ids=IDS, use_cache=False))
    bottleneck = f"base_model.model.{LAYER}.default"
    inputs = angles[bottleneck].inputs.unflatten(0, IDS.shape)[tokens]
    pairs = zip(inputs.unbind(1), angles[bottleneck].weights, strict=True)
    values = torch.cat([expectations(angles[bottleneck].circuit, *pair) for pair in pairs], dim=1)
    branch, inputs = circuit_branches(model)[LAYER], inputs.flatten(1)
    offset = branch.middle.offset
    cores = torch.cat([p.grad.flatten() for p in (*branch.down.parameters(), *branch.up.parameters())])
    health = found[LAYER]
    assert health.angle_spread == pytest.approx(inputs.std(0, correction=0).mean().item(), rel=1e-4)
    assert health.wrapped == pytest.approx(((inputs - offset).abs() > math.pi).float().mean().item())
    assert 0 < health.wrapped < 1
    assert health.variance == pytest.approx(values.var(0, correction=0).mean().item(), rel=1e-4)
    assert health.circuit_gradient == pytest.approx(branch.middle.weights.grad.square().mean().sqrt().item(), rel=1e-4)
    assert health.core_gradient == pytest.approx(cores.square().mean().sqrt().item(), rel=1e-4)


def test_frozen_circuits_have_no_gradient_and_adapters_without_circuits_no_health(tiny_model):
    frozen = get_peft_model(
        load_model(str(tiny_model)), QthaConfig(rank=4, bottleneck="frozen_circuit", target_modules=["q_proj"])
    )
    probe = CircuitProbe(circuit_branches(frozen), torch.ones_like(IDS, dtype=torch.bool))
    backward(frozen)
    assert {health.circuit_gradient for health in probe.finish().values()} == {None}
    without = get_peft_model(
        load_model(str(tiny_model)), QthaConfig(rank=4, bottleneck="none", target_modules=["q_proj"])
    )
    assert circuit_branches(without) == {}


def test_a_layer_whose_circuits_became_constant_is_warned_of_once(model):
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(record=True, file=nowhere, width=300)
        monitor = HealthMonitor(model, every=1, warmup=0, console=console)
        with torch.no_grad():
            for weight in circuit_branches(model)[LAYER].down.parameters():
                weight.zero_()  # every token has the same angles
        for step in (1, 2, 3):
            monitor.begin(step, {"labels": IDS})
            backward(model)
            monitor.on_pre_optimizer_step(None, None, None)
    text = console.export_text()
    assert text.count("have become constant") == 1
    assert f"warning: {LAYER}, step 1" in text
    assert list(monitor.warnings) == [LAYER]
    assert monitor.history[LAYER]["step"] == [1, 2, 3]


def columns(*ratios, variance=0.01):
    return {
        "step": list(range(1, len(ratios) + 1)),
        "variance": [variance] * len(ratios),
        "circuit_gradient": list(ratios),
        "core_gradient": [1.0] * len(ratios),
    }


def test_gradients_have_vanished_after_two_looks_past_the_warmup():
    low, high = VANISHED_BELOW / 2, VANISHED_BELOW * 2
    assert "gradients vanish" in problem_of(columns(low, low, low), warmup=0)
    assert problem_of(columns(low, low, low), warmup=1) is None  # only one look past it
    assert problem_of(columns(low, low, high), warmup=0) is None
    assert problem_of(columns(low, high, low), warmup=0) is None
    assert problem_of(columns(0.1, variance=CONSTANT_BELOW * 2), warmup=0) is None
    assert "constant" in problem_of(columns(0.1, variance=CONSTANT_BELOW / 2), warmup=0)


def test_a_run_stores_health_and_draws_it_and_is_not_changed_by_it(recipe, tmp_path, with_figures):
    def run(folder, every):
        sections = {"evaluation": {"before": False}, "output": {"folder": str(tmp_path / folder)}}
        return train(recipe(training={"health_every": every, "checkpoint_every": None}, **sections)).record

    often, never = run("often", 1), run("never", 1000)
    assert often["health"]["layers"][LAYER]["step"] == [1, 2, 3, 4, 5, 6]
    assert never["health"]["layers"][LAYER]["step"] == [1]
    assert often["health"]["layers"][LAYER]["core_gradient"][0] > 0
    assert (tmp_path / "often/health.png").read_bytes().startswith(b"\x89PNG")
    adapters = [(tmp_path / folder / "adapter_model.safetensors").read_bytes() for folder in ("often", "never")]
    assert adapters[0] == adapters[1]


def test_an_adapter_without_circuits_has_no_health(recipe, tmp_path):
    values = recipe(evaluation={"before": False}).model_dump(mode="json")
    values["adapter"] = {"type": "lora", "r": 2, "target_modules": ["q_proj"]}
    assert train(type(recipe()).model_validate(values)).record["health"] is None
    assert not (tmp_path / "run/health.png").exists()
