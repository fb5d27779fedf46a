"""Several circuits in one program: on places of their own, and apart again in the results."""

import dense_oracle as dense
import numpy as np
import pytest

from qpeft.circuits import Circuit, Operation, ansatz, bind
from qpeft.devices import JobState, run
from qpeft.devices.origin.outbox import Contents, side_by_side
from qpeft.errors import RefusedError
from qpeft_emulator import parse_origin_ir
from qpeft_emulator.chip import wukong

RING = ansatz.ring_cz(4)


def rings(number):
    """Circuits that differ in their angles."""
    draws = np.random.default_rng(3).uniform(-np.pi, np.pi, (number, RING.num_inputs + RING.num_weights))
    return [bind(RING, row[: RING.num_inputs], row[RING.num_inputs :]) for row in draws]


def test_programs_hold_each_circuit_on_its_block_and_measure_all_of_them():
    turns = [Circuit(2, (Operation("RY", (0,), angle), Operation("CZ", (0, 1)))) for angle in (0.1, 0.2, 0.3)]
    programs = side_by_side(turns, [(5, 4), (0, 1)])
    assert [program.contents for program in programs] == [Contents(2, 2), Contents(2, 1)]
    first, second = (parse_origin_ir(program.text) for program in programs)
    assert first.measurements == ((5, 0), (4, 1), (0, 2), (1, 3))
    assert [(o.gate_name, o.qubits, o.angle) for o in first.circuit.operations] == [
        ("RY", (5,), 0.1),
        ("CZ", (5, 4), None),
        ("RY", (0,), 0.2),
        ("CZ", (0, 1), None),
    ]
    assert second.measurements == ((5, 0), (4, 1))
    assert second.circuit.operations[0].angle == 0.3


def test_each_circuit_has_the_shares_that_it_has_alone(origin_cloud, make_device):
    device = make_device(origin_cloud, side_by_side=True, amend=False)
    circuits, before = rings(40), origin_cloud.stats()["circuits"]
    results = run(device, circuits, 2000, seconds_between_polls=0.01)
    assert device.num_blocks == 18  # a grid of 6 by 12 in squares
    assert origin_cloud.stats()["circuits"] - before == 3
    for circuit, result in zip(circuits, results, strict=True):
        exact = np.abs(dense.final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1)) ** 2
        shares = np.array([result.get(f"{k:04b}", 0.0) for k in range(16)])
        assert (np.abs(shares - exact) < 5 * np.sqrt(exact * (1 - exact) / 2000) + 1 / 2000).all()


def test_on_wukong_only_what_lives_is_used_and_another_process_reads_the_results(start_cloud, make_device):
    cloud = start_cloud(chip="wukong")
    device = make_device(cloud, chip="origin_wukong", side_by_side=3, amend=False)
    assert device.capabilities().max_circuits == 600
    job_id = device.submit(rings(5), 50)
    assert job_id.endswith("@4:3x1,4:2x1")
    assert device.num_blocks == 3
    other = make_device(cloud, chip="origin_wukong")
    while not (status := other.poll(job_id)).state.is_final:
        pass
    assert status.state is JobState.FINISHED, status
    results = other.fetch(job_id)
    assert [sum(result.values()) for result in results] == [pytest.approx(1)] * 5
    living = wukong(0)
    used = parse_origin_ir(side_by_side(rings(3), device._blocks[next(iter(device._blocks))])[0].text)
    assert all(living.has_edge(*o.qubits) for o in used.circuit.operations if len(o.qubits) == 2)


@pytest.mark.parametrize(
    ("options", "circuits", "message"),
    [
        ({"side_by_side": True}, [Circuit(2, (Operation("H", (k,)),)) for k in (0, 1)], "differ in nothing but angles"),
        ({"side_by_side": True}, [rings(1)[0], Circuit(3, ())], "differ in nothing but angles"),
        ({"side_by_side": 30}, rings(1), "places for 18 of these circuits"),
        ({"side_by_side": True}, [bind(ansatz.ring_cz(5), [0] * 5, [0] * 10)], "No place"),
        ({"side_by_side": True}, rings(1) * 201, "at most 200"),
    ],
)
def test_what_cannot_go_side_by_side_is_refused(origin_cloud, make_device, options, circuits, message):
    before = origin_cloud.stats()["jobs"]
    with pytest.raises(RefusedError, match=message):
        make_device(origin_cloud, amend=False, **options).submit(circuits, 10)
    assert origin_cloud.stats()["jobs"] == before
