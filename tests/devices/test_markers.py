"""Circuits of known outcome: how many, where, what they notice, and that they never cry wolf."""

import random

import pytest
import torch

from qpeft.circuits import Circuit, Operation, ansatz, bind
from qpeft.devices import JobState, JobStatus, LocalDevice, run
from qpeft.devices.markers import check_order, draw_markers, marker_circuit, num_markers, with_markers
from qpeft.devices.protocol import Capabilities
from qpeft.errors import OrderError
from qpeft.simulation.noise import EdgeNoise, NoiseModel, QubitNoise, ReadoutError
from qpeft_emulator.faults import places

ORDERS = ["reverse", "rotate", "halves", "interleave", "shuffle"]


def capabilities(most, answers_by_place=True):
    return Capabilities(
        name="fake",
        num_qubits=8,
        gate_names=frozenset({"X"}),
        max_shots=None,
        max_circuits=most,
        can_be_exact=False,
        is_remote=True,
        answers_by_place=answers_by_place,
    )


@pytest.mark.parametrize("most", [1, 7, 48, 49, 50, 99, 100, 147, 200, 1000])
def test_at_most_2_in_100_circuits_are_markers_and_a_full_job_still_fits(most):
    assert all(num_markers(n) * 50 <= n + num_markers(n) for n in range(most + 1))
    size = capabilities(most).circuits_per_job
    assert most - 1 <= size + num_markers(size) <= most
    assert capabilities(most, answers_by_place=False).circuits_per_job == most


def test_a_job_has_a_marker_as_soon_as_the_share_allows_it():
    assert [num_markers(n) for n in (0, 1, 48, 49, 97, 98, 196)] == [0, 0, 0, 1, 1, 2, 4]
    assert draw_markers("job", 48, 4) == {}
    assert capabilities(None).circuits_per_job is None


