"""Jobs at IBM's service, through the vendor's own client down to where it would send: see ibm_cloud.py."""

import json
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
from ibm_cloud import BACKEND, KEY, end, results_text

import qpeft
from qpeft.circuits import Circuit, Operation
from qpeft.devices import CallKey, JobState, Journal, JournalledRunner, load_device
from qpeft.devices.ibm import jobs
from qpeft.devices.ibm.jobs import STATES, tag_of
from qpeft.devices.journal import BatchState
from qpeft.devices.protocol import check_results
from qpeft.errors import CredentialsError, DeviceError, JobError, JournalError, RefusedError

COINS = [Circuit(2, (Operation("RY", (0,), angle), Operation("X", (1,)))) for angle in (0.4, 1.3)]


def finished(device, circuits=COINS):
    job = device.submit(circuits, 100)
    while not device.poll(job).state.is_final:
        pass
    return job


def stored(cloud, job):
    return json.loads((cloud.folder / f"{job}.json").read_text())


def api_error(code, text="the server says no"):
    from qiskit_ibm_runtime.api.exceptions import RequestsApiError

    return RequestsApiError(f"{code} {text} to {KEY}", code)


def test_it_is_remote_and_keeps_its_jobs(device):
    capabilities = device.capabilities()
    assert (capabilities.is_remote, capabilities.keeps_jobs, capabilities.can_be_exact) == (True, True, False)
    assert capabilities.num_qubits == 5


def test_states_are_passed_on_in_their_order(device):
    job = device.submit(COINS, 10)
    assert [device.poll(job).state for _ in range(4)] == [
        JobState.WAITING,
        JobState.RUNNING,
        JobState.FINISHED,
        JobState.FINISHED,
    ]


def test_every_state_of_the_vendor_has_one_of_ours():
    from qiskit_ibm_runtime.runtime_job_v2 import API_TO_JOB_STATUS

    assert set(API_TO_JOB_STATUS.values()) <= set(STATES)


def test_a_job_carries_its_ticket_and_is_found_by_it(device, cloud):
    jobs = [device.submit(COINS, 10, ticket=ticket) for ticket in ("ticket-1", "ticket-2")]
    assert stored(cloud, jobs[0])["tags"] == ["qpeft", tag_of("ticket-1")]
    assert [device.find_job(ticket) for ticket in ("ticket-2", "ticket-1")] == [jobs[1], jobs[0]]


def test_a_list_without_the_job_is_no_proof_that_there_is_none(device):
    device.submit(COINS, 10, ticket="ticket-1")
    with pytest.raises(JobError, match=f"no job with tag {tag_of('ticket-2')}.*account"):
        device.find_job("ticket-2")


def test_a_tag_is_short_and_plain_whatever_the_ticket():
    assert tag_of("a" * 500 + " ü").removeprefix("qpeft-").isalnum()
    assert len(tag_of("a" * 500)) == 22
    assert tag_of("a") != tag_of("b")


def test_two_jobs_of_one_ticket_are_an_error_that_names_both(device):
    jobs = {device.submit(COINS, 10, ticket="twice") for _ in range(2)}
    with pytest.raises(JobError, match="2 jobs") as caught:
        device.find_job("twice")
    assert all(job in str(caught.value) for job in jobs)


def test_a_list_that_cannot_be_had_is_no_proof_that_there_is_no_job(device, cloud, monkeypatch):
    monkeypatch.setattr(cloud, "jobs_get", lambda *_, **__: (_ for _ in ()).throw(api_error(500)))
    with pytest.raises(JobError, match=r"cannot list the jobs with tag qpeft-.*500 the server says no to \.\.\."):
        device.find_job("a-ticket")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (400, RefusedError, "took no job"),
        (422, RefusedError, "took no job"),
        (401, CredentialsError, "QPEFT_IBM_TOKEN"),
        (403, CredentialsError, "QPEFT_IBM_TOKEN"),
        (500, DeviceError, "may or may not"),
        (-1, DeviceError, "may or may not"),
    ],
)
def test_a_submission_that_fails_says_whether_a_job_may_exist(device, cloud, code, kind, message):
    cloud.fault = ("before", api_error(code))
    with pytest.raises(DeviceError, match=message) as caught:
        device.submit(COINS, 10, ticket="a-ticket")
    assert type(caught.value) is kind
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_job_whose_answer_was_lost_is_found_again(device, cloud):
    cloud.fault = ("after", api_error(504))
    with pytest.raises(DeviceError, match="may or may not"):
        device.submit(COINS, 10, ticket="a-ticket")
    job = device.find_job("a-ticket")
    while not device.poll(job).state.is_final:
        pass
    assert len(device.fetch(job)) == 2


def test_the_journal_recovers_a_lost_answer_and_sends_nothing_twice(device, cloud, tmp_path):
    runner = JournalledRunner(Journal(tmp_path / "journal.sqlite"), "a-run", seconds_between_polls=0.01)
    cloud.fault = ("after", api_error(504))
    with pytest.raises(JournalError):
        runner(device, COINS, 100, key=CallKey())
    cloud.fault = None
    assert len(runner(device, COINS, 100, key=CallKey())) == 2
    assert len(list(cloud.folder.glob("*.json"))) == 1


