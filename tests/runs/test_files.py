"""Files that are whole or absent."""

import pytest

from qpeft.errors import OutputError
from qpeft.runs import make_folder, read_record, require_empty_folder, write_atomically
from qpeft.runs.files import disk_errors, staged


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path):
    with staged(tmp_path / "good") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "good").exists()
    assert (tmp_path / "good/a").read_text() == "1"
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "bad"):
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["good"]


def test_errors_that_are_not_about_the_disk_pass_through(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), disk_errors(tmp_path):
        raise RuntimeError("shapes differ")
    with pytest.raises(OutputError), disk_errors(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file data/0")


def test_an_output_folder_must_be_empty_and_a_folder(tmp_path):
    require_empty_folder(tmp_path / "new/deep")
    assert not (tmp_path / "new").exists()
    make_folder(tmp_path / "new/deep")
    require_empty_folder(tmp_path / "new/deep")
    with pytest.raises(OutputError, match="is not empty"):
        require_empty_folder(tmp_path / "new")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        require_empty_folder(tmp_path / "file")


def test_a_missing_or_damaged_record_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        read_record(tmp_path)
    with pytest.raises(OutputError, match=r"nowhere does not exist"):
        read_record(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text('{"state": ')
    with pytest.raises(OutputError, match="cannot be read"):
        read_record(tmp_path)
