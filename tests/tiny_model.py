"""A language model and a data set small enough to train on within a second, for tests and benchmarks."""

import json
from itertools import pairwise

import torch

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(folder, *, hidden_size=32, intermediate_size=48):
    """A two-layer Llama with grouped keys and values, and a byte-level tokenizer, in this folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
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


def write_sums(path):
    """24 questions with numbers for answers, a line of JSON each."""
    rows = [{"question": f"What is {a} and {b}?", "answer": str(a + b)} for a in range(6) for b in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


END_OF_TEXT = "<|endoftext|>"


def make_scripted_model(
    folder, says, *, marks=("<|im_start|>", "<|im_end|>"), special=True, template=TEMPLATE, own=None
):
    """A Llama that answers whatever it is asked by `says` and then "zzz" for ever, in this folder.

    What it says next depends on its last token alone, so no token of `says` may come twice. Its end of text, to which
    config, generation config and tokenizer agree, is END_OF_TEXT: it never says that by itself.

    Args:
        folder: where it goes.
        says: text; each of `marks` and each character is a token.
        marks: tokens beside single bytes, END_OF_TEXT included.
        special: whether marks count as special tokens, which decoding leaves out.
        template: chat template; what it prints last before an answer must be a line break.
        own: texts of tokens at which the model stops by itself; None for its end of text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in marks])
    backend.add_special_tokens([END_OF_TEXT])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, chat_template=template
    )
    tokenizer.save_pretrained(folder)
    stops = tokenizer.convert_tokens_to_ids(list(own or [END_OF_TEXT]))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=len(tokenizer) + len(tokenizer) % 2,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=stops if own else stops[0],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    said = tokenizer(f"\n{says}zz", add_special_tokens=False)["input_ids"]
    assert len(set(said)) == len(said) - 1, "a token comes twice"
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(config.vocab_size, config.hidden_size))
        for layer in (model.model.layers[0].self_attn.o_proj, model.model.layers[0].mlp.down_proj):
            layer.weight.mul_(1e-3)
        model.lm_head.weight.zero_()
        for before, after in pairwise(said):
            model.lm_head.weight[after, before] = 1.0
    model.save_pretrained(folder)
    return folder