def test_a_lost_answer_without_a_job_in_the_list_is_sent_again_by_the_user_alone(device, cloud, tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    runner = JournalledRunner(journal, "a-run", seconds_between_polls=0.01)
    cloud.fault = ("before", api_error(504))
    with pytest.raises(JournalError):
        runner(device, COINS, 100, key=CallKey())
    cloud.fault = None
    with pytest.raises(JournalError, match="lists no job"):
        runner(device, COINS, 100, key=CallKey())
    journal.settle(journal.batch(1), BatchState.PLANNED, message="test")
    assert len(runner(device, COINS, 100, key=CallKey())) == 2
    assert len(list(cloud.folder.glob("*.json"))) == 1


def test_a_circuit_that_the_vendors_client_refuses_is_certain_not_to_be_sent(device, monkeypatch):
    def refuse(*_):
        raise ValueError("operating on a faulty qubit 3")

    monkeypatch.setattr(jobs, "start", refuse)
    with pytest.raises(RefusedError, match=r"took no job.*faulty qubit 3"):
        device.submit(COINS, 10)


def test_an_empty_job_is_refused(device):
    with pytest.raises(RefusedError, match="at least one circuit"):
        device.submit([], 10)


def test_a_failed_job_says_why_in_the_vendors_words(device, cloud):
    job = device.submit(COINS, 10)
    end(cloud.folder, job, "Failed", "Traceback: the fridge is warm")
    status = device.poll(job)
    assert status.state is JobState.FAILED
    assert "the fridge is warm" in status.message
    with pytest.raises(JobError, match=f"(?s){job} is failed.*the fridge is warm"):
        device.fetch(job)


def test_an_unheard_of_state_is_an_error(device, cloud):
    job = device.submit(COINS, 10)
    end(cloud.folder, job, "Meditating")
    with pytest.raises(DeviceError, match=f"{job} is 'MEDITATING'; known are .*QUEUED"):
        device.poll(job)


@pytest.mark.parametrize("text", ["", "null", "not json", '{"data": []}'])
def test_results_that_cannot_be_read_are_an_error(device, cloud, text):
    job = finished(device)
    end(cloud.folder, job, "Completed", text)
    with pytest.raises(DeviceError):
        device.fetch(job)


def test_too_few_results_are_an_error(device, cloud):
    short, job = finished(device, COINS[:1]), device.submit(COINS, 10)
    end(cloud.folder, job, "Completed", results_text(cloud.folder, short))
    with pytest.raises(DeviceError, match="2 circuits were sent and 1 results came back"):
        check_results(COINS, device.fetch(job))


def test_a_job_that_ended_before_it_could_be_cancelled_is_left_alone(device, cloud):
    job = device.submit(COINS, 10)
    for _ in range(2):
        device.poll(job)  # the next question finds it completed, and so does the cancelling
    device.cancel(job)
    assert device.poll(job).state is JobState.FINISHED


def test_calibration_is_that_of_the_service_and_asked_for_anew(device, cloud, monkeypatch):
    before = device.calibration()
    assert [edge for edge, _ in before.edges] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    listed = cloud.backend_properties

    def worse(self, name, **others):
        properties = listed(self, name, **others)
        for entry in properties["qubits"][2]:
            entry["value"] = 0.9 if entry["name"] == "readout_error" else entry["value"]
        return properties

    monkeypatch.setattr(cloud, "backend_properties", worse)
    assert [qubit for qubit, _ in device.calibration().qubits] == [0, 1, 3, 4]


def test_a_new_calibration_lays_circuits_out_anew(device, cloud, monkeypatch):
    before = _qubits_used(stored(cloud, device.submit(COINS, 10)))
    monkeypatch.setattr(cloud, "backend_properties", _with_dead_qubits(cloud.backend_properties, before))
    device.calibration()
    assert not before & _qubits_used(stored(cloud, device.submit(COINS, 10)))


def _with_dead_qubits(listed, dead):
    """What the service lists, with gates of these qubits given up."""

    def properties(self, name, **others):
        found = listed(self, name, **others)
        for gate in found["gates"]:
            if dead & set(gate["qubits"]):
                gate["parameters"] = [{**entry, "value": 1.0} for entry in gate["parameters"]]
        return found

    return properties


def _qubits_used(job):
    """Of the chip, by all gates but measurements."""
    from qiskit_ibm_runtime.json import RuntimeDecoder

    pubs = json.loads(job["params"], cls=RuntimeDecoder)["pubs"]
    return {
        circuit.find_bit(qubit).index
        for circuit, *_ in pubs
        for instruction in circuit.data
        if instruction.operation.name not in ("barrier", "measure", "delay")
        for qubit in instruction.qubits
    }


OTHER_PROCESS = """
    import json, sys
    from pathlib import Path

    sys.path.append({here!r})
    import ibm_cloud
    from qpeft.devices import load_device

    ibm_cloud.install(setattr, Path({folder!r}))
    device = load_device("ibm", backend=ibm_cloud.BACKEND)
    job = device.find_job("a-ticket")
    while not device.poll(job).state.is_final:
        pass
    print(json.dumps([job, device.fetch(job)]))
"""


@pytest.mark.slow
def test_another_process_fetches_the_same_results(device, cloud):
    job = device.submit(COINS, 100, ticket="a-ticket")
    script = textwrap.dedent(OTHER_PROCESS).format(here=str(Path(__file__).parent), folder=str(cloud.folder))
    source = str(Path(qpeft.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [job, device.fetch(job)]
    assert KEY not in done.stdout + done.stderr


def test_the_vendors_options_go_with_the_job(cloud, monkeypatch):
    monkeypatch.setenv("QPEFT_IBM_TOKEN", KEY)
    options = {"dynamical_decoupling": {"enable": True}, "environment": {"job_tags": ["mine"]}}
    device = load_device("ibm", backend=BACKEND, options=options)
    sent = stored(cloud, device.submit(COINS, 10, ticket="a-ticket"))
    assert sent["tags"] == ["mine", "qpeft", tag_of("a-ticket")]
    assert json.loads(sent["params"])["options"]["dynamical_decoupling"]["enable"] is True
