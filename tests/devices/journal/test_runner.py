"""The runner without interruptions: order, repetition, splitting, failures, budget, cache."""

from dataclasses import replace

import pytest
import torch
from fake_device import FakeDevice, outcome, rotation

from qpeft.circuits import Circuit, Input, Operation, ansatz
from qpeft.devices import CallKey, JobState, JobStatus, LocalDevice, device_expectations
from qpeft.devices.budget import Budget, Cost
from qpeft.devices.journal import BatchState
from qpeft.devices.queue import JournalledRunner
from qpeft.errors import BudgetError, CredentialsError, DeviceError, JobError, JournalError, RefusedError, ShotsError
from qpeft.simulation.noise import NoiseModel, QubitNoise


def expected(circuits, jobs_of):
    """What the fake device says of each circuit, given the number of the job in which it was."""
    return [outcome(str(circuit), job, 2) for circuit, job in zip(circuits, jobs_of, strict=True)]


def test_equal_circuits_are_sent_once_and_answered_in_order(runner, device, circuits, key):
    results = runner(device, circuits, 1000, key=key)
    assert results == expected(circuits, [0, 0, 0, 0, 1, 0])
    assert [len(job["circuits"]) for job in device.jobs()] == [4, 1]


def test_a_key_that_comes_back_is_answered_without_the_device(runner, device, circuits, key):
    first = runner(device, circuits, 1000, key=key)
    device.passed.clear()
    again = runner(device, circuits, 1000, key=key)
    assert again == first
    assert device.passed == {}
    again[1]["00"] = 7.0
    assert again[5] == first[5]


def test_other_keys_get_samples_of_their_own(runner, device, circuits, key):
    first = runner(device, circuits, 1000, key=key)
    for other in (replace(key, step=4), replace(key, call=1), replace(key, module="q"), replace(key, part="gradient")):
        assert runner(device, circuits, 1000, key=other) != first
    assert set(device.runs().values()) == {5}


@pytest.mark.parametrize("what", ["angle", "order", "shots", "device", "options"])
def test_a_key_that_comes_back_for_something_else_is_an_error(runner, journal, tmp_path, device, circuits, key, what):
    runner(device, circuits, 1000, key=key)
    sent, shots = device.runs(), 999 if what == "shots" else 1000
    if what == "angle":
        circuits = [rotation(1e-17), *circuits[1:]]
    elif what == "order":
        circuits = circuits[::-1]
    elif what == "device":
        device = FakeDevice(tmp_path / "store", name="other")
    elif what == "options":
        runner = JournalledRunner(journal, "run", options={"chip": "72"})
    with pytest.raises(JournalError, match="step 3, module v_proj, call 0, values"):
        runner(device, circuits, shots, key=key)
    assert device.runs() == sent


def test_an_unbound_circuit_or_a_bad_number_of_shots_leaves_no_trace(runner, journal, device, key):
    unbound = Circuit(1, (Operation("RY", (0,), Input(0)),))
    with pytest.raises(JournalError, match="bind"):
        runner(device, [unbound], 1000, key=key)
    with pytest.raises(ShotsError):
        runner(device, [rotation(0.0)], 0, key=key)
    assert journal.batches() == []


def test_no_circuits_need_no_device(runner, device, key):
    assert runner(device, [], 1000, key=key) == []
    assert device.jobs() == []


def test_a_failed_job_is_named_and_the_others_are_kept(runner, journal, tmp_path, circuits, key):
    failing = FakeDevice(tmp_path / "store", fail=[0])
    with pytest.raises(JobError, match=r"Batch 1 .*job-0, failed: cooling failed"):
        runner(failing, circuits, 1000, key=key)
    assert [batch.state for batch in journal.batches()] == [BatchState.FAILED, BatchState.FINISHED]
    results = runner(failing, circuits, 1000, key=key)
    assert results == expected(circuits, [2, 2, 2, 2, 1, 2])
    assert journal.spent("run").circuits == 9


def test_a_job_that_only_seemed_to_fail_is_fetched_and_not_sent_again(runner, tmp_path, circuits, key):
    seeming = FakeDevice(tmp_path / "store", fail=[0])
    with pytest.raises(JobError):
        runner(seeming, circuits, 1000, key=key)
    assert runner(FakeDevice(tmp_path / "store"), circuits, 1000, key=key) == expected(circuits, [0, 0, 0, 0, 1, 0])


@pytest.mark.parametrize("error", [RefusedError, CredentialsError])
def test_a_refusal_costs_nothing_and_is_sent_again(runner, journal, device, circuits, key, error, monkeypatch):
    monkeypatch.setattr(device, "submit", raiser(error("no such chip")))
    with pytest.raises(error, match="no such chip"):
        runner(device, circuits, 1000, key=key)
    assert journal.spent("run").circuits == 0
    monkeypatch.undo()
    assert runner(device, circuits, 1000, key=key) == expected(circuits, [0, 0, 0, 0, 1, 0])


