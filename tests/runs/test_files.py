"""Files that are whole or absent."""

import os

import pytest

from qpeft.errors import OutputError
from qpeft.runs import make_folder, read_record, require_empty_folder, write_atomically
from qpeft.runs.files import disk_errors, staged, used_alone


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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_files_and_folders_get_the_permissions_that_the_user_gives_to_new_ones(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", "x")
        with staged(tmp_path / "folder") as folder:
            (folder / "private").touch(0o600)
    finally:
        assert os.umask(before) == umask
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "file", tmp_path / "folder/private")} == {mode}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_the_umask_is_left_alone_since_other_threads_have_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("os.umask", None)
    write_atomically(tmp_path / "file", "x")
    with staged(tmp_path / "folder") as folder:
        (folder / "deep").mkdir(0o700)
        (folder / "deep/private").touch(0o600)
    new = tmp_path / "new"
    new.mkdir()
    assert (tmp_path / "folder/deep").stat().st_mode == new.stat().st_mode
    assert (tmp_path / "folder/deep/private").stat().st_mode == (tmp_path / "file").stat().st_mode


def test_what_a_link_in_a_staged_folder_leads_to_keeps_its_permissions(tmp_path):
    (tmp_path / "own").touch(0o600)
    with staged(tmp_path / "folder") as folder:
        (folder / "link").symlink_to(tmp_path / "own")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600


def test_a_user_without_a_name_can_write_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: {}["uid not found"])
    with used_alone(tmp_path), pytest.raises(OutputError, match="Another process"), used_alone(tmp_path):
        pass


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
