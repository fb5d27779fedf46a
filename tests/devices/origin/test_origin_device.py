"""The device against an emulator: everything that Origin's cloud and its client do that must not reach a user."""

import ast
import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from emulator_process import EmulatorThread

from qpeft.circuits import Circuit, Operation, ansatz, bind
from qpeft.devices import JobState, run
from qpeft.devices.origin import list_chips, worker
from qpeft.devices.origin.cloud import Cloud
from qpeft.errors import CredentialsError, DeviceError, JobError, RefusedError
from qpeft_emulator import messages, parse_origin_ir
from qpeft_emulator.cloud import Timing

FLIPS = [Circuit(size, (Operation("RX", (size - 1,), math.pi),)) for size in (2, 1, 3)]
FLIPPED = [{"01": pytest.approx(1)}, {"1": pytest.approx(1)}, {"001": pytest.approx(1)}]


def worker_of(device):
    return device._cloud._worker


def finished(device, circuits, **options):
    job_id = device.submit(circuits, 20, **options)
    while not device.poll(job_id).state.is_final:
        time.sleep(0.01)
    return job_id


def stored_body(cloud, job_id):
    return json.loads(cloud.server.cloud._store.get(job_id.partition("@")[0]).body)


# Waiting


def test_other_threads_go_on_while_the_cloud_takes_its_time(origin_device, origin_cloud):
    job_id = origin_device.submit(FLIPS, 20)
    origin_cloud.fault(kind="delay", endpoint="detail", seconds=0.3)
    ticks, is_over = [], threading.Event()

    def tick():
        while not is_over.wait(0.005):
            ticks.append(None)

    ticking = threading.Thread(target=tick)
    ticking.start()
    before = len(ticks)
    origin_device.poll(job_id)
    while_waiting = len(ticks) - before
    is_over.set()
    ticking.join()
    assert while_waiting >= 10  # of 60; a client that held the lock of the interpreter would leave none


def test_polling_returns_at_once_however_long_a_job_takes(origin_device, origin_cloud, monkeypatch):
    monkeypatch.setattr(origin_cloud.server.cloud, "_timing", Timing(60, 60, 60))
    job_id = origin_device.submit(FLIPS, 20)
    assert origin_device.poll(job_id).state is JobState.WAITING  # whoever waits for the job sees it running or over
    called = {node.attr for node in ast.walk(ast.parse(Path(worker.__file__).read_text())) if hasattr(node, "attr")}
    assert "query" in called
    assert "result" not in called


def test_an_answer_that_never_comes_is_an_error_and_the_next_call_has_another_worker(
    start_cloud, make_device, no_pauses
):
    cloud = start_cloud()
    device = make_device(cloud, seconds_per_answer=20)
    job_id = finished(device, FLIPS)
    first = worker_of(device).pid
    device._cloud.seconds_per_answer = 0.3
    cloud.fault(kind="delay", endpoint="detail", seconds=1.5, times=None)
    with pytest.raises(DeviceError, match=r"gave no answer to 'detail' in 0\.3 seconds"):
        device.poll(job_id)
    cloud.server.faults.clear()
    device._cloud.seconds_per_answer = 20
    assert device.fetch(job_id) == FLIPPED
    assert worker_of(device).pid != first


def test_questions_are_asked_again_after_a_bad_spell(origin_device, origin_cloud, no_pauses):
    job_id = finished(origin_device, FLIPS)
    origin_cloud.fault(kind="status", endpoint="detail", status=503, times=4)  # one more than the client tries
    assert origin_device.fetch(job_id) == FLIPPED


# Results


def test_every_program_of_a_batch_has_its_own_result_and_any_process_can_fetch_it(
    origin_device, origin_cloud, make_device
):
    job_id = finished(origin_device, FLIPS)
    assert origin_device.fetch(job_id) == FLIPPED
    other = make_device(origin_cloud)
    assert other.fetch(job_id) == FLIPPED
    assert other.fetch(job_id.partition("@")[0]) == FLIPPED  # as the cloud's own list shows it


def test_a_short_list_of_results_is_an_error(origin_device, origin_cloud):
    job_id = finished(origin_device, FLIPS)
    origin_cloud.fault(kind="short", times=2)
    with pytest.raises(DeviceError, match="3 programs were sent and 2 results"):
        origin_device.fetch(job_id)


