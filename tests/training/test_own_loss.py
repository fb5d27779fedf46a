"""What is trained on is the model's own loss, and every adapted layer acts; else nothing is begun."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from qpeft import QthaConfig
from qpeft.data import Encoded, pad_batch
from qpeft.errors import AdapterError, RecipeError
from qpeft.evaluation import causal_loss
from qpeft.evaluation.causal_loss import CausalLoss
from qpeft.training import train
from qpeft.training.sections import AdapterSection
from qpeft.training.trial import try_out

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
    monkeypatch.setattr(causal_loss, "LOGITS_AT_ONCE", at_once)
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