def test_any_other_error_of_a_submission_stops_the_run(runner, journal, device, circuits, key, monkeypatch):
    monkeypatch.setattr(device, "submit", raiser(DeviceError("502 bad gateway")))
    for words in ("502 bad gateway", "qpeft jobs settle 1 --resubmit.*--lost"):
        with pytest.raises(JournalError, match=words):
            runner(device, circuits, 1000, key=key)
    monkeypatch.undo()
    with pytest.raises(JournalError, match="may or may not"):
        runner(device, circuits, 1000, key=key)
    assert device.jobs() == []
    journal.settle(journal.batch(1), BatchState.LOST, message="test")
    with pytest.raises(JobError, match=r"Batch 1 .* settled as lost"):
        runner(device, circuits, 1000, key=key)


def raiser(error):
    def raises(*_, **__):
        raise error

    return raises


def test_results_that_do_not_fit_are_an_error_and_can_be_fetched_later(runner, device, circuits, key, monkeypatch):
    monkeypatch.setattr(device, "fetch", lambda _: [{"00": 1.0}])
    with pytest.raises(DeviceError, match="4 circuits were sent and 1 results came back"):
        runner(device, circuits, 1000, key=key)
    monkeypatch.undo()
    assert runner(device, circuits, 1000, key=key) == expected(circuits, [0, 0, 0, 0, 1, 0])
    assert len(device.jobs()) == 2


def test_shares_below_0_as_corrected_readout_has_them_are_kept(runner, device, key, monkeypatch):
    monkeypatch.setattr(device, "fetch", lambda _: [{"00": 1.03, "11": -0.03}])
    assert runner(device, [rotation(0.0)], 1000, key=key) == [{"00": 1.03, "11": -0.03}]


@pytest.mark.parametrize("shares", [{"00": 0.9}, {"00": 2.5, "11": -1.5}, {"00": float("nan")}, {}])
def test_shares_that_are_no_distribution_are_never_kept(runner, journal, device, key, monkeypatch, shares):
    monkeypatch.setattr(device, "fetch", lambda _: [shares])
    with pytest.raises(DeviceError, match="is no distribution"):
        runner(device, [rotation(0.0)], 1000, key=key)
    assert journal.batch(1).state is BatchState.SUBMITTED


def test_a_job_that_the_device_forgot_says_how_to_settle_it(runner, device, circuits, key, monkeypatch):
    monkeypatch.setattr(device, "poll", raiser(JobError("There is no job 5.")))
    with pytest.raises(JobError, match=r"There is no job 5\. If it is gone for good: `qpeft jobs settle 1 --resubmit"):
        runner(device, circuits, 1000, key=key)