def test_a_reordered_list_is_an_error_where_sizes_tell(origin_device, origin_cloud):
    job_id = finished(origin_device, FLIPS)
    origin_cloud.fault(kind="reorder", times=1)
    with pytest.raises(DeviceError, match=r"bits \[3, 1, 2\]|\[3, 1, 2\] bits"):
        origin_device.fetch(job_id)
    assert origin_device.fetch(job_id) == FLIPPED


def test_a_failed_job_says_why(origin_device, origin_cloud):
    origin_cloud.fault(kind="fail_job", message="the fridge is warm")
    job_id = finished(origin_device, FLIPS)
    status = origin_device.poll(job_id)
    assert (status.state, status.message) == (JobState.FAILED, "the fridge is warm")
    with pytest.raises(JobError, match="the fridge is warm"):
        origin_device.fetch(job_id)


def test_a_cancelled_job_is_cancelled_for_others_too(origin_device, origin_cloud, make_device, monkeypatch):
    monkeypatch.setattr(origin_cloud.server.cloud, "_timing", Timing(60, 60, 60))
    job_id = origin_device.submit(FLIPS, 20)
    origin_device.cancel(job_id)
    assert make_device(origin_cloud).poll(job_id).state is JobState.CANCELLED


# What is sent


def test_angles_reach_the_cloud_to_eight_decimals(origin_device, origin_cloud):
    angles = [0.123456789012345, -3.0000000049, 1e-7, 2 * math.pi / 3]
    job_id = origin_device.submit([bind(ansatz.ring_cz(2), angles[:2], angles * 1)], 20)
    (text,) = stored_body(origin_cloud, job_id)["QProg"]
    sent = [operation.angle for operation in parse_origin_ir(text).circuit.operations if operation.angle is not None]
    asked = [o.angle for o in bind(ansatz.ring_cz(2), angles[:2], angles).operations if o.angle is not None]
    assert sent == pytest.approx(asked, abs=5.1e-9)
    assert sent != asked  # what the client prints


def test_options_reach_the_cloud(origin_cloud, make_device):
    plain = {"amend": False, "mapping": False, "optimization": False}
    body = stored_body(origin_cloud, make_device(origin_cloud, **plain).submit(FLIPS, 33))
    asked = body["Configuration"]
    assert (asked["shot"], asked["amendFlag"], asked["mappingFlag"]) == (33, 0, False)
    assert (asked["circuitOptimization"], asked["specified_block"], body["ChipID"]) == (False, [], "perfect")
    asked = stored_body(origin_cloud, make_device(origin_cloud, block=[3, 4, 5, 9]).submit(FLIPS, 33))["Configuration"]
    assert (asked["amendFlag"], asked["mappingFlag"], asked["circuitOptimization"]) == (1, True, True)
    assert asked["specified_block"] == [3, 4, 5, 9]


def test_more_than_200_programs_are_refused(origin_device, origin_cloud):
    before = origin_cloud.stats()["jobs"]
    with pytest.raises(RefusedError, match="at most 200 circuits"):
        origin_device.submit([FLIPS[1]] * 201, 10)
    assert origin_cloud.stats()["jobs"] == before


def test_an_empty_job_is_refused(origin_device):
    with pytest.raises(RefusedError, match="at least one circuit"):
        origin_device.submit([], 10)


def test_an_unknown_chip_is_refused_naming_those_there_are(origin_cloud, make_device):
    with pytest.raises(RefusedError, match="no chip 'wukong2'; it has perfect"):
        make_device(origin_cloud, chip="wukong2").submit(FLIPS, 10)


def test_wukong_has_its_other_name_and_only_its_living_qubits(start_cloud, make_device):
    device = make_device(start_cloud(chip="wukong"), chip="origin_wukong")
    assert device.capabilities().num_qubits == 66
    calibration = device.calibration()
    assert len(calibration.qubits) == 66
    assert len(calibration.edges) < 120
    with pytest.raises(RefusedError, match="origin has 66 qubits"):
        device.submit([Circuit(67, ())], 10)


