"""Examples that a model cannot read are named before a folder is made, whatever is to be done with them."""

import json
import sys

import pytest
import torch
import yaml

from qpeft.errors import DataError, ModelError
from qpeft.training import train
from qpeft_cli.main import main


@pytest.fixture(scope="module")
def copy_of(tiny_model, tmp_path_factory):
    """A function: a copy of the tiny model's tokenizer, with tokens added, beside a model of another kind."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig

    def make(*, added=(), pad=None, model=None):
        folder = tmp_path_factory.mktemp("copy")
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        size = len(tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
        if pad is not None:
            tokenizer.add_special_tokens({"pad_token": pad})
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        if model is None:
            AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(folder)
        else:
            from transformers import OPTForCausalLM

            small = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            config = OPTConfig(vocab_size=size, word_embed_proj_dim=16, max_position_embeddings=model, **small)
            OPTForCausalLM(config).save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="module")
def no_place(copy_of):
    """A model whose chat template has a token that its embedding has no row for."""
    from pathlib import Path

    folder = copy_of(added=["<|call|>"])
    template = Path(folder) / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|call|>"))
    return folder


@pytest.fixture(scope="module")
def sixteen(copy_of):
    """An OPT of 16 positions."""
    return copy_of(model=16)


def said_by(monkeypatch, capsys, *arguments):
    """Exit code and all output of the command line."""
    monkeypatch.setattr(sys, "argv", ["qpeft", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "400")
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out + err


def saved(recipe, tmp_path, **sections):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(**sections).model_dump(mode="json")))
    return path


@pytest.mark.parametrize("streaming", [False, True])
def test_a_template_token_without_a_place_in_the_embedding(recipe, tmp_path, no_place, streaming, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    message = r"sums.jsonl:\d+: the token '<\|call\|>' has the id 289, .* ends at 288 \(18 of 18 .*resize_token"
    with pytest.raises(DataError, match=message):
        train(recipe(model={"name": no_place}, data={"streaming": streaming}))
    assert not (tmp_path / "run").exists()


def test_a_padding_token_without_a_place_is_refused_by_training_and_by_commands_that_answer(
    recipe, tmp_path, copy_of, monkeypatch, capsys
):
    folder = copy_of(pad="<pad>")
    message = r"pads with a token that the model does not have: the token '<pad>' has the id 289, .* '<\|im_end\|>'"
    with pytest.raises(ModelError, match=message):
        train(recipe(model={"name": folder}))
    assert not (tmp_path / "run").exists()
    train(recipe())
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["recipe"]["model"]["name"] = folder  # as if the tokenizer had been edited since
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    for command in (["generate", tmp_path / "run", "Hello", "Hello to all of you"], ["eval", tmp_path / "run"]):
        code, said = said_by(monkeypatch, capsys, *command)
        assert code == 2
        assert "pads with a token that the model does not have" in said
        assert "Traceback" not in said


def test_a_question_with_a_token_without_a_place_is_refused(recipe, tmp_path, copy_of, monkeypatch, capsys):
    train(recipe(model={"name": copy_of(added=["<|call|>"])}))
    code, said = said_by(monkeypatch, capsys, "generate", tmp_path / "run", "Say <|call|>", "--max-new-tokens", 2)
    assert code == 2
    assert "has a token that the model does not have: the token '<|call|>' has the id 289" in said
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "a", "answer": "b"}\n{"question": "<|call|>", "answer": "b"}\n')
    code, said = said_by(monkeypatch, capsys, "eval", tmp_path / "run", "--data", bad)
    assert code == 2
    assert "bad.jsonl:2: the token '<|call|>' has the id 289" in said
    assert "1 of 2 examples" in said


@pytest.mark.parametrize("streaming", [False, True])
def test_examples_longer_than_learned_positions(recipe, tmp_path, sixteen, streaming, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = {"model": {"name": sixteen}}
    message = r"sums.jsonl:\d+: \d\d tokens, and .* has positions for 16 \(18 of 18 examples are longer\)"
    with pytest.raises(DataError, match=message + r".* data.max_length: 16, and data.drop_longer: true"):
        train(recipe(**made, data={"streaming": streaming}))
    assert not (tmp_path / "run").exists()


def test_held_out_examples_longer_than_learned_positions(recipe, tmp_path, copy_of):
    long = tmp_path / "long.jsonl"
    long.write_text('{"question": "a", "answer": "b"}\n' + json.dumps({"question": "long " * 99, "answer": "b"}))
    data = {"eval": str(long), "hold_out": None, "max_length": 999}
    with pytest.raises(DataError, match=r"long.jsonl:2: \d+ tokens, and .* has positions for 100 \(1 of 2"):
        train(recipe(model={"name": copy_of(model=100)}, data=data))
    assert not (tmp_path / "run").exists()


def test_as_many_tokens_as_there_are_positions_are_trained_on_and_answers_have_room(recipe, tmp_path, copy_of, sums):
    folder = copy_of(model=48)
    made = {"model": {"name": folder}, "data": {"max_length": 48}}
    asks = {"task": "word_problems", "max_new_tokens": 40, "before": False}
    with pytest.raises(DataError, match="the model reads 48 at once, an answer of up to 40 included"):
        train(recipe(**made, evaluation=asks))
    assert not (tmp_path / "run").exists()
    assert train(recipe(**made, evaluation=asks | {"max_new_tokens": 2})).record["state"] == "finished"


def test_an_answer_that_a_task_cannot_read_is_named_before_training_though_nothing_is_measured_before(recipe, tmp_path):
    words = tmp_path / "words.jsonl"
    words.write_text('{"question": "Who?", "answer": "Me."}\n' * 3)
    with pytest.raises(DataError, match=r"words.jsonl:1.*ends on none"):
        train(
            recipe(data={"eval": str(words), "hold_out": None}, evaluation={"task": "word_problems", "before": False})
        )
    assert not (tmp_path / "run").exists()


def test_a_rotary_model_reads_more_than_it_was_made_for_with_a_note(recipe, tmp_path, copy_of, monkeypatch, capsys):
    from pathlib import Path

    folder = Path(copy_of())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))
    note = "18 of 18 examples are longer than the 16 tokens that"
    code, said = said_by(monkeypatch, capsys, "train", saved(recipe, tmp_path, model={"name": str(folder)}))
    assert code == 0, said
    assert note in said
    code, said = said_by(monkeypatch, capsys, "inspect", tmp_path / "recipe.yaml", "--data")
    assert code == 0
    assert note in said


@pytest.mark.parametrize("arguments", [["--data"], []])
def test_inspect_says_what_training_refuses_and_goes_on(recipe, tmp_path, sixteen, monkeypatch, capsys, arguments):
    path = saved(recipe, tmp_path, model={"name": sixteen})
    code, said = said_by(monkeypatch, capsys, "inspect", path, *arguments)
    assert code == 0
    assert said.count("train refuses this: ") == 2  # of training and of held-out examples
    assert "has positions for 16 (18 of 18 examples are longer)" in said


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_inspect_counts_answers_that_are_cut_off_and_a_later_run_does_not_train_on_them(
    recipe, tmp_path, sums, monkeypatch, capsys, streaming
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    long = [json.dumps({"question": "Why? " * 40, "answer": str(number)}) + "\n" for number in range(3)]
    data.write_text("".join(long) + sums.read_text())
    path = saved(recipe, tmp_path, data={"train": str(data), "hold_out": 5, "max_length": 64})
    options = ["--data.streaming", streaming]
    code, said = said_by(monkeypatch, capsys, "inspect", path, "--data", *options)
    assert code == 0
    assert "of which lose all of their answer" in said
    assert "answer wholly cut off" in said
    assert "data.drop_longer: true" in said
    assert "100 %" in said
    code, said = said_by(monkeypatch, capsys, "train", path, *options)
    assert code == 2
    assert "answer wholly cut off" in said
    assert not (tmp_path / "run").exists()
    code, said = said_by(monkeypatch, capsys, "train", path, *options, "--data.drop_longer", "true")
    assert code == 0, said


def test_packed_rows_fit_a_model_that_counts_them_whole(recipe, tmp_path, tiny_model):
    from transformers import AutoTokenizer, GPTNeoConfig, GPTNeoForCausalLM

    folder = tmp_path / "neo"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    small = {"hidden_size": 16, "num_layers": 1, "attention_types": [[["global"], 1]], "num_heads": 2}
    config = GPTNeoConfig(vocab_size=len(tokenizer), max_position_embeddings=48, **small)
    GPTNeoForCausalLM(config).save_pretrained(folder)
    made = {"model": {"name": str(folder)}, "training": {"packing": True}, "data": {"max_length": 100}}
    with pytest.raises(
        DataError, match=r"'training.packing' makes rows of up to 100 tokens, and .* at most 48 at once"
    ):
        train(recipe(**made))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("amount", "kept"), [(5, 5), (9, 9)])
def test_held_out_dialogues_are_counted_without_those_that_are_left_out(tmp_path, tiny_model, amount, kept):
    from qpeft.models import load_tokenizer
    from qpeft.training.sections import DataSection
    from qpeft.training.splits import load_splits

    path, tokenizer = tmp_path / "data.jsonl", load_tokenizer(str(tiny_model))
    rows = [{"question": f"{number} " + "long " * (99 * (number % 2)), "answer": "b"} for number in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {"drop_longer": True, "max_length": 40}
    training, held_out = load_splits(DataSection(train=str(path), hold_out=amount, **short), tokenizer)
    assert (len(held_out.examples), len(training.examples)) == (kept, 30 - kept)
    _, held_out = load_splits(DataSection(train=str(path), eval=str(path), eval_limit=amount, **short), tokenizer)
    assert [one.source.rpartition(":")[2] for one in held_out.examples] == [str(2 * n + 1) for n in range(kept)]
    whole = DataSection(train=str(path), hold_out=amount, max_length=999)
    training, held_out = load_splits(whole, tokenizer)
    assert (len(held_out.examples), len(training.examples)) == (amount, 60 - amount)