def test_jobs_that_end_with_their_process_are_sent_again_by_another_device_object(runner, tmp_path, circuits, key):
    first = FakeDevice(tmp_path / "first", keeps_jobs=False, is_remote=False)
    first.poll = raiser(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        runner(first, circuits, 1000, key=key)
    # Numbers its jobs from 0 as well: its job-0 must not be taken for the first one's.
    second = FakeDevice(tmp_path / "second", keeps_jobs=False, is_remote=False)
    second.submit([rotation(9.0)] * 4, 1000)
    assert runner(second, circuits, 1000, key=key) == expected(circuits, [1, 1, 1, 1, 2, 1])


def test_jobs_that_end_with_their_process_and_may_be_paid_for_are_sent_again_by_the_user_alone(
    runner, journal, tmp_path, circuits, key
):
    first = FakeDevice(tmp_path / "store", keeps_jobs=False, max_circuits=8)
    first.poll = raiser(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        runner(first, circuits, 1000, key=key)
    second = FakeDevice(tmp_path / "store", keeps_jobs=False, max_circuits=8)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"may be paid for.*qpeft jobs settle 1 --resubmit"):
            runner(second, circuits, 1000, key=key)
    assert len(second.jobs()) == 1
    journal.settle(journal.batch(1), BatchState.PLANNED, message="test")
    assert len(runner(second, circuits, 1000, key=key)) == len(circuits)


def test_our_simulator_runs_through_the_journal(runner, key):
    circuit = Circuit(1, (Operation("RY", (0,), 0.5),))
    [result] = runner(LocalDevice(), [circuit], None, key=key)
    assert result["1"] == pytest.approx((1 - 0.8775825618903728) / 2)  # cos 0.5


def test_values_and_gradients_of_a_resumed_call_come_from_the_journal(tmp_path, journal, key):
    circuit = ansatz.ring_cz(2)

    def values_and_gradient(device):
        weights = torch.full((circuit.num_weights,), 0.3, dtype=torch.float64, requires_grad=True)
        inputs = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
        runner = JournalledRunner(journal, "run")
        found = device_expectations(
            circuit, inputs, weights, device, 1000, gradient="parameter-shift", runner=runner, key=key
        )
        found.values.sum().backward()
        return found.values.detach(), weights.grad

    device = FakeDevice(tmp_path / "store", max_circuits=200)
    first = values_and_gradient(device)
    assert len(device.jobs()) == 2
    assert set(device.runs().values()) == {1}
    device.submit = raiser(AssertionError("sent again"))
    for one, other in zip(first, values_and_gradient(device), strict=True):
        assert torch.equal(one, other)


def test_the_budget_counts_each_circuit_once_and_holds_across_resumes(journal, device, circuits, key):
    def runner():
        return JournalledRunner(journal, "run", budget=Budget(max_circuits=12, max_shots=20_000))

    for _ in range(3):
        runner()(device, circuits, 1000, key=key)
    assert (journal.spent("run").circuits, journal.spent("run").shots) == (5, 5000)
    runner()(device, circuits, 1000, key=replace(key, step=4))
    with pytest.raises(BudgetError, match="max_circuits=12: 10 spent, 5 asked, 2 left"):
        runner()(device, circuits, 1000, key=replace(key, step=5))
    assert len(device.jobs()) == 4
    with pytest.raises(BudgetError, match="max_shots=20,000: 10,000 spent, 20,000 asked, 10,000 left"):
        runner()(device, [rotation(1.0), rotation(2.0)], 10_000, key=replace(key, step=6))
    JournalledRunner(journal, "other run", budget=Budget(max_circuits=5))(device, circuits, 1000, key=key)


def test_seconds_are_measured_and_stop_the_next_submission(journal, tmp_path, circuits, key):
    device = FakeDevice(tmp_path / "store", pause=0.02)
    runner = JournalledRunner(journal, "run", budget=Budget(max_seconds=0.05))
    runner(device, circuits, 1000, key=key)
    assert journal.spent("run").seconds >= 6 * 0.02
    with pytest.raises(BudgetError, match=r"max_seconds=0\.05: 0\.\d+ spent, 0 left"):
        runner(device, circuits, 1000, key=replace(key, step=4))


def test_a_budget_says_what_is_left_and_refuses_nonsense():
    Budget(max_circuits=5).check(Cost(circuits=3), Cost(circuits=2))
    with pytest.raises(BudgetError, match="max_circuits=5: 3 spent, 3 asked, 2 left"):
        Budget(max_circuits=5).check(Cost(circuits=3), Cost(circuits=3))
    for limit in (-1, float("nan")):
        with pytest.raises(BudgetError, match="at least 0"):
            Budget(max_seconds=limit)


def test_the_cache_is_keyed_by_shots_and_calibration_and_off_by_default(journal, tmp_path, circuits, key):
    noise = [NoiseModel.uniform(2, qubit=QubitNoise(depolarising=rate)) for rate in (0.1, 0.2)]

    def run(name, shots=1000, calibration=noise[0], cache=True):
        device = FakeDevice(tmp_path / "store", noise=calibration)
        return JournalledRunner(journal, name, cache=cache)(device, circuits, shots, key=key), len(device.jobs())

    first, jobs = run("a")
    assert jobs == 2
    assert run("b") == (first, 2)
    assert journal.spent("b").circuits == 0
    assert run("c", cache=False)[1] == 4
    assert run("d", shots=999)[1] == 6
    assert run("e", calibration=noise[1])[1] == 8
    with pytest.raises(DeviceError, match="no calibration"):
        run("f", calibration=None)


def test_the_cache_sends_what_is_missing(journal, tmp_path, circuits, key):
    device = FakeDevice(tmp_path / "store", noise=NoiseModel.uniform(2))
    runner = JournalledRunner(journal, "run", cache=True)
    first = runner(device, circuits, 1000, key=key)
    more = runner(device, [rotation(7.0), *circuits], 1000, key=replace(key, step=4))
    assert more == [outcome(str(rotation(7.0)), 2, 2), *first]


def test_a_failed_answer_is_asked_about_before_it_is_sent_again(runner, device, circuits, key, monkeypatch):
    monkeypatch.setattr(device, "poll", lambda _: JobStatus(JobState.FAILED, "wrong key"))
    with pytest.raises(JobError, match="wrong key"):
        runner(device, circuits, 1000, key=key)
    monkeypatch.undo()
    runner(device, circuits, 1000, key=key)
    assert len(device.jobs()) == 2


def test_call_keys_of_gradients_and_values_are_told_apart(runner, device, key):
    runner(device, [rotation(0.0)], 10, key=key)
    runner(device, [rotation(1.0)], 10, key=CallKey(key.module, key.step, key.call, "gradient"))
    assert len(device.jobs()) == 2


def test_a_ticket_is_noted_before_the_journal_intends_to_send(runner, journal, device, circuits, key, monkeypatch):
    noted = {}
    monkeypatch.setattr(device, "prepare", lambda ticket: noted.setdefault(ticket, journal.batches()[len(noted)].state))
    runner(device, circuits, 1000, key=key)
    assert set(noted.values()) == {BatchState.PLANNED}
    assert [job["ticket"] for job in device.jobs()] == list(noted)
