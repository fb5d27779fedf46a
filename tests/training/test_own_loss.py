"""What is trained on is the model's own loss, and every adapted layer acts; else nothing is begun."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from qpeft import QthaConfig
from qpeft.adapters.build import add_adapter
from qpeft.data import Encoded, pad_batch
from qpeft.errors import AdapterError, RecipeError
from qpeft.evaluation import loss
from qpeft.evaluation.loss import CausalLoss
from qpeft.training import train
from qpeft.training.dry_run import try_out
from qpeft.training.resume import fingerprint
from qpeft.training.sections import AdapterSection

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS = {
    "Llama": {},
    "RecurrentGemma": {"logits_soft_cap": 3.0, "head_dim": 8, "lru_width": 32, "attention_window_size": 16},
    "Roberta": {"is_decoder": True, "max_position_embeddings": 64},
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0},
    "Cohere": {"logit_scale": 0.3},
    "Granite": {"logits_scaling": 4.0},
    "GraniteMoe": EXPERTS,
    "Phimoe": EXPERTS,
    "Mixtral": EXPERTS,
    "GPTNeoX": {},  # its head is called embed_out
    "FalconMamba": {"state_size": 4},  # returns no keys and values
    "OPT": {"word_embed_proj_dim": 32, "ffn_dim": 48, "max_position_embeddings": 64},
}


def made(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | MODELS[family])
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.fixture(scope="module")
def batch():
    """Three examples of unequal length, half of whose tokens are trained on."""
    draw = torch.Generator().manual_seed(0)
    rows = []
    for length in (21, 9, 15):
        ids = torch.randint(3, 290, (length,), generator=draw).tolist()
        rows.append(Encoded(ids, [-100] * (length // 2) + ids[length // 2 :], 0, (), ""))
    return pad_batch(rows)


def gradients(loss, model):
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def compare(model, batch):
    """The loss in blocks against the model's own, from all of its logits, and so every gradient."""
    inputs = {name: part for name, part in batch.items() if name != "labels"}
    own = model(**batch, use_cache=False).loss
    expected = gradients(own, model)
    loss_of = CausalLoss(model)
    parts = loss_of(model, inputs, batch["labels"])
    assert parts.losses.numel() == (batch["labels"][:, 1:] != -100).sum()
    assert (parts.total / parts.losses.numel()).item() == pytest.approx(own.item(), rel=1e-5)
    found = gradients(parts.total / parts.losses.numel(), model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)
    return loss_of.way


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("at_once", [4, 128])
def test_the_loss_and_its_gradients_are_the_models_own(family, at_once, batch, monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
    model = made(family)
    expected = "tail" if family in {"RecurrentGemma", "Gemma2", "Cohere", "Granite"} else "head"
    # Every weight trained, tied ones included; then only an adapter's, as in training.
    assert compare(model, batch) == expected
    if family not in {"Gemma2", "Cohere", "RecurrentGemma", "OPT"}:  # whose heads are their embeddings
        targets = {"Roberta": "all-linear", "GPTNeoX": ["dense", "embed_out"], "FalconMamba": ["in_proj"]}.get(
            family, ["q_proj", "lm_head"]
        )
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)).eval()
        assert compare(adapted, batch) == expected


def test_an_adapter_before_the_decoder_of_the_head_is_trained(batch):
    config = LoraConfig(r=2, target_modules=["lm_head.dense"], init_lora_weights=False)
    adapted = get_peft_model(made("Roberta"), config).eval()
    compare(adapted, batch)
    loss = CausalLoss(adapted)(adapted, {"input_ids": batch["input_ids"]}, batch["labels"]).total
    assert all(gradient.abs().max() > 0 for gradient in gradients(loss, adapted).values())


@pytest.mark.parametrize("tied", [True, False])
def test_single_trained_tokens_get_their_gradient_through_a_tied_head_too(tied, batch):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    tokens = batch["input_ids"][0, :3].tolist()
    config = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=tokens, init_lora_weights=False)
    adapted = get_peft_model(model, config).eval()
    assert compare(adapted, batch) == "head"


