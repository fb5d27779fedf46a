"""Results in another order, by the vendor's client from the emulator: noticed before any of them is used."""

import math
import time

import pytest

from qpeft.circuits import Circuit, Operation, ansatz, bind
from qpeft.devices import CallKey, Journal, JournalledRunner, run
from qpeft.devices.journal import BatchState
from qpeft.devices.origin.replies import check_same, task_of
from qpeft.errors import DeviceError, OrderError
from qpeft_emulator.faults import places

ORDERS = ["reverse", "rotate", "halves", "interleave", "shuffle"]
KEY = CallKey("v_proj")


def turns(number, num_qubits=4):
    """Circuits of one width that nothing but their results tells apart."""
    return [
        Circuit(num_qubits, tuple(Operation("RY", (q,), 0.05 * (n + 1) + q) for q in range(num_qubits)))
        for n in range(number)
    ]


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def runner(journal):
    return JournalledRunner(journal, "run", seconds_between_polls=0.01)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("replies", ["all", "later"])
def test_a_job_in_another_order_is_refused_and_taken_once_it_is_right(
    origin_device, origin_cloud, runner, journal, order, replies
):
    before = origin_cloud.stats()["circuits"]
    origin_cloud.fault(kind="reorder", order=order, replies=replies, times=None)
    with pytest.raises(OrderError, match=r"Nothing of it is used.*--resume") as error:
        runner(origin_device, turns(98), 200, key=KEY)
    assert ("known outcome" if replies == "all" else "asked twice") in str(error.value)
    assert [batch.state for batch in journal.batches()] == [BatchState.SUBMITTED]
    origin_cloud.server.faults.clear()
    results = runner(origin_device, turns(98), 200, key=KEY)
    for place, result in enumerate(results):
        for qubit in range(4):
            share = sum(part for bits, part in result.items() if bits[qubit] == "1")
            exact = math.sin((0.05 * (place + 1) + qubit) / 2) ** 2
            assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / 200) + 0.01
    # 98 and two of known outcome, sent once.
    assert origin_cloud.stats()["circuits"] - before == 100
    assert journal.spent("run").circuits == 100


@pytest.mark.parametrize("order", ["reverse", "rotate", "halves", "shuffle"])
def test_a_small_job_is_compared_with_the_first_answer_about_it(origin_device, origin_cloud, runner, order):
    origin_cloud.fault(kind="reorder", order=order, replies="later", times=None)
    with pytest.raises(OrderError, match=r"asked twice.* the same results in another order: [3-8] of 8 differ"):
        runner(origin_device, turns(8), 200, key=KEY)
    origin_cloud.server.faults.clear()
    assert len(runner(origin_device, turns(8), 200, key=KEY)) == 8


def finished(device, circuits):
    job_id = device.submit(circuits, 50)
    while not device.poll(job_id).state.is_final:
        time.sleep(0.01)
    return job_id


def test_a_process_that_never_polled_the_job_asks_twice(origin_device, origin_cloud, make_device):
    job_id = finished(origin_device, turns(8))
    other = make_device(origin_cloud)
    origin_cloud.fault(kind="reorder", times=1)
    with pytest.raises(OrderError) as error:
        other.fetch(job_id)
    first, second = error.value.replies
    assert first == second[::-1]
    assert other.fetch(job_id) == origin_device.fetch(job_id) == first


def test_two_answers_may_differ_by_rounding_and_by_nothing_else():
    shares = [{"0": 0.25, "1": 0.75}, {"0": 1.0}]
    check_same(shares, [{"1": 0.75 + 1e-9, "0": 0.25}, {"0": 1.0, "1": 0.0}], "job")
    with pytest.raises(OrderError, match="different results: 1 of 2 differ, the first of them at place 1"):
        check_same(shares, [shares[0], {"0": 0.9, "1": 0.1}], "job")
    with pytest.raises(OrderError, match="gave 2 and 1 results"):
        check_same(shares, shares[:1], "job")
    with pytest.raises(OrderError, match="the same results in another order: 2 of 2"):
        check_same(shares, shares[::-1], "job")