def test_a_chip_that_is_offline_takes_no_job_but_still_answers_about_old_ones(start_cloud, make_device):
    cloud = start_cloud()
    device = make_device(cloud)
    job_id = finished(device, FLIPS)
    cloud.server.cloud.is_online = False
    other = make_device(cloud)
    with pytest.raises(RefusedError, match="offline"):
        other.submit(FLIPS, 10)
    assert other.fetch(job_id) == FLIPPED


# The key


def test_a_wrong_key_is_named_as_such_by_every_call_and_sends_nothing(start_cloud, make_device, monkeypatch):
    cloud = start_cloud()
    device = make_device(cloud)
    job_id = finished(device, FLIPS)
    monkeypatch.setenv("QPEFT_ORIGIN_KEY", "wrong-one")
    other = make_device(cloud)
    for call in (lambda: other.poll(job_id), lambda: other.fetch(job_id), lambda: other.submit(FLIPS, 10)):
        with pytest.raises(CredentialsError):
            call()
    with pytest.raises(CredentialsError, match="The API key is wrong"):
        other.calibration()
    with pytest.raises(CredentialsError):
        list_chips(cloud.url)
    assert cloud.stats()["jobs"] == 1


def test_a_key_that_stops_working_in_a_submission_is_certain(origin_device, origin_cloud):
    origin_cloud.fault(kind="wrong_key", endpoint="submit")
    with pytest.raises(CredentialsError):
        origin_device.submit(FLIPS, 10, ticket="late")
    assert origin_device.find_job("late") is None


def test_two_devices_with_two_keys_do_not_mix_them_up(start_cloud, make_device):
    first_cloud = start_cloud("key-one")
    first = make_device(first_cloud)
    job_id = finished(first, FLIPS)
    second = make_device(start_cloud("key-two"))
    other_id = finished(second, FLIPS[:1])
    assert first.fetch(job_id) == FLIPPED
    assert second.fetch(other_id) == FLIPPED[:1]


def test_the_key_is_nowhere_to_be_seen(start_cloud, make_device, tmp_path, caplog):
    key = "c0ffee-c0ffee-c0ffee"
    cloud = start_cloud(key)
    device = make_device(cloud)
    with caplog.at_level(0):
        cloud.fault(kind="refuse", endpoint="submit", message=f"the key {key} has no credit")
        with pytest.raises(RefusedError, match="the key <key> has no credit") as refused:
            device.submit(FLIPS, 10, ticket="a")
        cloud.fault(kind="status", endpoint="submit", message=f"oops {key}")
        with pytest.raises(DeviceError, match="oops <key>") as unclear:
            device.submit(FLIPS, 10, ticket="b")
    process = Path(f"/proc/{worker_of(device).pid}")
    scratch = Path(os.readlink(process / "cwd"))
    seen = [(process / name).read_bytes() for name in ("cmdline", "environ")]
    seen += [file.read_bytes() for folder in (tmp_path, scratch) for file in folder.rglob("*") if file.is_file()]
    texts = [repr(device), repr(vars(device)), repr(vars(worker_of(device))), str(refused.value), repr(unclear.value)]
    assert len(seen) >= 4
    assert key.encode() not in b"".join(seen)
    assert key not in "".join(texts) + caplog.text
    assert (tmp_path / "outbox").stat().st_mode & 0o077 == 0
    device.close()
    assert not scratch.exists()


def test_the_key_is_not_in_what_the_cloud_says_of_a_job(start_cloud, make_device):
    key = "c0ffee-c0ffee-c0ffee"
    cloud = start_cloud(key)
    device = make_device(cloud)
    cloud.fault(kind="fail_job", message=f"{key} ran out of credit")
    job_id = finished(device, FLIPS)
    assert device.poll(job_id).message == "<key> ran out of credit"
    cloud.fault(kind="refuse", endpoint="detail", message=f"{key} may not see this")
    with pytest.raises(JobError, match="<key> may not see this"):
        device.poll(job_id)


