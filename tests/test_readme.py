"""What README and the first page of the docs tell a newcomer to do works, and their links lead somewhere."""

import re
import shlex
import sys
from pathlib import Path

import pytest

import qpeft_cli.init
from qpeft_cli.main import COMMANDS, main

HOME = Path(__file__).parents[1]
README = (HOME / "README.md").read_text(encoding="utf-8")


def commands(page):
    """The command lines of qpeft in the blocks of a page, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("qpeft ")]


def test_the_first_run_works_word_for_word_in_an_empty_folder(tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # A smaller model in the place of the one that is offered; nobody is at the keyboard to be asked.
    monkeypatch.setattr(qpeft_cli.init, "MODELS", (str(tiny_model), str(tiny_model)))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    wanted = commands(README)
    assert [words[0] for words in wanted] == ["init", "train", "generate"]
    for words in wanted:
        # Fewer steps, and answers of a random model need not be read.
        short = {"train": ["--training.steps", "2", "--evaluation.items", "2"], "generate": ["--max-new-tokens", "2"]}
        monkeypatch.setattr(sys, "argv", ["qpeft", *words, *short.get(words[0], [])])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0, capsys.readouterr().err
    assert (tmp_path / "runs/mine/adapter_model.safetensors").exists()


def test_the_python_of_readme_runs(tmp_path, tiny_model, monkeypatch):
    (program,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(program.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(program.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(tiny_model)), {})
    assert (tmp_path / "my-adapter/adapter_config.json").exists()


def test_the_commands_of_the_walk_through_exist():
    page = (HOME / "docs/own_data.md").read_text(encoding="utf-8")
    assert {words[0] for words in commands(page)} <= COMMANDS.keys()


def test_readme_is_read_in_some_minutes():
    assert len(README.split()) <= 700


def test_links_and_pictures_of_readme_are_there():
    targets = re.findall(r"\]\(([^)#:]+)\)|(?:src|srcset)=\"([^\"]+)\"", README)
    assert len(targets) > 20
    assert [one for pair in targets for one in pair if one and not (HOME / one).exists()] == []


def test_every_page_says_first_what_the_reader_gets():
    for page in sorted((HOME / "docs").glob("*.md")):
        first = next(line for line in page.read_text(encoding="utf-8").splitlines()[1:] if line.strip())
        assert first[0].isalpha() or first[0] in "`*[", f"docs/{page.name} begins with {first!r}"
