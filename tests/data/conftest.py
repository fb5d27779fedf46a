"""A tiny byte-level tokenizer, and chat templates in the manner of the models people fine-tune."""

import json

import pytest

SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|begin|>",
    "<|end|>",
    "<|User|>",
    "<|Assistant|>",
    "</s>",
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "smollm2": (
        "{% for m in messages %}"
        "{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are SmolLM.<|im_end|>\n{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama3": (
        "{{ '<|begin_of_text|>' }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    # Qwen2.5 puts tools, where there are any, into the system message, and calls of them after an answer.
    "qwen2.5": (
        "{%- if tools %}{{- '<|im_start|>system\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content }}"
        "{% else %}You are Qwen.{% endif %}{{- '\n\n# Tools' }}{% for tool in tools %}{{ '\n' + (tool | tojson) }}"
        "{% endfor %}{{- '<|im_end|>\n' }}"
        "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
        "{%- else %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{%- endif %}"
        "{%- for m in messages %}{%- if m.role == 'user' or (m.role == 'system' and not loop.first)"
        " or (m.role == 'assistant' and not m.tool_calls) %}"
        "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant' }}"
        "{% if m.content %}{{ '\n' + m.content }}{% endif %}"
        "{% for call in m.tool_calls %}{{ '\n<tool_call>\n' + (call | tojson) + '\n</tool_call>' }}{% endfor %}"
        "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    ),
    # Reasoning models: Qwen3 puts an empty thinking block before the last answer only, ...
    "qwen3": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # ... DeepSeek-R1 drops the thinking from every answer and opens it in the generation prompt, ...
    "deepseek-r1": (
        "{{ '<|begin|>' }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}"
        "{% endfor %}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}"
        "{% elif m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
    ),
    # ... and QwQ and others drop it from answers that others follow only.
    "thinks-last": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}"
        "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # Llama 2 and its kin: spaces around the answer, which tokens may straddle.
    "llama2": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    ),
    "generation-marks": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # ChatML in a tokenizer to which its tokens were never added: the end is several ordinary tokens.
    "written-end": (
        "{% for m in messages %}{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% endif %}"
    ),
    "no-end-of-turn": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    ),
}


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level BPE with a few hundred tokens and no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    backend.train_from_iterator(["Hello there, how are you? I am fine. system user assistant"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>")


@pytest.fixture
def with_template(tokenizer, monkeypatch):
    """A function: the tokenizer with the template of that name."""

    def set_template(name):
        monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES.get(name, name))
        return tokenizer

    return set_template


@pytest.fixture
def write(tmp_path):
    """A function that writes text, bytes or rows to a file and returns its path as text."""

    def write_file(content, name="data.jsonl"):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_file


@pytest.fixture
def dialogue():
    """A function from texts, user first, to an example."""
    from qpeft.data import Example, Message

    def example(*texts, system=None):
        turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
        return Example((*([Message("system", system)] if system else []), *turns), {}, "data.jsonl:7")

    return example
