"""Paths that hold something else than they should: every command says so in one sentence."""

import os

import pytest

from qpeft.training import load_recipe

FOLDER = {
    "eval": (),
    "generate": ("Hi",),
    "chat": (),
    "runs show": (),
    "runs compare": (".",),
}


def make_directory(path):
    path.mkdir()


def make_broken_link(path):
    path.symlink_to(path.with_name("nothing"))


def make_endless_link(path):
    path.symlink_to(path)


def make_missing(_):
    pass


def holding(content):
    return lambda path: path.write_bytes(content)


KINDS = {
    "directory": make_directory,
    "broken link": make_broken_link,
    "endless link": make_endless_link,
    "missing": make_missing,
    "empty": holding(b""),
    "byte order mark only": holding(b"\xef\xbb\xbf"),
    "not UTF-8": holding(b"na\xefve: \xe9\n"),
    "UTF-16": holding("model: {}\n".encode("utf-16")),
    "null bytes": holding(b"model: \0\n"),
    "binary": holding(bytes(range(256)) * 16),
    "deeply nested": holding(b"[" * 5000),
    "a date that is none": holding(b"model: 2024-99-99\n"),
}


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "recipe.yaml", "--output.folder", LONG],
        ["train", "recipe.yaml", "--model.name", LONG],
        ["export", "run", LONG],
        ["runs", "list", LONG],
        ["runs", "show", LONG],
        ["chat", LONG],
    ],
    ids=lambda arguments: " ".join(arguments[:3])[:30],
)
def test_a_name_that_no_file_can_have_is_one_sentence(qpeft, recipe_file, monkeypatch, arguments):
    monkeypatch.chdir(recipe_file.parent)
    result = qpeft(*arguments)
    assert is_one_sentence(result), result
    assert "File name too long" in result[2]


def test_a_file_where_a_run_is_to_be_continued_is_one_sentence(qpeft, recipe_file, tmp_path):
    (tmp_path / "taken").touch()
    result = qpeft("train", recipe_file, "--resume", "--output.folder", tmp_path / "taken")
    assert is_one_sentence(result), result
    assert "taken is a file" in result[2]


def test_an_output_folder_that_is_a_link_to_nothing_is_called_so(qpeft, recipe_file, tmp_path):
    make_broken_link(tmp_path / "out")
    result = qpeft("train", recipe_file, "--output.folder", tmp_path / "out")
    assert is_one_sentence(result), result
    assert "out is a link to nothing" in result[2]


@pytest.fixture(params=KINDS)
def bad(request, tmp_path):
    """A function: something bad under this name in tmp_path."""

    def make(name):
        path = tmp_path / name
        KINDS[request.param](path)
        return path

    return make


def is_one_sentence(result):
    code, out, err = result
    return code == 2 and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in out + err


@pytest.mark.parametrize("command", ["train", "inspect"])
def test_of_a_recipe(qpeft, bad, command):
    result = qpeft(command, bad("recipe.yaml"))
    assert is_one_sentence(result), result
    assert "recipe.yaml" in result[2]


@pytest.mark.parametrize("command", FOLDER)
def test_of_a_folder_of_a_run(qpeft, bad, command):
    path = bad("run")
    result = qpeft(*command.split(), path, *FOLDER[command])
    assert is_one_sentence(result), result
    assert str(path) in result[2]


@pytest.mark.parametrize("command", FOLDER)
def test_of_a_record(qpeft, bad, tmp_path, command):
    bad("run.json")
    result = qpeft(*command.split(), tmp_path, *FOLDER[command])
    assert is_one_sentence(result), result
    assert "run.json" in result[2]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_of_questions(qpeft, bad, talkative, tmp_path, suffix):
    path = bad(f"questions.{suffix}")
    result = qpeft("generate", talkative, "--input", path, "--output", tmp_path / "out.jsonl")
    assert is_one_sentence(result), result
    assert f"questions.{suffix}" in result[2]
    assert not os.path.lexists(tmp_path / "out.jsonl")


def test_of_data(qpeft, bad, recipe_file):
    path = bad("data.jsonl")
    result = qpeft("inspect", recipe_file, "--data.train", path)
    assert is_one_sentence(result), result
    assert "data.jsonl" in result[2]


@pytest.mark.parametrize("name", ["directory", "endless link"])
def test_of_an_output(qpeft, talkative, tmp_path, name):
    (tmp_path / "questions.txt").write_text("Why?\n")
    KINDS[name](tmp_path / "out.jsonl")
    result = qpeft("generate", talkative, "--input", tmp_path / "questions.txt", "--output", tmp_path / "out.jsonl")
    assert is_one_sentence(result), result


def test_a_recipe_with_a_mark_and_windows_line_ends_is_read(recipe_file):
    plain = load_recipe(recipe_file)
    recipe_file.write_bytes(b"\xef\xbb\xbf" + recipe_file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_recipe(recipe_file) == plain
