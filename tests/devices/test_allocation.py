"""Shots by variance: who gets how many, under which keys, and that a repeated call finds what was paid for."""

import itertools

import pytest
import torch

from qpeft.circuits import Circuit, Input, Operation, ansatz
from qpeft.devices import (
    CallKey,
    Journal,
    JournalledRunner,
    LocalDevice,
    ParameterShift,
    backward_circuits,
    backward_shots,
    device_gradients,
)
from qpeft.devices.gradients.allocation import UNITS, allocate
from qpeft.devices.protocol import Capabilities
from qpeft.errors import GradientError, ShotsError


def variance(variances, levels):
    return sum(one / 2**level for one, level in zip(variances, levels, strict=True))


def test_equal_variances_get_equal_shots():
    assert allocate([0.3] * 5) == [3] * 5
    assert allocate([0.0] * 5) == [3] * 5


@pytest.mark.parametrize("seed", range(5))
def test_no_other_choice_of_levels_is_much_better(seed):
    generator = torch.Generator().manual_seed(seed)
    variances = torch.rand(4, generator=generator).pow(6).tolist()
    levels = allocate(variances)
    assert sum(2**level for level in levels) <= UNITS * 4
    others = itertools.product(range(7), repeat=4)
    best = min(variance(variances, other) for other in others if sum(2**level for level in other) <= UNITS * 4)
    assert variance(variances, levels) <= 1.1 * best


def test_nearly_equal_variances_stay_equal_so_that_chance_in_the_pilot_does_not_matter():
    assert allocate([1.0, 1.5, 0.7, 0.9]) == [3, 3, 3, 3]


def test_the_uncertain_one_of_many_gets_eight_times_the_average_and_no_more():
    levels = allocate([1.0] + [0.0] * 20)
    assert levels[0] == 6
    assert sum(2**level for level in levels) == UNITS * 21


def test_no_circuit_gets_more_than_the_device_takes():
    assert max(allocate([1.0] + [1e-6] * 20, highest_level=4)) == 4 < max(allocate([1.0] + [1e-6] * 20))
    assert allocate([1.0, 0.5], highest_level=0) == [0, 0]


class TakesFewShots(LocalDevice):
    def capabilities(self):
        values = {**vars(super().capabilities()), "max_shots": 400}
        return Capabilities(**values)


def problem():
    circuit = ansatz.ring_cz(2)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    weights = torch.randn(circuit.num_weights, generator=generator, dtype=torch.float64)
    grad = torch.logspace(0, -3, 6, dtype=torch.float64)[:, None].expand(6, 2)
    return circuit, inputs, weights, grad


def test_each_part_has_a_key_of_its_own_and_the_device_its_limit(runner):
    key = CallKey("layer", step=3, call=1, part="anything")
    shift = ParameterShift(allocate="variance")
    device_gradients(*problem(), TakesFewShots(), 200, gradient=shift, runner=runner, key=key)
    parts = [one.part for one in runner.keys]
    assert parts[0] == "gradient pilot"
    assert parts[1:] == sorted(parts[1:])
    assert len(set(parts)) == len(parts) > 2
    assert all(part.startswith("gradient level ") for part in parts[1:])
    assert {(one.module, one.step, one.call) for one in runner.keys} == {("layer", 3, 1)}
    # A unit is 22 shots, and 16 of them are within the limit of 400, 32 are not.
    assert max(runner.shots) == 352


def test_circuits_and_shots_are_as_announced(runner):
    circuit, inputs, weights, grad = problem()
    shift = ParameterShift(allocate="variance", weight_rows=4)
    device_gradients(circuit, inputs, weights, grad, LocalDevice(), 500, gradient=shift, runner=runner)
    # Two inputs of two terms for 6 rows; 4 weights of two terms for 4 rows.
    assert runner.num_circuits == backward_circuits(circuit, shift, 6) == 2 * (6 * 4 + 4 * 8)
    assert 0.95 * backward_shots(circuit, shift, 500, 6) <= sum(runner.shots) <= backward_shots(circuit, shift, 500, 6)
    assert backward_shots(circuit, shift, 500, 6) == 500 * (6 * 4 + 4 * 8)


def test_exact_values_have_nothing_to_allocate(runner):
    circuit, inputs, weights, grad = problem()
    exact = device_gradients(circuit, inputs, weights, grad, LocalDevice(), None, gradient="parameter-shift")
    shift = ParameterShift(allocate="variance")
    found = device_gradients(circuit, inputs, weights, grad, LocalDevice(), None, gradient=shift, runner=runner)
    assert torch.equal(found.inputs, exact.inputs)
    assert torch.equal(found.weights, exact.weights)
    assert [key.part for key in runner.keys] == ["gradient"]


def test_a_repeated_call_finds_all_its_parts_in_the_journal(tmp_path):
    shift = ParameterShift(allocate="variance", weight_rows=3)
    first, second = LocalDevice(seed=0), LocalDevice(seed=1)
    found = []
    for device in (first, second):
        journal = Journal(tmp_path / "journal.sqlite")
        runner = JournalledRunner(journal, "run", seconds_between_polls=0.01)
        found.append(device_gradients(*problem(), device, 100, gradient=shift, runner=runner))
        journal.close()
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(Exception, match="has no job"):
        second.poll("local-0")


def test_too_few_shots_are_refused_before_anything_is_sent(runner):
    shift = ParameterShift(allocate="variance")
    with pytest.raises(ShotsError, match=r"got 8 with a pilot share of 0.1. Take more shots, or allocate=None"):
        device_gradients(*problem(), LocalDevice(), 8, gradient=shift, runner=runner)
    assert runner.batches == []


def test_nothing_to_shift_sends_nothing(runner):
    circuit = Circuit(1, (Operation("RX", (0,), 0.3), Operation("RY", (0,), Input(0))))
    inputs, grad = torch.zeros(2, 1), torch.ones(2, 1)
    options = {"gradient": ParameterShift(allocate="variance"), "by_inputs": False, "runner": runner}
    found = device_gradients(circuit, inputs, torch.zeros(0), grad, LocalDevice(), 100, **options)
    assert not found.inputs.any()
    assert runner.batches == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allocate": "variances"}, "got 'variances'"),
        ({"pilot": 0.0}, "between 0 and 1; got 0.0"),
        ({"pilot": float("nan")}, "between 0 and 1; got nan"),
        ({"weight_rows": 0}, "at least 1, or None"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(GradientError, match=message):
        ParameterShift(**options)
