"""A tiny random language model with a tokenizer, in a folder, for tests that train."""

import json
import os

import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads this once, when something first imports it: without a GPU its kernels run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a two-layer Llama of width 32 with grouped keys and values, and a byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        ["What is the sum of one and two? user assistant"],
        trainers.BpeTrainer(
            vocab_size=300,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|im_start|>", "<|im_end|>"],
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sums(tmp_path_factory):
    """JSONL file of 24 questions with numbers for answers."""
    path = tmp_path_factory.mktemp("sums") / "sums.jsonl"
    rows = [{"question": f"What is {a} and {b}?", "answer": str(a + b)} for a in range(6) for b in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tiny_model, sums, tmp_path):
    """A function: the recipe of a six-step run into tmp_path/run, with sections changed by keyword."""
    from qpeft.training.config import parse_recipe

    def make(**sections):
        values = {
            "model": {"name": str(tiny_model)},
            "data": {"train": str(sums), "hold_out": 6},
            "adapter": {"type": "qtha", "rank": 4, "target_modules": ["q_proj", "v_proj"]},
            "training": {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2},
            "output": {"folder": str(tmp_path / "run")},
        }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
        return parse_recipe(values, source="test")

    return make