def test_results_of_another_job_are_noticed(origin_device, origin_cloud, runner, monkeypatch):
    other = finished(origin_device, turns(50)).partition("@")[0]
    real = origin_cloud.server.cloud.detail
    mixed_up = {"taskResult", "probCount", "measureQubitSize"}

    def answer(job_id):
        # The cloud mixes up two jobs of one size, but not the id that it was asked about.
        whole = real(job_id)
        return whole | {name: value for name, value in real(other).items() if name in mixed_up and whole["taskResult"]}

    monkeypatch.setattr(origin_cloud.server.cloud, "detail", answer)
    with pytest.raises(OrderError, match="known outcome"):
        runner(origin_device, turns(49), 200, key=KEY)
    monkeypatch.undo()
    assert len(runner(origin_device, turns(49), 200, key=KEY)) == 49


def test_an_answer_that_names_another_job_is_an_error():
    assert task_of({"success": True, "obj": {"taskId": "9a3f"}}, "9A3F") == {"taskId": "9a3f"}
    with pytest.raises(DeviceError, match="asked about job 9A3F and answered about '77'"):
        task_of({"success": True, "obj": {"taskId": "77"}}, "9A3F")


@pytest.mark.parametrize("order", ["reverse", "shuffle"])
def test_programs_of_several_circuits_are_checked_too(origin_cloud, make_device, runner, order):
    device = make_device(origin_cloud, side_by_side=2, amend=False)
    ring = ansatz.ring_cz(4)
    circuits = [bind(ring, [0.01 * n] * ring.num_inputs, [0.3] * ring.num_weights) for n in range(98)]
    before = origin_cloud.stats()["circuits"]
    origin_cloud.fault(kind="reorder", order=order, times=None)
    with pytest.raises(OrderError, match="known outcome"):
        runner(device, circuits, 200, key=KEY)
    origin_cloud.server.faults.clear()
    assert len(runner(device, circuits, 200, key=KEY)) == 98
    assert origin_cloud.stats()["circuits"] - before == 50  # programs: 98 circuits and two of known outcome


def test_a_job_on_the_noisy_chip_in_its_right_order_is_taken(start_cloud, make_device, runner):
    cloud = start_cloud(chip="wukong", seed=5)
    device = make_device(cloud, chip="72", amend=False)
    assert len(runner(device, turns(49), 20, key=KEY)) == 49
    cloud.fault(kind="reorder", times=None)
    with pytest.raises(OrderError):
        run(device, turns(49), 200, seconds_between_polls=0.01)


def test_the_journal_fetches_a_marked_job_by_the_id_that_the_cloud_shows(origin_device, origin_cloud, journal, runner):
    origin_cloud.fault(kind="drop", endpoint="submit", after=True)
    with pytest.raises(DeviceError, match="may or may not have a job"):
        runner(origin_device, turns(49), 50, key=KEY)
    job = list(origin_cloud.stats()["per_job"])[-1]
    journal.settle(journal.batch(1), BatchState.SUBMITTED, message="test", job_id=job)
    assert len(runner(origin_device, turns(49), 50, key=KEY)) == 49


def test_every_order_is_a_permutation_that_moves_nearly_all_and_is_the_same_for_a_job():
    for order in ORDERS:
        for total in (2, 7, 8, 200):
            moved = places(order, "job", total)
            assert sorted(moved) == list(range(total))
            assert moved == places(order, "job", total)
        assert places(order, "job", 0) == []
        assert sum(place == k for k, place in enumerate(places(order, "job", 200))) <= 5
    assert places("rotate", "job", 4) == [1, 2, 3, 0]
    assert places("halves", "job", 5) == [2, 3, 4, 0, 1]
    assert places("interleave", "job", 5) == [0, 3, 1, 4, 2]
    assert places("shuffle", "job", 20) != places("shuffle", "another job", 20)
