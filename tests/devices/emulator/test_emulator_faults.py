"""Bad days on request: what a client sees, and whether a job exists afterwards."""

import http.client
import time

import pytest
from emulator_process import BELL, CHIP, RESOURCES, SUBMIT, EmulatorProcess, EmulatorThread, submission, tables

FLIP = "QINIT 2\nCREG 2\nX q[1]\nMEASURE q[0],c[0]\nMEASURE q[1],c[1]\n"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_error_status_comes_once_before_or_after_acceptance(emulator, status, after):
    before = emulator.stats()["jobs"]
    emulator.fault(kind="status", endpoint="submit", status=status, after=after)
    found, reply = emulator.ask("POST", SUBMIT, submission([BELL]))
    assert (found, reply["success"]) == (status, False)
    assert emulator.stats()["jobs"] - before == int(after)
    assert emulator.ask("POST", SUBMIT, submission([BELL]))[0] == 200
    assert emulator.ask("GET", "/emulator/faults")[1] == {"faults": []}


@pytest.mark.parametrize("after", [False, True])
def test_a_dropped_connection_leaves_a_job_only_after_acceptance(emulator, after):
    before = emulator.stats()["jobs"]
    emulator.fault(kind="drop", endpoint="submit", after=after)
    with pytest.raises(http.client.RemoteDisconnected):
        emulator.ask("POST", SUBMIT, submission([BELL]))
    assert emulator.stats()["jobs"] - before == int(after)


@pytest.mark.parametrize("after", [False, True])
def test_a_late_answer_times_out_the_client_and_the_job_comes_to_be(emulator, after):
    before = emulator.stats()["jobs"]
    emulator.fault(kind="delay", endpoint="submit", seconds=0.6, after=after)
    with pytest.raises(TimeoutError):
        emulator.ask("POST", SUBMIT, submission([BELL]), timeout=0.3)
    assert emulator.stats()["jobs"] - before == int(after)
    time.sleep(0.6)
    assert emulator.stats()["jobs"] - before == 1


def test_a_refusal_a_wrong_key_and_spoilt_json_look_like_what_they_are(emulator):
    emulator.fault(kind="refuse", endpoint="chip", message="no calibration today")
    assert emulator.ask("POST", CHIP, {"ChipID": "perfect"})[1]["message"] == "no calibration today"
    emulator.fault(kind="wrong_key", endpoint="chip")
    assert emulator.ask("POST", CHIP, {"ChipID": "perfect"})[1]["message"] == "The API key is wrong."
    emulator.fault(kind="spoil", endpoint="chip")
    status, text = emulator.ask("POST", CHIP, {"ChipID": "perfect"})
    assert (status, type(text)) == (200, str)
    assert emulator.ask("POST", CHIP, {"ChipID": "perfect"})[1]["success"] is True


def test_results_come_short_or_reordered_once_and_whole_the_next_time(emulator):
    job_id = emulator.submit([BELL, FLIP, FLIP])
    whole = tables(emulator.wait(job_id)[0])
    emulator.fault(kind="short")
    assert tables(emulator.detail(job_id)) == whole[:2]
    emulator.fault(kind="reorder")
    assert tables(emulator.detail(job_id)) == whole[::-1]
    assert tables(emulator.detail(job_id)) == whole


def test_results_come_in_any_order_that_is_asked_for_and_at_first_as_they_are(emulator):
    flips = [FLIP.replace("X q[1]\n", "X q[1]\n" * turns) for turns in range(5)]
    job_id = emulator.submit([*flips, BELL])
    emulator.fault(kind="reorder", order="rotate", replies="later", times=2)
    whole = tables(emulator.wait(job_id)[0])
    assert tables(emulator.detail(job_id)) == tables(emulator.detail(job_id)) == [*whole[1:], whole[0]]
    for order, places in (("halves", [3, 4, 5, 0, 1, 2]), ("interleave", [0, 3, 1, 4, 2, 5])):
        emulator.fault(kind="reorder", order=order)
        assert tables(emulator.detail(job_id)) == [whole[place] for place in places]
    emulator.fault(kind="reorder", order="shuffle", times=2)
    shuffled = [tables(emulator.detail(job_id)) for _ in "ab"]
    assert shuffled[0] == shuffled[1] != whole
    assert tables(emulator.detail(job_id)) == whole


def test_a_job_fails_when_asked_to_with_the_message_asked_for(emulator):
    emulator.fault(kind="fail_job", message="cryostat is warm")
    detail, _ = emulator.wait(emulator.submit([BELL]))
    assert (detail["taskState"], detail["errInfo"], detail["taskResult"]) == ("4", "cryostat is warm", [])
    assert emulator.wait(emulator.submit([BELL]))[0]["taskState"] == "3"


def test_faults_can_skip_requests_come_several_times_and_be_forgotten(emulator):
    emulator.fault(kind="status", endpoint="resources", skip=1, times=2)
    seen = [emulator.ask("GET", RESOURCES)[0] for _ in range(4)]
    assert seen == [200, 503, 503, 200]
    emulator.fault(kind="status", times=None, status=429)
    assert [emulator.ask("GET", RESOURCES)[0] for _ in range(2)] == [429, 429]
    emulator.ask("DELETE", "/emulator/faults")
    assert emulator.ask("GET", RESOURCES)[0] == 200


def test_a_fault_by_chance_meets_about_its_share_of_the_requests(emulator):
    emulator.fault(kind="status", endpoint="resources", times=None, probability=0.5)
    failed = sum(emulator.ask("GET", RESOURCES)[0] == 503 for _ in range(100))
    assert 25 <= failed <= 75  # 5 standard errors


def test_an_offline_chip_says_so_and_takes_no_jobs(start_emulator):
    offline = start_emulator(online=False, chip="perfect")
    assert offline.ask("GET", RESOURCES)[1][0]["onlineFlag"] is False
    assert "is offline" in offline.ask("POST", SUBMIT, submission([BELL]))[1]["message"]


def test_a_crash_after_acceptance_loses_no_job_and_changes_no_result(tmp_path):
    store = str(tmp_path / "jobs.sqlite")
    options = ("--seconds", "0", "--store", store)
    # Undisturbed, without a store: what job 0 and job 1 give.
    with EmulatorThread(seconds=0) as undisturbed:
        expected = [
            tables(undisturbed.wait(undisturbed.submit([BELL] * 3, chip="72", mappingFlag=True))[0]) for _ in "ab"
        ]
    crash = ("--fault", '{"kind": "exit", "endpoint": "submit", "after": true, "skip": 1}')
    with EmulatorProcess(*options, *crash) as first:
        kept = first.submit([BELL] * 3, chip="72", mappingFlag=True)
        with pytest.raises(http.client.RemoteDisconnected):
            first.submit([BELL] * 3, chip="72", mappingFlag=True)
        assert first.process.wait(10) == 70
    with EmulatorProcess(*options) as second:
        per_job = second.stats()["per_job"]
        assert (len(per_job), second.stats()["circuits"]) == (2, 6)
        lost = next(job_id for job_id in per_job if job_id != kept)
        assert tables(second.wait(kept)[0]) == expected[0]
        assert tables(second.wait(lost)[0]) == expected[1]