def test_a_head_that_is_saved_whole_gets_its_gradient(batch):
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False)
    adapted = get_peft_model(made("Llama"), config).eval()
    assert compare(adapted, batch) == "head"
    assert any("lm_head" in name for name, weight in adapted.named_parameters() if weight.requires_grad)


class OddHead(LlamaForCausalLM):
    """Reads its head's weight without calling it."""

    def forward(self, input_ids, attention_mask=None, labels=None, **_):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = nn.functional.linear(hidden, self.lm_head.weight)
        loss = None if labels is None else self.loss_function(logits, labels, self.vocab_size)
        return transformers.modeling_outputs.CausalLMOutput(loss=loss, logits=logits)


class Halves(nn.DataParallel):
    """Two copies with half of the batch each, as on two GPUs."""

    def forward(self, **inputs):
        assert inputs.pop("use_cache") is False
        parts = zip(*(part.tensor_split(2) for part in inputs.values()), strict=True)
        copies = [copy.deepcopy(self.module)(**dict(zip(inputs, one, strict=True))) for one in parts]
        return transformers.modeling_outputs.CausalLMOutput(logits=torch.cat([one.logits for one in copies]))


def test_copies_on_several_gpus_give_the_loss_of_one(batch):
    model = made("Llama")
    inputs, loss_of = {name: part for name, part in batch.items() if name != "labels"}, CausalLoss(model)
    alone, shared = (loss_of(one, inputs, batch["labels"]) for one in (model, Halves(model)))
    torch.testing.assert_close(shared.losses, alone.losses)
    assert torch.equal(shared.correct, alone.correct)


def test_a_model_that_shows_no_decoder_gives_its_logits_in_blocks(batch):
    torch.manual_seed(0)
    options = {"intermediate_size_mlp": 48, "num_local_experts": 2, "head_dim": 8}
    model = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**SIZES | options)).eval()
    assert model.get_decoder() is model
    assert compare(model, batch) == "head"


class OddLoss(LlamaForCausalLM):
    """Adds something to the cross-entropy."""

    def forward(self, *args, labels=None, **kwargs):
        outputs = super().forward(*args, labels=labels, **kwargs)
        if labels is not None:
            outputs.loss = outputs.loss * 1.01
        return outputs


def test_a_model_whose_head_is_not_called_is_asked_for_all_its_logits(batch):
    torch.manual_seed(0)
    assert compare(OddHead(LlamaConfig(**SIZES)).eval(), batch) == "logits"


def rows(batch):
    return [
        Encoded(ids[mask.bool()].tolist(), labels[mask.bool()].tolist(), 0, (), "")
        for ids, mask, labels in zip(*batch.values(), strict=True)
    ]


def adapted(model, *targets, **options):
    return get_peft_model(model, QthaConfig(rank=2, target_modules=list(targets), **options))


def test_a_loss_that_is_not_the_cross_entropy_of_the_logits_is_refused(batch):
    torch.manual_seed(0)
    model = adapted(OddLoss(LlamaConfig(**SIZES)), "q_proj")
    with pytest.raises(RecipeError, match=r"The model.s own loss is not the cross-entropy .*: OddLoss says"):
        try_out(model, rows(batch), Console(quiet=True))


