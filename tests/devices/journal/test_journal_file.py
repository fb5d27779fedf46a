"""The file under the journal: damaged, newer, foreign, full, missing, shared."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from fake_device import FakeDevice, rotation
from killed import PROCESSES

from qpeft.devices import CallKey
from qpeft.devices.journal import BatchState, Journal, Request, database, default_path
from qpeft.devices.journal.database import create_tables
from qpeft.devices.journal.owner import is_alive, is_sending, sending, this_process
from qpeft.devices.journal.records import hash_batch, hash_circuit
from qpeft.devices.queue import JournalledRunner
from qpeft.errors import JournalError


@pytest.fixture
def filled(tmp_path, circuits, key):
    """Path of a closed journal with one call."""
    journal = Journal(tmp_path / "filled.sqlite")
    JournalledRunner(journal, "run")(FakeDevice(tmp_path / "store"), circuits, 1000, key=key)
    journal.close()
    return tmp_path / "filled.sqlite"


def refused(path, words):
    """That the journal is refused with these words, and no byte of it changes."""
    before = path.read_bytes()
    with pytest.raises(JournalError, match=words):
        Journal(path)
    assert path.read_bytes() == before


def test_a_newer_version_is_refused(filled):
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute("PRAGMA user_version = 99")
    refused(filled, "has version 99, and this qpeft knows versions up to 3")


def test_the_database_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (id)")
    refused(path, "no journal of qpeft")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("hello " * 1000)
    refused(path, "damaged")


@pytest.mark.parametrize("damage", ["cut", "page", "header"])
def test_a_damaged_file_is_refused(filled, damage):
    content = bytearray(filled.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "page":
        content[4096 * 3 : 4096 * 4] = b"\x5a" * 4096
    else:
        content[:16] = b"\x00" * 16
    filled.write_bytes(content)
    refused(filled, "damaged")


def test_a_result_of_which_one_digit_changed_is_an_error_and_no_value(filled, tmp_path, circuits, key):
    content = filled.read_bytes()
    # The shares then still sum to 1 within the tolerance for results from outside.
    assert content.count(b"0.367") == 1
    filled.write_bytes(content.replace(b"0.367", b"0.368"))
    journal = Journal(filled)
    with pytest.raises(JournalError, match="differs from its checksum"):
        JournalledRunner(journal, "run")(FakeDevice(tmp_path / "store"), circuits, 1000, key=key)
    journal.close()


def test_a_folder_or_a_missing_file_is_named(tmp_path):
    with pytest.raises(JournalError, match="is a folder"):
        Journal(tmp_path)
    with pytest.raises(JournalError, match="no journal at"):
        Journal(tmp_path / "none.sqlite", create=False)
    assert not (tmp_path / "none.sqlite").exists()


def test_only_its_user_can_read_it(filled):
    assert stat.S_IMODE(filled.stat().st_mode) == 0o600


def fill_up(journal):
    """A disk with no room for another page, as SQLite sees it."""
    connection = journal.database._connection
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("CREATE TABLE filler (content)")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")


def make_room(journal):
    journal.database._connection.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_before_the_call_sends_nothing(journal, runner, device, key):
    many = [rotation(0.01 * n) for n in range(200)]
    fill_up(journal)
    with pytest.raises(JournalError, match=r"is full.*nothing is sent twice"):
        runner(device, many, 1000, key=key)
    assert device.jobs() == []
    make_room(journal)
    assert len(runner(device, many, 1000, key=key)) == 200
    assert set(device.runs().values()) == {1}


def test_a_disk_that_fills_up_before_the_job_id_is_written_loses_nothing(journal, runner, device, key, monkeypatch):
    circuits, words = [rotation(0.0), rotation(1.0)], "qpeft jobs settle 1 --job job-0"
    submit = device.submit

    def submit_and_fill(circuits, shots, *, ticket):
        fill_up(journal)
        # The id of a cloud that needs another page.
        return submit(circuits, shots) + "x" * 10_000

    monkeypatch.setattr(device, "submit", submit_and_fill)
    with pytest.raises(JournalError, match=words):
        runner(device, circuits, 1000, key=key)
    monkeypatch.undo()
    make_room(journal)
    with pytest.raises(JournalError, match="may or may not"):
        runner(device, circuits, 1000, key=key)
    journal.settle(journal.batch(1), BatchState.SUBMITTED, message="test", job_id="job-0")
    runner(device, circuits, 1000, key=key)
    assert set(device.runs().values()) == {1}


def test_a_file_that_cannot_grow_names_the_job_that_exists(journal, runner, device, key, monkeypatch):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    submit, log = device.submit, journal.path.with_name(journal.path.name + "-wal")

    def submit_and_stop_growth(circuits, shots, *, ticket):
        job_id = submit(circuits, shots)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
        return job_id

    monkeypatch.setattr(device, "submit", submit_and_stop_growth)
    try:
        with pytest.raises(JournalError, match="is at the device as job job-0"):
            runner(device, [rotation(0.0)], 1000, key=key)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    journal.settle(journal.batch(1), BatchState.SUBMITTED, message="test", job_id="job-0")
    monkeypatch.undo()
    assert len(runner(device, [rotation(0.0)], 1000, key=key)) == 1
    assert len(device.jobs()) == 1


def test_an_interrupt_while_the_job_id_is_written_does_not_cost_it(journal, runner, device, circuits, key, monkeypatch):
    submitted = journal.submitted

    def interrupted(batch, job_id, *, ticket):
        monkeypatch.setattr(journal, "submitted", submitted)
        raise KeyboardInterrupt

    monkeypatch.setattr(journal, "submitted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner(device, circuits, 1000, key=key)
    runner(device, circuits, 1000, key=key)
    assert set(device.runs().values()) == {1}


def test_threads_share_a_runner(runner, device, circuits, key):
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(runner, device, circuits, 1000, key=replace(key, step=step // 2)) for step in range(8)]
        results = [call.result() for call in calls]
    assert results[::2] == results[1::2]
    assert set(device.runs().values()) == {4}


def test_a_disk_that_fills_up_before_the_results_are_written_keeps_them_at_the_device(journal, runner, device, key):
    circuits = [rotation(0.01 * n) for n in range(100)]
    device.max_circuits, fetch = 100, device.fetch
    device.fetch = lambda job_id: (fill_up(journal), fetch(job_id))[1]
    with pytest.raises(JournalError, match="is full"):
        runner(device, circuits, 1000, key=key)
    device.fetch = fetch
    make_room(journal)
    assert len(runner(device, circuits, 1000, key=key)) == 100
    assert set(device.runs().values()) == {1}


def make_calls(path, store, run):
    """From another process: twenty calls of one run."""
    journal = Journal(path)
    for step in range(20):
        JournalledRunner(journal, run, seconds_between_polls=0.001)(
            FakeDevice(store), [rotation(0.1 * n + step) for n in range(6)], 1000, key=CallKey(step=step)
        )
    journal.close()


def test_two_runs_make_and_fill_one_journal_at_once(tmp_path):
    path, store = tmp_path / "new" / "journal.sqlite", tmp_path / "store"
    processes = [PROCESSES.Process(target=make_calls, args=(path, store, run)) for run in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    journal = Journal(path)
    assert [journal.spent(run).circuits for run in ("a", "b")] == [120, 120]
    assert {batch.state for batch in journal.batches()} == {BatchState.FINISHED}
    journal.close()
    assert len(FakeDevice(store).jobs()) == 80


def test_a_finished_batch_cannot_be_settled(journal, runner, device, circuits, key):
    runner(device, circuits, 1000, key=key)
    with pytest.raises(JournalError, match="finished: there is nothing to settle"):
        journal.settle(journal.batch(1), BatchState.PLANNED, message="test")


def test_a_batch_that_is_being_sent_cannot_be_settled(journal, runner, device, circuits, key, monkeypatch):
    def look_and_submit(circuits, shots, *, ticket):
        with pytest.raises(JournalError, match="by a process that still runs"):
            journal.settle(journal.batch(len(device.jobs()) + 1), BatchState.PLANNED, message="test")
        return submit(circuits, shots)

    submit = device.submit
    monkeypatch.setattr(device, "submit", look_and_submit)
    runner(device, circuits, 1000, key=key)


def test_owners_are_told_apart_by_their_start(tmp_path):
    mine = this_process()
    host, pid, start = mine.rsplit(" ", 2)
    assert is_alive(mine)
    assert not is_alive(f"{host} {pid} {float(start) - 60}")
    assert not is_alive(f"elsewhere {pid} {start}")
    assert not is_alive(None)
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert not is_alive(f"{host} {done.pid} {start}")


def test_a_journal_is_not_used_across_a_fork(journal, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(JournalError, match="open it again"):
        journal.batches()


def test_hashes_are_the_same_in_every_process_and_see_the_last_bit():
    # Computed once by hand with sha256sum: a change of these would orphan every journal.
    assert hash_circuit(rotation(0.5)) == "b87c9cca12de3cc4636d393c7ccd55423e0113e5a3a355d4969ba1c2d2300c4b"
    assert hash_batch(["a"], 10, "fake", "{}") == "2b3ea0fbb449d712cd32e9dbfbcd3477ba58a8634044677312f4c6d94545a160"
    angle = 0.1 + 0.2
    assert hash_circuit(rotation(angle)) != hash_circuit(rotation(0.3))
    assert hash_circuit(replace(rotation(0.5), observables=("ZZ",))) == hash_circuit(rotation(0.5))


def test_options_that_are_no_plain_values_are_refused():
    assert Request.of("fake", {"b": 1, "a": 2}, [], 1).hash == Request.of("fake", {"a": 2, "b": 1}, [], 1).hash
    with pytest.raises(JournalError, match="must be numbers, strings"):
        Request.of("fake", {"chip": object()}, [], 1)


def test_the_default_place_is_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "qpeft" / "journal.sqlite"


@pytest.mark.parametrize(
    ("platform", "variable", "former"),
    [
        ("darwin", "data", "home/Library/Application Support/qpeft/journal.sqlite"),
        ("linux", "a/relative/path", "a/relative/path/qpeft/journal.sqlite"),
        ("linux", "", "home/.local/share/qpeft/journal.sqlite"),
    ],
)
def test_a_journal_where_earlier_versions_had_it_goes_on_there(monkeypatch, tmp_path, platform, variable, former):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", variable)
    (tmp_path / former).parent.mkdir(parents=True)
    (tmp_path / former).touch()
    assert default_path().resolve() == tmp_path / former


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_an_older_version_goes_on_as_one_of_this(journal, runner, device, key, version):
    runner(device, [rotation(0.0)], 1000, key=key)
    journal.close()
    with closing(sqlite3.connect(journal.path)) as connection:
        connection.execute("DROP TABLE rejected")
        connection.execute("ALTER TABLE circuits DROP COLUMN marker")
        if version == 1:
            connection.execute("ALTER TABLE batches DROP COLUMN ticket")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
    again = JournalledRunner(Journal(journal.path), "run")
    again(device, [rotation(0.0)], 1000, key=key)
    again(device, [rotation(1.0)], 1000, key=replace(key, step=1))
    assert [len(job["circuits"]) for job in device.jobs()] == [1, 1]


def test_a_thread_that_comes_second_does_not_make_the_first_look_dead(journal):
    with sending(journal.path, 7):
        with sending(journal.path, 7):
            pass
        assert is_sending(this_process(), journal.path, 7)
    assert not is_sending(this_process(), journal.path, 7)


def no_links(*_):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_journal_is_never_found_half_made(tmp_path, monkeypatch, has_links):
    path, seen = tmp_path / "folder" / "journal.sqlite", []

    def killed(connection):
        create_tables(connection)
        seen.append(path.exists())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, "create_tables", killed)
        with pytest.raises(KeyboardInterrupt):
            Journal(path)
    assert seen == [False]
    assert list(path.parent.iterdir()) == []
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    Journal(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["journal.sqlite"]