# Submissions that go wrong


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "drop"}, {"kind": "spoil"}])
@pytest.mark.parametrize("after", [True, False])
def test_an_unclear_answer_to_a_submission_is_no_refusal_and_nothing_is_sent_again(
    origin_device, origin_cloud, fault, after
):
    before = origin_cloud.stats()["jobs"]
    ticket = f"{fault} {after}"
    origin_cloud.fault(endpoint="submit", after=after, **fault)
    with pytest.raises(DeviceError, match="is not known") as error:
        origin_device.submit(FLIPS, 10, ticket=ticket)
    assert not isinstance(error.value, RefusedError | CredentialsError)
    with pytest.raises(JobError):
        origin_device.find_job(ticket)
    happened = after or fault["kind"] == "spoil"  # a spoilt answer is one to a job that was taken
    assert origin_cloud.stats()["jobs"] == before + happened


def test_an_interrupt_before_a_worker_has_the_job_is_certain(start_cloud, make_device, monkeypatch):
    device = make_device(start_cloud())
    device.capabilities()
    device.close()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Cloud, "_running", interrupt)
        with pytest.raises(KeyboardInterrupt):
            device.submit(FLIPS, 10, ticket="interrupted")
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert device.find_job("interrupted") is None
    assert pauses == []  # as for a worker that may still send it


def test_a_refusal_is_certain(origin_device, origin_cloud):
    origin_cloud.fault(kind="refuse", endpoint="submit", message="no credit left")
    with pytest.raises(RefusedError, match="no credit left"):
        origin_device.submit(FLIPS, 10, ticket="poor")
    assert origin_device.find_job("poor") is None


def test_a_cloud_that_cannot_be_reached_has_no_job(start_cloud, make_device, no_pauses):
    with EmulatorThread(chip="perfect") as gone:
        url = gone.url
    start_cloud()
    device = make_device(url)
    with pytest.raises(RefusedError, match="cannot be reached"):
        device.submit(FLIPS, 10, ticket="early")
    assert device.find_job("early") is None


def test_a_cloud_that_goes_away_just_before_a_submission_has_no_job(start_cloud, make_device):
    with EmulatorThread(chip="perfect", api_key="k-1") as cloud:
        start_cloud("k-1")
        device = make_device(cloud)
        finished(device, FLIPS)
    with pytest.raises(RefusedError, match="nothing was sent"):
        device.submit(FLIPS, 10, ticket="late")
    assert device.find_job("late") is None


# A worker that dies


def test_a_worker_that_is_killed_over_a_submission_is_an_error_and_the_next_call_has_another(start_cloud, make_device):
    cloud = start_cloud()
    device = make_device(cloud)
    job_id = finished(device, FLIPS)
    cloud.fault(kind="delay", endpoint="submit", seconds=1)
    threading.Timer(0.3, os.kill, (worker_of(device).pid, signal.SIGKILL)).start()
    with pytest.raises(DeviceError, match=r"died during 'submit' \(exit code -9\)"):
        device.submit(FLIPS, 10)
    assert device.fetch(job_id) == FLIPPED


def test_a_calibration_that_crashes_the_client_is_an_error_and_does_not_reach_this_process(
    start_cloud, make_device, monkeypatch, no_pauses
):
    cloud = start_cloud()
    device = make_device(cloud)
    whole = messages.chip_info
    with monkeypatch.context() as patch:
        patch.setattr(messages, "chip_info", lambda chip: {**whole(chip), "CompensateAngle": {"0-1": {}}})
        with pytest.raises(DeviceError, match="died during 'chip'"):
            device.calibration()
    assert len(device.calibration().qubits) == 72


def test_a_client_that_is_not_installed_is_named(start_cloud, make_device, tmp_path, monkeypatch):
    (tmp_path / "pyqpanda3").mkdir()
    (tmp_path / "pyqpanda3" / "__init__.py").write_text("raise ImportError('none of it here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"pip install 'qpeft\[origin\]'.*none of it here"):
        make_device(start_cloud()).capabilities()


def test_chips_are_listed_with_what_lives_on_them(start_cloud):
    (listed,) = list_chips(start_cloud(chip="wukong").url)
    assert (listed.name, listed.is_online, listed.chip.num_listed, len(listed.chip.qubits)) == ("72", True, 72, 66)
    assert all(0.9 < fidelity < 1 for fidelity in listed.chip.median_fidelities)


def test_a_run_in_several_jobs_has_all_results(origin_device, monkeypatch):
    monkeypatch.setattr("qpeft.devices.origin.device.MAX_PROGRAMS", 2)
    assert run(origin_device, FLIPS, 10, seconds_between_polls=0.01) == FLIPPED
