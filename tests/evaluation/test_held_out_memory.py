"""Held-out loss without logits of a whole batch."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM

from qpeft.data import Encoded, encode_all, load_examples
from qpeft.evaluation import held_out_loss
from qpeft.evaluation import loss as loss_module
from qpeft.models import load_model, load_tokenizer


@pytest.fixture
def model(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture(scope="module")
def encoded(tiny_model, sums):
    return encode_all(load_tokenizer(str(tiny_model)), load_examples(str(sums)))


def losses_one_by_one(model, encoded):
    """Mean over labelled tokens, from the whole logits of one example at a time."""
    found = []
    for one in encoded:
        with torch.no_grad():
            predictions = model(torch.tensor([one.input_ids])).logits[0].float().log_softmax(-1)
        found += [-predictions[place - 1, label].item() for place, label in enumerate(one.labels) if label != -100]
    return sum(found) / len(found)


def all_trained(encoded):
    return [Encoded(one.input_ids, [-100, *one.input_ids[1:]], 0, (), "") for one in encoded]


def test_out_of_memory_at_the_first_evaluation_since_logits_are_kept(model, encoded, monkeypatch):
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 16)
    tokens, head = [], model.get_output_embeddings()
    own = head.forward
    examples = all_trained(encoded)
    head.forward = lambda hidden: tokens.append(hidden.shape[:-1].numel()) or own(hidden)
    loss = held_out_loss(model, examples).loss
    del head.forward
    made_first = tokens[:3]  # of six tokens, to find out how the model makes its logits
    assert max(tokens) == 16
    assert sum(tokens) - sum(made_first) == sum(len(one.input_ids) - 1 for one in examples)
    assert loss == pytest.approx(losses_one_by_one(model, examples), rel=1e-5)


def test_a_model_that_caps_its_logits_is_asked_for_them(encoded):
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        initializer_range=1.0,
        final_logit_softcapping=2.0,
    )
    model = Gemma2ForCausalLM(config).eval()
    assert held_out_loss(model, encoded).loss == pytest.approx(losses_one_by_one(model, encoded), rel=1e-5)


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]])
def test_an_adapted_head_is_the_head(model, encoded, targets):
    adapted = get_peft_model(model, LoraConfig(target_modules=targets, init_lora_weights=False))
    adapted.eval()
    assert held_out_loss(adapted, encoded).loss == pytest.approx(losses_one_by_one(adapted, encoded), rel=1e-5)


def test_batches_follow_the_number_of_tokens(model, encoded):
    shapes = []
    model.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    longest = max(len(one.input_ids) for one in encoded)
    held_out_loss(model, encoded, tokens_per_batch=longest)
    assert all(shape.numel() <= longest for shape in shapes)
    largest = loss_module.largest_batch(encoded, tokens_per_batch=longest)
    assert len(largest) * len(largest[-1].input_ids) == max(shape.numel() for shape in shapes)