class Hashed(LlamaForCausalLM):
    """Draws in evaluation too."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **_):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.lm_head(hidden + torch.randn_like(hidden))
        loss = None if labels is None else self.loss_function(logits, labels, self.vocab_size)
        return transformers.modeling_outputs.CausalLMOutput(loss=loss, logits=logits)


def test_a_model_that_draws_is_compared_by_the_same_draws(batch):
    torch.manual_seed(0)
    try_out(adapted(Hashed(LlamaConfig(**SIZES)), "q_proj"), rows(batch), Console(quiet=True))


class RoundedLoss(LlamaForCausalLM):
    """Its loss is off by as much as the rounding of large logits."""

    def forward(self, *args, labels=None, **kwargs):
        outputs = super().forward(*args, labels=labels, **kwargs)
        if labels is not None:
            outputs.loss = outputs.loss + 1e-5
        return outputs


def test_the_rounding_of_a_loss_near_zero_is_no_other_loss(batch):
    torch.manual_seed(0)
    model = RoundedLoss(LlamaConfig(**SIZES))
    ids = batch["input_ids"][0].tolist()
    likeliest = model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item()
    model.lm_head.weight.data.mul_(30)
    ids, labels = [*ids, likeliest], [-100] * len(ids) + [likeliest]
    assert 0 < model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss < 0.05
    try_out(adapted(model, "q_proj"), [Encoded(ids, labels, 0, (), "")], Console(quiet=True))


def test_layers_that_are_skipped_at_random_are_tried_again_with_other_draws(batch):
    config = transformers.OPTConfig(**SIZES | MODELS["OPT"], layerdrop=0.2)
    for seed in range(8):
        model = adapted(transformers.OPTForCausalLM(config), "q_proj")
        torch.manual_seed(seed)
        try_out(model, rows(batch)[:1], Console(quiet=True))


class UnreadLayers(LlamaForCausalLM):
    """Has a layer that is never called, one whose weight is read, and one whose result is thrown away."""

    def __init__(self, config):
        super().__init__(config)
        self.idle, self.read, self.lost = (nn.Linear(32, 32) for _ in range(3))
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, labels=None, **_):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        hidden = hidden + nn.functional.linear(hidden, self.read.weight) + 0.1 * self.lost(hidden).detach()
        logits = self.lm_head(hidden)
        loss = None if labels is None else self.loss_function(logits, labels, self.vocab_size)
        return transformers.modeling_outputs.CausalLMOutput(loss=loss, logits=logits)


@pytest.mark.parametrize(
    ("layer", "what"), [("idle", "are not called"), ("read", "are not called"), ("lost", "get no gradient")]
)
def test_an_adapted_layer_that_does_not_act_is_named(layer, what, batch):
    torch.manual_seed(0)
    model = adapted(UnreadLayers(LlamaConfig(**SIZES)), "q_proj", layer)
    with pytest.raises(AdapterError, match=rf"1 of 4 adapted layers {what} .*: {layer}\."):
        try_out(model, rows(batch), Console(quiet=True))


@pytest.mark.parametrize(("name", "value"), [("q_proj", r"'tower\..*'"), ("wk", r"'tower\..*'"), ("idle", "[idle]")])
def test_the_refusal_says_what_leaves_the_layers_out(name, value, batch):
    torch.manual_seed(0)
    model = UnreadLayers(LlamaConfig(**SIZES))
    model.tower = nn.ModuleList(nn.ModuleDict({name: nn.Linear(32, 32)}) for _ in range(2 if name != "idle" else 0))
    options = {"r": 2, "target_modules": ["q_proj", name]}
    with pytest.raises(AdapterError, match=re.escape(f"adapter.exclude_modules: {value}.")):
        try_out(add_adapter(copy.deepcopy(model), LoraConfig(**options)), rows(batch), Console(quiet=True))
    followed = add_adapter(model, LoraConfig(**options, exclude_modules=yaml.safe_load(value)))
    try_out(followed, rows(batch), Console(quiet=True))


def test_a_loss_that_no_adapted_layer_reaches_is_an_error_of_ours(batch):
    torch.manual_seed(0)
    model = adapted(UnreadLayers(LlamaConfig(**SIZES)), "lost")
    with pytest.raises(AdapterError, match=r"1 of 1 adapted layers get no gradient .*: lost\."):
        try_out(model, rows(batch), Console(quiet=True))


def test_what_passes_leaves_nothing_behind(batch):
    model = adapted(made("Llama"), "q_proj", "v_proj", dropout=0.5)
    model.model.model.layers[0].train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    try_out(model, rows(batch), Console(quiet=True))
    torch.testing.assert_close(torch.rand(3), drawn, rtol=0, atol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(weight.grad is None for weight in model.parameters())


class RoutedBlock(nn.Module):
    """Sends every token to the first of its experts, or to none."""

    def __init__(self, used):
        super().__init__()
        self.used, self.experts = used, nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, hidden):
        return self.experts[0](hidden) if self.used else hidden


@pytest.mark.parametrize("used", [True, False])
def test_experts_that_met_no_token_are_a_note_unless_none_of_them_did(used, batch, capsys):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    for layer in model.model.layers:
        layer.mlp = RoutedBlock(used)
    config = LoraConfig(target_modules=r".*experts\.\d", r=2)
    model = get_peft_model(model, config)
    if used:
        try_out(model, rows(batch), Console())
        assert "6 adapted experts, such as model.layers.0.mlp.experts.1, met no token" in capsys.readouterr().out
    else:
        with pytest.raises(AdapterError, match="9 of 9 adapted layers are not called"):
            try_out(model, rows(batch), Console(quiet=True))


class RoutedOnce(nn.Module):
    def __init__(self, used):
        super().__init__()
        self.used, self.shared_experts = used, nn.Linear(32, 32)

    def forward(self, hidden):
        return self.shared_experts(hidden) if self.used else hidden


def test_what_all_experts_share_must_act_in_every_layer(batch):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    for number, layer in enumerate(model.model.layers):
        layer.mlp = RoutedOnce(number > 0)
    model = get_peft_model(model, LoraConfig(target_modules=["shared_experts"], r=2))
    with pytest.raises(AdapterError, match=r"1 of 3 .*: model\.layers\.0\.mlp\.shared_experts\."):
        try_out(model, rows(batch), Console(quiet=True))


def test_gradient_checkpointing_leaves_no_layer_untrained(recipe):
    training = {"gradient_checkpointing": True, "steps": 2, "learning_rate": 0.01}
    adapter = AdapterSection(type="lora", r=2, target_modules=["q_proj", "down_proj"])
    run = train(recipe(training=training).model_copy(update={"adapter": adapter}))
    # They begin as zeros.
    moved = [weight.abs().max() > 0 for name, weight in run.model.named_parameters() if "lora_B" in name]
    assert len(moved) == 4
    assert all(moved)


def test_a_router_loss_is_added_only_where_the_recipe_asks(recipe, tmp_path, tiny_model):
    folder = tmp_path / "mixtral"
    sizes = SIZES | {"vocab_size": 289, "eos_token_id": 1, "pad_token_id": 1, "bos_token_id": None}
    model = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**sizes | EXPERTS, output_router_logits=True, router_aux_loss_coef=0.5)
    )
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    model.save_pretrained(folder)
    first = {}
    for name, coefficient in (("without", None), ("with", 0.25)):
        training = {"steps": 1, "log_every": 1, "router_aux_loss_coef": coefficient}
        one = recipe(training=training, model={"name": str(folder)}, output={"folder": str(tmp_path / name)})
        first[name] = train(one).record["history"][0]["loss"]
    # Balanced routing to two of four experts has a router loss of two, and no routing less.
    assert first["with"] - first["without"] == pytest.approx(0.25 * 2, rel=0.2)


def test_a_router_loss_that_the_model_lacks_is_refused_before_a_folder_is_made(recipe, tmp_path):
    one = recipe(training={"router_aux_loss_coef": 0.1}, output={"folder": str(tmp_path / "run")})
    with pytest.raises(RecipeError, match=r"'training.router_aux_loss_coef' is 0.1, and LlamaForCausalLM has no"):
        train(one)
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_the_option_is_the_same_run_without_it(recipe):
    one, other = recipe(), recipe(training={"router_aux_loss_coef": 0.1})
    written = one.model_dump(mode="json")
    del written["training"]["router_aux_loss_coef"]
    before = SimpleNamespace(model_dump=lambda **_: written, data=one.data)
    assert fingerprint(one) == fingerprint(before) != fingerprint(other)
