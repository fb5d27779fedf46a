"""An adapter acts on every layer it stands on, or is refused by name before it is made; so are names of nothing."""

import ast
import copy
import logging
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn

from qpeft import QthaConfig
from qpeft.adapters import ADAPTERS
from qpeft.adapters.base.targets import READERS, check_targets, unfit_layers
from qpeft.adapters.build import add_adapter, build_config
from qpeft.errors import AdapterError

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def language_model(name, **options):
    """A small model of transformers with random weights, by the name of its architecture."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(SMALL | options))
    return getattr(transformers, f"{name}ForCausalLM")(config)


class Around(nn.Module):
    """A model around one block."""

    def __init__(self, block):
        super().__init__()
        self.block, self.head = block, nn.Linear(16, 16)

    def forward(self, x):
        return self.head(self.block(x))


def encoder(**options):
    return Around(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, **({"batch_first": True} | options)))


@pytest.fixture(params=[*ADAPTERS, "lora"])
def method(request):
    return request.param


@pytest.fixture
def config(method):
    """A function from options to a small config of the method."""

    def make(**options):
        rank = {"lora": {"r": 4}, "quanta": {}, "cayley": {"num_qubits": 2}}.get(method, {"rank": 4})
        return build_config(method, {"task_type": None, **rank, **options})

    return make


# Layers that are read and not called


def test_the_output_of_torchs_attention_is_refused_by_name(config):
    # Torch's own: without the check, the adapter changes nothing whatever its weights, and gets no gradient.
    message = r"'block.self_attn.out_proj': .* MultiheadAttention .*never called.*exclude_modules"
    with pytest.raises(AdapterError, match=message):
        add_adapter(encoder(batch_first=False), config(target_modules=["out_proj", "head"]))


@pytest.mark.parametrize("target", ["linear1", "linear2"])
def test_layers_of_torchs_encoder_are_refused_where_its_fast_path_skips_them(config, target):
    with pytest.raises(AdapterError, match=rf"'block.{target}': .*set_fastpath_enabled\(False\)"):
        add_adapter(encoder(), config(target_modules=[target]))


@pytest.mark.parametrize(
    "slow", [{"batch_first": False}, {"bias": False}, {"activation": nn.functional.silu}], ids=" ".join
)
def test_layers_of_an_encoder_without_fast_path_act_in_evaluation_mode(config, slow):
    base, x = encoder(**slow).eval(), torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = base(x)
        model = add_adapter(base, config(target_modules=["linear1"]))
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        assert not torch.allclose(model(x), before, atol=1e-3)


def test_the_fast_path_can_be_turned_off(config):
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        add_adapter(encoder(), config(target_modules=["linear1"]))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_pefts_adapter_of_a_whole_attention_is_refused_where_the_fast_path_skips_it():
    with pytest.raises(AdapterError, match=r"'block.self_attn': .*fast path"):
        add_adapter(encoder(), LoraConfig(target_modules=["self_attn"]))
    add_adapter(encoder(batch_first=False), LoraConfig(target_modules=["self_attn"]))


SSM = {"state_size": 8, "expand": 2, "conv_kernel": 4}
MAMBA_2 = SSM | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4}


@pytest.mark.parametrize(
    ("architecture", "options", "target", "instead"),
    [
        ("Mamba", SSM, "out_proj", "in_proj"),
        ("Mamba", SSM, "x_proj", "in_proj"),
        ("Mamba", SSM, "dt_proj", "in_proj"),
        ("FalconMamba", SSM, "dt_proj", "in_proj"),
        ("Mamba2", MAMBA_2, "out_proj", "in_proj"),
        (
            "Bamba",
            {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "attn_layer_indices": [1]},
            "out_proj",
            "in_proj",
        ),
        ("Jamba", {"mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1}, "dt_proj", "x_proj"),
        ("Rwkv", {"attention_hidden_size": 32, "num_hidden_layers": 8}, "feed_forward.value", "rescale_every=0"),
        ("Bloom", {"n_layer": 2, "n_head": 4, "pretraining_tp": 2, "slow_but_exact": True}, "dense", "slow_but_exact"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_state_space_layers_whose_weight_is_read_are_refused_by_name(architecture, options, target, instead):
    with pytest.raises(AdapterError, match=rf"{target}'.*not always.*{instead}"):
        add_adapter(language_model(architecture, **options), QthaConfig(rank=4, target_modules=[target]))


@pytest.mark.parametrize("architecture", ["Mamba", "FalconMamba", "Jamba"])
def test_the_table_is_right_that_dt_proj_is_never_called(architecture):
    model, called = (
        language_model(architecture, **SSM, mamba_dt_rank=4, attn_layer_period=2, attn_layer_offset=1),
        set(),
    )
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    for training in (True, False):
        model.train(training)(torch.randint(3, 60, (2, 8)))
    ends = {name.rpartition(".")[2] for name in called}
    assert "in_proj" in ends
    assert "dt_proj" not in ends


def test_the_table_is_right_that_rwkv_rescales_weights_and_not_updates():
    # The same numbers in training and in evaluation mode without an adapter, and other ones with it.
    x, apart = torch.randint(3, 60, (1, 8)), {}
    for adapted in (False, True):
        model = language_model("Rwkv", attention_hidden_size=32, num_hidden_layers=8)
        if adapted:
            model = get_peft_model(model, LoraConfig(target_modules=["feed_forward.value"], init_lora_weights=False))
        with torch.no_grad():
            apart[adapted] = (model.train()(x).logits - model.eval()(x).logits).abs().max()
    assert apart[False] < 1e-4
    assert apart[True] > 1e-2


def test_an_adapter_that_is_only_loaded_is_not_refused_but_named(caplog):
    config = QthaConfig(rank=4, target_modules=["linear1", "head"], inference_mode=True)
    with caplog.at_level(logging.WARNING, logger="qpeft"):
        get_peft_model(encoder(), config)
    assert "The adapter stands on 'block.linear1'" in caplog.text


def test_models_with_the_way_of_transformers_are_checked_too():
    with pytest.raises(AdapterError, match="would not act"):
        inject_adapter_in_model(QthaConfig(rank=4, target_modules=["out_proj"]), encoder())


# Every linear layer of transformers whose weight is read is in the table: its source says so.

HARMLESS = {
    # The type of the weight is asked for, nothing else.
    ("NllbMoeDenseActDense", "fc2"),
    ("SeamlessM4TFeedForwardNetwork", "fc2"),
    ("SeamlessM4Tv2FeedForwardNetwork", "fc2"),
    *((kind, "wo") for kind in ("T5", "UMT5", "Pop2Piano", "Udop") for kind in (f"{kind}DenseActDense",)),
    *((kind, "wo") for kind in ("T5", "UMT5", "Pop2Piano", "Udop") for kind in (f"{kind}DenseGatedActDense",)),
    ("SwitchTransformersDenseActDense", "wo"),
    ("Kosmos2_5VisionMlp", "wo"),
    ("LongT5DenseActDense", "wo"),
    ("LongT5DenseGatedActDense", "wo"),
    ("MT5DenseActDense", "wo"),
    ("MT5DenseGatedActDense", "wo"),
    ("Pix2StructVisionMlp", "wo"),
    ("Pix2StructTextDenseGatedActDense", "wo"),
    # Only with z_steps, which no published model has.
    ("DisentangledSelfAttention", "in_proj"),
}


def linear_weights_read(source):
    """(class, child) for each linear child whose weight a method of the class reads, but for those that set it up."""
    for kind in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)):
        linear = {
            target.attr
            for node in ast.walk(kind)
            if isinstance(node, ast.Assign) and "nn.Linear(" in ast.unparse(node.value)
            for target in node.targets
            if isinstance(target, ast.Attribute)
        }
        for method in (node for node in kind.body if isinstance(node, ast.FunctionDef) and "init" not in node.name):
            inner = {id(node.value): node.attr for node in ast.walk(method) if isinstance(node, ast.Attribute)}
            for node in ast.walk(method):
                is_weight = isinstance(node, ast.Attribute) and node.attr == "weight"
                is_read = inner.get(id(node)) not in ("dtype", "device", "shape", "data")
                if is_weight and is_read and isinstance(node.value, ast.Attribute) and node.value.attr in linear:
                    yield kind.name, node.value.attr


def test_the_table_holds_every_linear_layer_of_transformers_that_is_read_and_not_called():
    models = Path(transformers.__file__).parent / "models"
    found = {
        read
        for file in models.glob("*/modeling_*.py")
        for read in linear_weights_read(file.read_text(encoding="utf-8"))
    }
    assert len(found) > 30
    known = {(kind, layer) for kind, reader in READERS.items() for layer in reader.layers}
    assert found - known - HARMLESS == set()


# Linear layers that return something else than their output

MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
WITH_ROUTERS = {
    "Phimoe": MOE,
    "Mixtral": MOE,
    "GraniteMoe": MOE,
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "Qwen2Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
}


class Doubled(nn.Linear):
    """Linear, with a forward pass of its own."""

    def forward(self, x):
        return 2 * (x @ self.weight.T) + self.bias


class Pair(nn.Linear):
    """Not a tensor."""

    def forward(self, x):
        return super().forward(x), x


class Grouped(nn.Linear):
    """Each of two groups of rows goes through a part of the weight, as in DeepSeek-V4."""

    def forward(self, x):
        halves = x.reshape(-1, 2, self.in_features).transpose(0, 1) @ self.weight.view(2, -1, self.in_features).mT
        return halves.transpose(0, 1).reshape(*x.shape[:-2], 2, -1)


@pytest.mark.parametrize("kind", [Pair, Grouped])
def test_a_linear_layer_with_another_output_is_refused_in_one_sentence(config, kind):
    with pytest.raises(AdapterError, match=rf"'block': it is a {kind.__name__}, which returns .*exclude_modules"):
        add_adapter(Around(kind(16, 16)), config(target_modules=["block", "head"]))


def test_a_linear_layer_with_a_forward_pass_of_its_own_is_as_good_as_any(config):
    model = add_adapter(Around(Doubled(16, 16)), config(target_modules=["block"]))
    assert model(torch.ones(2, 16)).shape == (2, 16)


def test_looking_for_odd_layers_draws_no_random_number_and_keeps_no_gradient():
    model = language_model("Phimoe", **MOE, input_jitter_noise=0.1)
    before = torch.get_rng_state()
    found = unfit_layers(model.train())
    assert sorted(found) == ["model.layers.0.mlp.router", "model.layers.1.mlp.router"]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # which PEFT itself adds for experts
@pytest.mark.parametrize("architecture", WITH_ROUTERS)
def test_all_linear_leaves_routers_alone_and_trains(config, method, architecture, caplog):
    model = language_model(architecture, **WITH_ROUTERS[architecture])
    with caplog.at_level(logging.WARNING, logger="qpeft"):
        # Quantum-PEFT's rank cannot be above the one output of this gate.
        odd = {"exclude_modules": ["shared_expert_gate"]} if architecture == "Qwen2Moe" else {}
        adapted = add_adapter(model, config(target_modules="all-linear", **odd))
    assert ("all-linear leaves out" in caplog.text) == (architecture == "Phimoe")
    names = {name.rpartition(".")[2] for name in adapted.targeted_module_names}
    assert names.isdisjoint({"router", "gate", "lm_head"})
    assert {"q_proj", "v_proj", "o_proj"} <= names
    tokens = torch.randint(3, 60, (2, 8))
    adapted(input_ids=tokens, labels=tokens).loss.backward()


def test_a_router_that_is_no_linear_layer_is_refused_by_name():
    with pytest.raises(AdapterError, match=r"'model.layers.0.mlp.gate' is a MixtralTopKRouter"):
        add_adapter(language_model("Mixtral", **MOE), QthaConfig(rank=4, target_modules=["gate"]))


@pytest.mark.parametrize(("name", "options"), [("Llama4Router", {"num_local_experts": 4}), ("Grouped", {})])
def test_routers_and_grouped_layers_of_transformers_are_known_for_what_they_are(name, options):
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4GroupedLinear
    from transformers.models.llama4.modeling_llama4 import Llama4Router

    router = Llama4Router(transformers.Llama4TextConfig(hidden_size=16, **options))
    layer = router if name == "Llama4Router" else DeepseekV4GroupedLinear(16, 16, n_groups=4)
    assert list(unfit_layers(Around(layer))) == ["block"]


def test_a_wrapper_around_a_linear_layer_is_refused_and_names_the_layer_inside(config):
    """As the clipped layers of Gemma 4's encoders; PEFT's own methods refuse it in their words."""
    from transformers.models.gemma4 import Gemma4VisionConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4ClippableLinear

    def model():
        return Around(Gemma4ClippableLinear(Gemma4VisionConfig(), 16, 16))

    with pytest.raises(AdapterError, match=r"Gemma4ClippableLinear"):
        add_adapter(model(), config(target_modules=["block"]))
    with pytest.raises(AdapterError, match=r"'block' is a Gemma4ClippableLinear.*Inside it 'block.linear' is a linear"):
        add_adapter(model(), QthaConfig(rank=4, target_modules=["block"]))
    adapted = add_adapter(model(), config(target_modules="all-linear"))
    assert sorted(adapted.targeted_module_names) == ["block.linear", "head"]


def test_all_linear_on_a_model_with_nothing_else_says_so(config):
    with pytest.raises(AdapterError, match="all-linear finds no layer that it could adapt but 'block': it is a Pair"):
        add_adapter(Around(Pair(16, 16)), config(target_modules="all-linear", exclude_modules=["head"]))


def test_what_all_linear_left_out_is_left_out_again_when_the_adapter_is_loaded(tmp_path):
    from peft import PeftModel

    adapted = add_adapter(language_model("Phimoe", **MOE), QthaConfig(rank=4, target_modules="all-linear"))
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(language_model("Phimoe", **MOE), tmp_path)
    assert set(again.targeted_module_names) == set(adapted.targeted_module_names)


# Names of nothing


@pytest.fixture
def llama():
    return language_model("Llama")


TWO = {"target_modules": ["q_proj", "v_proj"]}


@pytest.mark.parametrize("via", [get_peft_model, add_adapter, check_targets])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (TWO | {"modules_to_save": ["lm_haed"]}, r"modules_to_save names 'lm_haed'.*nearest is 'lm_head'"),
        (TWO | {"layers_to_transform": [7]}, r"layer 7, in which target_modules has nothing: their layers are 0 to 1"),
        (TWO | {"layers_to_transform": [0, 2]}, r"layer 2, .*counted from 0"),
        (TWO | {"layers_to_transform": -1}, r"layer -1"),
        (TWO | {"layers_to_transform": 0, "layers_pattern": "blocks"}, r"by layers_pattern 'blocks'"),
        (TWO | {"exclude_modules": ["q_porj"]}, r"exclude_modules names 'q_porj'"),
        (
            TWO | {"exclude_modules": "q_proj"},
            r"exclude_modules is the single string 'q_proj'.*Write a list: \[q_proj\]",
        ),
        (
            {"target_modules": "q_proj"},
            r"single string 'q_proj', .* such as 'model.layers.0.self_attn.q_proj', .* Write a list: \[q_proj\]\.",
        ),
        ({"target_modules": "q_proj, v_proj"}, r"Write a list: \[q_proj, v_proj\]"),
        ({"target_modules": "query"}, r"Write a list of last parts of names; .* called q_proj, "),
    ],
    ids=str,
)
def test_what_matches_nothing_is_an_error(llama, config, via, options, sentence):
    made = config(**options)
    if via is get_peft_model and not isinstance(made, tuple(kind for kind, _ in ADAPTERS.values())):
        pytest.skip("PEFT's own methods, by PEFT itself")
    with pytest.raises(AdapterError, match=sentence):
        via(llama, made)
    assert not any("branch" in name or "lora" in name for name, _ in llama.named_modules())


def test_a_target_outside_the_layers_that_are_chosen_is_an_error(llama, config):
    made = config(target_modules=["q_proj", "lm_head"], layers_to_transform=[0])
    with pytest.raises(AdapterError, match=r"layers_to_transform leaves out 'lm_head', which target_modules names"):
        add_adapter(Around(llama), made)


@pytest.mark.parametrize("option", ["target_modules", "exclude_modules"])
def test_a_string_that_is_no_regular_expression_is_refused(llama, config, option):
    with pytest.raises(AdapterError, match=rf"{option} '\(q_proj' is no regular expression: missing \)"):
        check_targets(llama, config(**(TWO | {option: "(q_proj"})))


def test_one_name_where_a_list_is_needed_is_an_error(llama, config):
    made = config(**TWO)
    made.modules_to_save = "lm_head"
    with pytest.raises(AdapterError, match=r"modules_to_save must be a list; got 'lm_head'. Write \[lm_head\]"):
        add_adapter(llama, made)


@pytest.mark.parametrize(("option", "value"), [("rank_pattern", 2), ("alpha_pattern", 2.0)])
def test_a_pattern_for_a_layer_that_is_not_adapted_is_an_error(llama, method, config, option, value):
    if method in ("quanta", "quantum_weighted", "cayley"):
        pytest.skip("has no such pattern")
    with pytest.raises(AdapterError, match=rf"{option} has a value for 'k_proj', .* called q_proj, v_proj"):
        add_adapter(llama, config(**TWO, **{option: {"k_proj": value}}))
    add_adapter(llama, config(**TWO, **{option: {r"layers\.0\..*q_proj": value}}))


def test_a_parameter_that_is_not_there_is_an_error(llama):
    with pytest.raises(AdapterError, match=r"target_parameters names 'experts.gate_up_porj'"):
        add_adapter(llama, LoraConfig(**TWO, target_parameters=["experts.gate_up_porj"]))


def test_what_matches_is_no_error(llama, config):
    adapted = add_adapter(
        llama,
        config(
            target_modules=["q_proj", "v_proj"],
            exclude_modules=["layers.0.self_attn.q_proj"],
            layers_to_transform=[0, 1],
            layers_pattern="layers",
            modules_to_save=["lm_head"],
        ),
    )
    assert sorted(adapted.targeted_module_names) == [
        "model.layers.0.self_attn.v_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]


def test_heads_that_peft_adds_by_itself_need_not_all_be_there():
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SMALL))
    adapted = get_peft_model(model, QthaConfig(rank=4, **TWO, task_type="SEQ_CLS"))
    assert adapted.peft_config["default"].modules_to_save == ["classifier", "score"]


def test_a_saved_adapter_with_names_of_nothing_is_loaded_as_before(llama):
    get_peft_model(llama, QthaConfig(rank=4, **TWO, modules_to_save=["gone"], inference_mode=True))


# Modes


def test_an_adapter_on_a_model_in_evaluation_mode_drops_nothing(config, method):
    dropout = {"lora": "lora_dropout"}.get(method, "dropout")
    base = Around(nn.Linear(16, 16)).eval()
    model = add_adapter(base, config(target_modules=["block"], **{dropout: 0.5}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        x = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
        assert torch.equal(model(x), model(x))
        assert not any(module.training for module in model.modules())
        model.train()
        assert not torch.equal(model(x), model(x))
    model.add_adapter("second", config(target_modules=["block", "head"], **{dropout: 0.5}))
    model.set_adapter("second")
    assert model.base_model.model.block.training


@pytest.mark.parametrize("name", ADAPTERS)
def test_pefts_own_call_leaves_a_model_in_evaluation_mode_too(name):
    options = {} if name in ("quanta", "cayley") else {"rank": 4}
    options |= {"dropout": 0.5, "task_type": None}
    first, second = (build_config(name, {**options, "target_modules": [target]}) for target in ("block", "head"))
    model = get_peft_model(Around(nn.Linear(16, 16)).eval(), first)
    assert not any(module.training for module in model.base_model.modules())
    model.train()
    model.add_adapter("second", second)
    assert model.base_model.model.head.training


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("is_frozen", [True, False])
def test_switching_an_adapter_off_and_on_leaves_frozen_weights_frozen(name, is_frozen):
    options = {} if name in ("quanta", "cayley") else {"rank": 4}
    made = build_config(name, {**options, "target_modules": ["block"], "inference_mode": is_frozen, "task_type": None})
    model = get_peft_model(Around(nn.Linear(16, 16)), made)

    def trained():
        return {key: weight.requires_grad for key, weight in model.named_parameters()}

    before = trained()
    assert any(before.values()) != is_frozen
    with model.disable_adapter():
        assert not any(trained().values())
        with model.disable_adapter():
            pass
    assert trained() == before
    model.base_model.disable_adapter_layers()
    model.set_adapter("default")
    model.base_model.enable_adapter_layers()
    assert any(trained().values())


@pytest.mark.parametrize("name", ADAPTERS)
def test_one_frozen_weight_stays_frozen_beside_trained_ones(name):
    options = {} if name in ("quanta", "cayley") else {"rank": 4}
    made = build_config(name, {**options, "target_modules": ["block"], "task_type": None})
    model = get_peft_model(Around(nn.Linear(16, 16)), made)
    first, *others = [weight for weight in model.parameters() if weight.requires_grad]
    first.requires_grad_(False)
    with model.disable_adapter():
        pass
    assert not first.requires_grad
    assert all(weight.requires_grad for weight in others)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_that_come_later_leave_the_others_frozen_or_trained(name, tmp_path):
    from peft import PeftModel

    options = {"task_type": None} | ({} if name in ("quanta", "cayley") else {"rank": 4})

    def make(*targets):
        return build_config(name, {**options, "target_modules": list(targets)})

    torch.manual_seed(0)
    base = Around(nn.Linear(16, 16))  # one for all: some adapters know the weights that they were made beside
    for folder, targets in (("first", ["block"]), ("second", ["block", "head"])):
        get_peft_model(copy.deepcopy(base), make(*targets)).save_pretrained(tmp_path / folder)
    model = PeftModel.from_pretrained(base, tmp_path / "first")
    model.load_adapter(tmp_path / "second", "second", is_trainable=True)
    model.add_adapter("third", make("head"))
    for _ in range(2):
        for adapter, is_trained in {"default": False, "second": True, "third": False}.items():
            weights = [weight for key, weight in model.named_parameters() if f"_branch.{adapter}." in key]
            assert weights
            assert all(weight.requires_grad == is_trained for weight in weights), adapter
        with model.disable_adapter():
            pass
