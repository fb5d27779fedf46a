"""QTHA and its ablations by name: parameters by the published formulas, and what holds for every one of them."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel, get_peft_model

from qpeft import QthaConfig
from qpeft.adapters.build import PRESETS, build_config, count_layers
from qpeft.adapters.qtha import COMPOSITIONS
from qpeft.adapters.qtha.config import FORMS
from qpeft.errors import AdapterError

DOCS = (Path(__file__).parents[2] / "docs/qtha.md").read_text(encoding="utf-8")
R, L = 10, 2
N, M = 3584, 512
# Sum over four cores of left bond x narrow mode x wide mode x right bond, for 256 = 4.4.4.4 and bonds 1, 8, 8, 8, 1.
P_DOWN = 4 * 8 * 8 + 8 * 4 * 8 * 8 + 8 * 4 * 8 * 8 + 8 * 4 * 7  # 3584 = 8.8.8.7
P_UP = 4 * 8 * 8 + 8 * 4 * 4 * 8 + 8 * 4 * 4 * 8 + 8 * 4 * 4  # 512 = 8.4.4.4
P_QTHA = P_DOWN + P_UP + 512 * R
P_LORA = R * (N + M)
FORMULAS = {
    "no_circuit": P_QTHA + R**2,
    "frozen_circuit": P_QTHA + 2 * R**2,
    "hilbert_twin": P_QTHA + 3 * R**2,
    "sinusoid_twin": P_QTHA + 2 * R**2 + 4 * R * L,
    "constant_twin": P_QTHA + 2 * R**2 + R,
    "tanh_twin": P_QTHA + 2 * R**2 + 4 * R * L,
    "mlp_twin": P_QTHA + 4 * R**2,
    "classical_form": P_QTHA + 2 * R**2 + 2 * R,
    "hadamard_fusion": P_QTHA + 2 * R**2 + 4 * R * L,
    "tensor_network_only": P_DOWN + P_UP,
    "lora_mixing_matrix": P_LORA + R**2,
    "lora_circuit_only": P_LORA + R**2 + 4 * R * L,
    "lora_circuit": P_LORA + 2 * R**2 + 4 * R * L,
    "lora_mlp": P_LORA + 4 * R**2,
}


def test_the_operators_are_those_of_the_published_example():
    assert (P_DOWN, P_UP) == (4_576, 2_432)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_parameters_of_an_ablation_in_the_published_sizes_are_the_formulas(one_linear, name):
    # Without a bottleneck the operators meet at their own inner width.
    rank = 256 if name == "tensor_network_only" else R
    depth = 1 if name == "classical_form" else L
    config = QthaConfig.paper(rank=rank, depth=depth, **COMPOSITIONS[name] | {"target_modules": ["layer"]})
    assert _parameters(one_linear, config) == FORMULAS[name]


def test_the_documented_table_has_every_preset_with_its_blocks_and_its_parameters():
    rows = re.findall(r"^\| `(\w+)` \| `(.+)` \| `([FTD][^`]*)` \|", DOCS, re.MULTILINE)
    assert {name: yaml.safe_load(f"{{{blocks}}}") for name, blocks, _ in rows} == COMPOSITIONS
    for name, _, formula in rows:
        weights = 2 * R if name == "classical_form" else 4 * R * L
        terms = {"F": P_QTHA, "T": P_DOWN + P_UP, "D": P_LORA, "r": R, "w": weights}
        assert eval(formula.replace("^", "**").replace(" r", "*r").replace("+*", "+"), terms) == FORMULAS[name], name


@pytest.mark.parametrize(("layers", "matrices"), [(2, 4), (3, 5), (4, 6)])
def test_each_layer_of_the_mlp_adds_one_matrix(one_linear, layers, matrices):
    config = QthaConfig.preset("lora_mlp", rank=R, mlp_layers=layers, target_modules=["layer"])
    assert _parameters(one_linear, config) == P_LORA + matrices * R**2


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_an_ablation_differs_from_qtha_in_its_blocks_alone(name):
    blocks = {"down", "up", "bottleneck", "classical_path", "fusion", "ansatz"}
    assert COMPOSITIONS[name].keys() <= blocks
    assert QthaConfig.preset(name, rank=4) == QthaConfig(rank=4, **COMPOSITIONS[name])


@pytest.mark.parametrize("name", [*FORMS, *COMPOSITIONS])
def test_recipes_know_every_preset(name):
    options = {"rank": 4, "target_modules": ["v_proj"], "task_type": "CAUSAL_LM"}
    assert build_config("qtha", {"preset": name, **options}) == QthaConfig.preset(name, **options)
    assert list(PRESETS["qtha"]) == [*FORMS, *COMPOSITIONS]


SMOLLM2 = {
    "q_proj": (576, 576),
    "k_proj": (576, 192),
    "v_proj": (576, 192),
    "o_proj": (576, 576),
    "down_proj": (1536, 576),
}


@pytest.mark.parametrize(
    ("form", "modules", "parameters"),
    [
        ("fitted", {"q_proj", "k_proj", "v_proj", "o_proj"}, 94_080),
        ("compact", {"v_proj", "down_proj"}, 86_640),
    ],
)
def test_a_small_form_has_a_fifth_of_loras_parameters_on_smollm2(form, modules, parameters):
    model = torch.nn.ModuleDict({name: torch.nn.Linear(*widths) for name, widths in SMOLLM2.items()})
    config = QthaConfig.preset(form)
    assert config.target_modules == modules
    assert config.alpha == 2 * config.rank
    assert QthaConfig.preset(form, rank=3).alpha == 6
    adapted = get_peft_model(model, config)
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert 30 * trained == parameters
    assert 30 * 8 * (576 + 576 + 576 + 192) == 460_800


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(
        AdapterError, match="qtha has no preset 'no_circuits'; it has paper, fitted, compact, no_circuit"
    ):
        QthaConfig.preset("no_circuits")


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_fresh_ablation_leaves_the_logits_exactly_as_they_were(make_model, tokens, name):
    model = make_model()
    with torch.no_grad():
        before = model(tokens).logits.clone()
        after = get_peft_model(model, _config(name))(tokens).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", COMPOSITIONS)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_an_ablation_returns_from_its_files(make_model, shake, tokens, tmp_path, name, low_cpu_mem_usage):
    model = shake(get_peft_model(make_model(), _config(name))).eval()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    with torch.no_grad():
        logits, base = model(tokens).logits, make_model()(tokens).logits
        assert torch.equal(again(tokens).logits, logits)
    assert not torch.equal(logits, base)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_gradients_reach_every_trained_weight_of_an_ablation(make_model, shake, tokens, name):
    model = shake(get_peft_model(make_model(), _config(name))).train()
    model(tokens, labels=tokens).loss.backward()
    without = [n for n, w in model.named_parameters() if w.requires_grad and not (w.grad is not None and w.grad.any())]
    assert without == []


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_an_ablation_trained_for_a_step_moves_the_loss_down(make_model, tokens, name):
    model = get_peft_model(make_model(), _config(name)).train()
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(tokens, labels=tokens).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


def _config(name):
    return QthaConfig.preset(name, rank=4, target_modules=["q_proj", "v_proj"], init_seed=0, task_type="CAUSAL_LM")


def _parameters(one_linear, config):
    with torch.device("meta"):
        model = one_linear(N, M)
    (kind,) = count_layers(model, config)
    return kind.parameters