@pytest.mark.parametrize(("num_circuits", "num_qubits"), [(49, 1), (60, 2), (98, 3), (196, 4), (980, 8), (500, 12)])
def test_markers_are_spread_never_in_the_middle_never_zeros_and_belong_to_their_job(num_circuits, num_qubits):
    for number in range(200):
        markers = draw_markers(f"job {number}", num_circuits, num_qubits)
        count = num_markers(num_circuits)
        total = num_circuits + count
        assert len(markers) == count
        parts = {place * count // total for place in markers}
        assert len(parts) >= count - 1  # one in each equal part, but for rounding at their borders
        assert all(2 * place != total - 1 and 0 < place < total - 1 for place in markers)
        assert all(len(outcome) == num_qubits and "1" in outcome for outcome in markers.values())
        assert len(set(markers.values())) >= min(count, 2**num_qubits - 1) - (num_qubits > 8)
        assert draw_markers(f"job {number}", num_circuits, num_qubits) == markers
    drawn = {tuple(draw_markers(f"job {number}", num_circuits, num_qubits)) for number in range(200)}
    assert len(drawn) > 30


def test_markers_stand_at_their_places_among_the_circuits_in_their_order():
    circuits = [Circuit(2, (Operation("RX", (0,), float(number)),)) for number in range(98)]
    markers = draw_markers("job", 98, 2)
    whole = with_markers(circuits, markers)
    assert [circuit for place, circuit in enumerate(whole) if place not in markers] == circuits
    assert marker_circuit("010") == Circuit(3, (Operation("X", (1,)),))
    assert run(LocalDevice(), [marker_circuit("0110")], None) == [{"0110": 1.0}]


@pytest.fixture(scope="module")
def chip():
    """By width: results of ring circuits, and a function that gives the result of a marker, on a noisy chip."""

    def on(num_qubits, scale=1.0, shots=1000):
        # 1 % per gate, 4 % per CZ, readout that is wrong in 5 and 10 %: no better than Wukong is listed.
        noise = NoiseModel.uniform(
            num_qubits,
            qubit=QubitNoise(depolarising=0.01, readout=ReadoutError(0.05, 0.1)),
            **({"edge": EdgeNoise(0.04)} if num_qubits > 1 else {}),
        )
        device, circuit = LocalDevice(num_qubits=num_qubits, seed=1, noise=noise), ansatz.ring_cz(num_qubits)
        generator = torch.Generator().manual_seed(2)
        weights = (scale * torch.randn(circuit.num_weights, generator=generator)).tolist()
        rows = (scale * torch.randn(100, circuit.num_inputs, generator=generator)).tolist()
        pool = run(device, [bind(circuit, row, weights) for row in rows], shots)
        return pool, lambda outcome: run(device, [marker_circuit(outcome)], shots)[0]

    return on


def misses(pool, marker_result, num_qubits, num_circuits, order, jobs, shots=1000):
    """In how many of so many jobs this order goes unnoticed; the right one must never be refused."""
    chance, missed = random.Random(order), 0
    for number in range(jobs):
        markers = draw_markers(f"{number} {order}", num_circuits, num_qubits)
        total = num_circuits + len(markers)
        results = [marker_result(markers[k]) if k in markers else chance.choice(pool) for k in range(total)]
        check_order(markers, results, shots)
        try:
            check_order(markers, [results[k] for k in places(order, str(number), total)], shots)
        except OrderError:
            continue
        missed += 1
    return missed


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_full_job_in_another_order_is_noticed_and_the_right_one_is_never_refused(chip, order, scale):
    assert misses(*chip(4, scale), 4, 196, order, jobs=100) == 0


@pytest.mark.parametrize("order", ORDERS)
def test_a_single_marker_of_two_qubits_notices_nearly_all(chip, order):
    # 4 to 7 % of 3,000 jobs went unnoticed; 20 of 100 would be 5 standard errors from that.
    assert misses(*chip(2), 2, 49, order, jobs=100) < 20


@pytest.mark.parametrize("shots", [1, 5, 20])
def test_few_shots_never_refuse_the_right_order(chip, shots):
    pool, marker_result = chip(4, shots=shots)
    misses(pool, marker_result, 4, 98, "reverse", jobs=100, shots=shots)


def test_the_error_says_how_many_are_wrong_where_one_went_and_holds_what_came():
    markers = draw_markers("job", 98, 4)
    results = [{markers[k]: 1.0} if k in markers else {"0000": 1.0} for k in range(100)]
    check_order(markers, results, 1000)
    first, last = sorted(markers)
    with pytest.raises(OrderError) as error:
        check_order(markers, results[::-1], 1000)
    assert f"2 circuits of known outcome, at places {first}, {last} of 100, 2 came back as something else" in str(
        error.value
    )
    assert f"(that of place {first} stands at {99 - first})" in str(error.value)
    assert error.value.replies == [results[::-1]]


def test_a_failed_marker_alone_is_refused_too_and_corrected_shares_may_be_negative():
    markers = draw_markers("job", 49, 2)
    [(place, outcome)] = markers.items()
    other = "".join("10"[int(bit)] for bit in outcome)
    results = [{"00": 1.0}] * 50
    check_order(markers, [*results[:place], {outcome: 1.02, other: -0.02}, *results[place + 1 :]], 1000)
    with pytest.raises(OrderError, match="or the qubits have failed: of 1 circuits"):
        check_order(markers, [*results[:place], {outcome: 0.5, other: 0.5}, *results[place + 1 :]], 1000)
    with pytest.raises(OrderError):
        check_order(markers, [*results[:place], {"111": 1.0}, *results[place + 1 :]], 1000)


class Perfect(LocalDevice):
    """A cloud whose answers come in an order of its own."""

    def __init__(self, order):
        super().__init__(num_qubits=2)
        self.order, self.sizes = order, []

    def capabilities(self):
        return capabilities(100)

    def submit(self, circuits, shots, *, ticket=None):
        self.sizes.append(len(circuits))
        self._circuits = list(circuits)
        return super().submit(circuits, shots, ticket=ticket)

    def poll(self, job_id):
        return super().poll(job_id) if self._circuits else JobStatus(JobState.FAILED)

    def fetch(self, job_id):
        return self.order(super().fetch(job_id))


def flips(number):
    return [Circuit(2, (Operation("RX", (0,), 0.001 * n),)) for n in range(number)]


def test_running_without_a_journal_has_markers_too(monkeypatch):
    monkeypatch.setattr("qpeft.devices.local.check_request", lambda *_: None)
    device = Perfect(order=list)
    assert len(run(device, flips(120), 100)) == 120
    assert device.sizes == [100, 22]
    with pytest.raises(OrderError, match="2 circuits of known outcome"):
        run(Perfect(order=lambda results: results[::-1]), flips(120), 100)
