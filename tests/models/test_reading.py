"""What models say of the tokens and positions that they can read, against what they do with them."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qpeft.models.reading import reading

COMMON = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 1}
DECODER = {"vocab_size": 40, "d_model": 16, "max_position_embeddings": 16}
WIDE = {"num_hidden_layers": 1, "intermediate_size": 16, "max_position_embeddings": 16}
MODELS = {
    # Learned positions: two unused rows before them, none, and those up to the padding token.
    "opt": (COMMON | {"ffn_dim": 16, "max_position_embeddings": 16, "word_embed_proj_dim": 16}, 16),
    "gpt2": ({"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}, 16),
    "gpt_neo": (COMMON | {"max_position_embeddings": 16, "attention_types": [[["global"], 1]], "num_layers": 1}, 16),
    "bert": (COMMON | WIDE | {"is_decoder": True}, 16),
    "roberta": (COMMON | WIDE | {"is_decoder": True}, 14),
    "bart": (DECODER | {"decoder_layers": 1, "decoder_ffn_dim": 16}, 16),
    # Fixed tables that do not grow, and one that is as wide as the configuration says.
    "gptj": ({"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "n_positions": 16}, 16),
    "codegen": ({"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 4, "rotary_dim": 4, "n_positions": 16}, 16),
    "mpt": ({"vocab_size": 40, "d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": 16}, 16),
    # Rotary, ALiBi, tables that grow, and none at all.
    "llama": (COMMON | WIDE, None),
    "gpt_neox": (COMMON | WIDE, None),
    "bloom": ({"vocab_size": 40, "hidden_size": 16, "n_layer": 1, "n_head": 2}, None),
    "xglm": (DECODER | {"num_layers": 1, "attention_heads": 2, "ffn_dim": 16}, None),
    "mamba": ({"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}, None),
}


def model_of(kind, **changes):
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **MODELS[kind][0] | changes)).eval()


def reads(model, length):
    with torch.no_grad():
        try:
            model(torch.full((1, length), 7))
        except (IndexError, RuntimeError, ValueError):
            return False
    return True


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_reads_as_many_tokens_as_it_says_and_no_more(kind):
    model, positions = model_of(kind), MODELS[kind][1]
    with torch.device("meta"):
        skeleton = model_of(kind)
    assert reading(model) == reading(skeleton)
    assert reading(model).positions == positions
    assert reads(model, positions or 40)
    assert positions is None or not reads(model, positions + 1)


def test_rotary_models_name_the_tokens_that_they_were_made_for():
    assert reading(model_of("llama")).made_for == 16
    assert reading(model_of("roberta")).made_for == 14
    assert reading(model_of("bloom")).made_for is None


def test_the_largest_token_is_that_of_embedding_and_head():
    model = model_of("llama")
    assert reading(model).tokens == 40
    model.lm_head = torch.nn.Linear(16, 38, bias=False)
    assert reading(model).tokens == 38


def test_an_adapter_on_embeddings_changes_nothing():
    from peft import LoraConfig, get_peft_model

    for options in (
        {"target_modules": ["wte", "wpe"]},
        {"target_modules": ["c_attn"], "modules_to_save": ["wte", "wpe"]},
    ):
        model = get_peft_model(model_of("gpt2"), LoraConfig(r=2, fan_in_fan_out=True, **options))
        found = reading(model)
        assert (found.tokens, found.positions) == (40, 16)
