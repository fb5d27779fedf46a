"""Readout inversion: right on average, with honest standard errors, measured where and when it says, or refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from qpeft.circuits import Circuit, Input, Operation, ansatz, bind
from qpeft.devices import CallKey, LocalDevice, ReadoutInversion, ZeroNoise, device_expectations, run_now
from qpeft.devices.calls import DeviceCall
from qpeft.devices.mitigation.reading import Readout, read
from qpeft.errors import DeviceError, NoiseError, ShotsError
from qpeft.simulation import expectations
from qpeft.simulation.noise import EdgeNoise, NoiseModel, QubitNoise, ReadoutError

ERRORS = (ReadoutError(0.03, 0.11), ReadoutError(0.07, 0.02), ReadoutError(0.0, 0.15))
OBSERVABLES = ("ZII", "IZI", "IIZ", "ZZI", "ZZZ", "ZIZ", "III")
MISREADS = NoiseModel.from_mappings(
    {qubit: QubitNoise(readout=error) for qubit, error in enumerate(ERRORS)},
    dict.fromkeys([(0, 1), (1, 2), (0, 2)], EdgeNoise()),
)
"""Perfect gates, bad readout."""


def all_bits(num_qubits):
    return ["".join(bits) for bits in itertools.product("01", repeat=num_qubits)]


def inverted_by_kron(distribution, observables):
    """The textbook's way: the inverse of the Kronecker product of confusion matrices on the whole distribution."""
    confusion = np.eye(1)
    for error in ERRORS:
        p10, p01 = error.p1_given_0, error.p0_given_1
        confusion = np.kron(confusion, [[1 - p10, p01], [p10, 1 - p01]])
    bits = all_bits(3)
    true = np.linalg.solve(confusion, [distribution.get(key, 0.0) for key in bits])
    signs = [
        [(-1) ** sum(b == "1" and o == "Z" for b, o in zip(k, obs, strict=True)) for k in bits] for obs in observables
    ]
    return np.array(signs) @ true


def correlated(rows, seed=0):
    circuit = Circuit(3, ansatz.ring_crz(3, depth=2).operations, OBSERVABLES)
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return circuit, inputs, torch.randn(circuit.num_weights, generator=generator, dtype=torch.float64)


def test_any_distribution_is_corrected_as_by_the_inverse_of_the_whole_confusion_matrix():
    shares = np.random.default_rng(3).dirichlet(np.ones(8))
    distribution = dict(zip(all_bits(3), shares.tolist(), strict=True))
    values, _ = read([distribution], (1.0,), OBSERVABLES, Readout.of(ERRORS), None)
    np.testing.assert_allclose(values, inverted_by_kron(distribution, OBSERVABLES), atol=1e-12)


def test_what_never_came_out_may_be_missing():
    distribution = {"011": 0.25, "110": 0.75}
    values, _ = read([distribution], (1.0,), OBSERVABLES, Readout.of(ERRORS), None)
    np.testing.assert_allclose(values, inverted_by_kron(distribution, OBSERVABLES), atol=1e-12)


@pytest.mark.parametrize("method", [ReadoutInversion(ERRORS), ReadoutInversion()], ids=["given", "measured"])
def test_without_shots_only_readout_errors_are_taken_out_and_all_of_them(method):
    circuit, inputs, weights = correlated(4)
    exact = expectations(circuit, inputs, weights)
    device = LocalDevice(noise=MISREADS)
    plain = device_expectations(circuit, inputs, weights, device, None).values
    assert (plain - exact).abs().max() > 0.1
    values, errors = device_expectations(circuit, inputs, weights, device, None, mitigation=method)
    torch.testing.assert_close(values, exact, atol=1e-6, rtol=0)
    assert not errors.any()


def test_x_and_y_are_read_in_their_own_bases():
    circuit = Circuit(3, correlated(1)[0].operations, ("XYZ", "IYI", "ZZX"))
    _, inputs, weights = correlated(3)
    device = LocalDevice(noise=MISREADS)
    values = device_expectations(circuit, inputs, weights, device, None, mitigation=ReadoutInversion(ERRORS)).values
    torch.testing.assert_close(values, expectations(circuit, inputs, weights), atol=1e-6, rtol=0)


def test_the_calibration_of_a_device_serves_for_a_block_of_its_qubits():
    method = ReadoutInversion.from_calibration(LocalDevice(noise=MISREADS).calibration(), (2, 0))
    assert method.errors == (ERRORS[2], ERRORS[0])
    with pytest.raises(NoiseError, match="nothing about qubit 7"):
        ReadoutInversion.from_calibration(MISREADS, (0, 7))
    with pytest.raises(DeviceError, match="Leave the errors out"):
        ReadoutInversion.from_calibration(LocalDevice().calibration(), (0, 1))


def test_given_errors_unbiased_and_standard_errors_are_the_spread():
    repeats, shots = 600, 300
    circuit, inputs, weights = correlated(1)
    exact = expectations(circuit, inputs, weights)[0]
    # Told apart by 1e-9, because equal circuits would be sent once.
    rows = inputs + 1e-9 * torch.arange(repeats, dtype=torch.float64)[:, None]
    device = LocalDevice(seed=2, noise=MISREADS)
    values, errors = device_expectations(circuit, rows, weights, device, shots, mitigation=ReadoutInversion(ERRORS))
    values, errors, exact = values[:, :-1], errors[:, :-1], exact[:-1]  # III has no spread
    z = (values.mean(0) - exact) / (values.std(0) / repeats**0.5)
    assert z.abs().max() < 4
    torch.testing.assert_close(errors.mean(0), values.std(0), rtol=0.12, atol=0)


def test_measured_errors_unbiased_and_standard_errors_contain_their_uncertainty():
    repeats, shots, few = 250, 2000, 150
    circuit, inputs, weights = correlated(1)
    exact = expectations(circuit, inputs, weights)[0, :-1]
    device = LocalDevice(seed=4, noise=MISREADS)
    found = [
        device_expectations(circuit, inputs, weights, device, shots, mitigation=ReadoutInversion(shots=few))
        for _ in range(repeats)
    ]
    values, errors = (torch.cat(part)[:, :-1] for part in zip(*found, strict=True))
    # Dividing by an uncertain slope has a bias of the order of its variance, 1 / few.
    bias = (values.mean(0) - exact).abs()
    assert (bias < 4 * values.std(0) / repeats**0.5 + 1 / few).all()
    torch.testing.assert_close(errors.mean(0), values.std(0), rtol=0.19, atol=0)
    with_given = device_expectations(
        circuit, inputs, weights, device, shots, mitigation=ReadoutInversion(ERRORS)
    ).standard_errors[0, :-1]
    assert (errors.mean(0) > 1.2 * with_given).any()


def test_one_shot_has_the_largest_standard_error():
    circuit = ansatz.ring_cz(1)
    device = LocalDevice(noise=MISREADS)
    method = ReadoutInversion((ReadoutError(0.1, 0.1),))
    _, errors = device_expectations(circuit, torch.zeros(1, 1), torch.zeros(2), device, 1, mitigation=method)
    assert errors.tolist() == [[pytest.approx(1 / 0.8)]]


def test_two_circuits_measure_the_errors_once_under_a_key_of_their_own(runner):
    circuit, inputs, weights = correlated(3)
    device, method = LocalDevice(noise=MISREADS), ReadoutInversion(shots=70)
    for step in range(2):
        key = CallKey("layers.3.v_proj", step=step, call=1)
        device_expectations(circuit, inputs, weights, device, 50, runner=runner, key=key, mitigation=method)
    assert method.num_calibration_circuits == 2
    assert [len(batch) for batch in runner.batches] == [2, 3, 3]
    assert [[op.gate_name for op in circuit.operations] for circuit in runner.batches[0]] == [[], ["X", "X", "X"]]
    assert runner.keys[0] == CallKey("3 qubit(s) of local, 70 shots", step=0, call=0, part="readout")
    assert len(set(runner.keys)) == 3


def test_other_widths_devices_and_runners_are_measured_for_themselves_and_exact_values_exactly(runner):
    method, small, large = ReadoutInversion(), ansatz.ring_cz(2), ansatz.ring_cz(3)
    first, second = LocalDevice(noise=MISREADS), LocalDevice(noise=MISREADS)

    def call(circuit, device, shots, runner):
        inputs, weights = torch.zeros(1, circuit.num_inputs), torch.zeros(circuit.num_weights)
        device_expectations(circuit, inputs, weights, device, shots, runner=runner, mitigation=method)
        return [key for key in runner.keys if key.part == "readout"]

    for _ in range(2):
        for circuit, shots, measured in ((small, 10, 1), (large, 10, 2), (large, 20, 2), (large, None, 3)):
            keys = call(circuit, first, shots, runner)
            assert len(keys) >= measured
        assert len(set(keys)) == len(keys) == 3
    assert len(call(large, second, 10, runner)) == 4
    other = type(runner)()
    assert len(call(large, first, 10, other)) == 1
    assert len(call(large, first, 10, runner)) == 4


def test_errors_are_measured_again_after_some_steps_and_keys_depend_on_the_step_alone(runner):
    circuit, inputs, weights = correlated(1)
    device, method = LocalDevice(noise=MISREADS), ReadoutInversion(steps_between=10)

    def steps_measured(steps, method):
        for step in steps:
            key = CallKey("m", step=step)
            device_expectations(circuit, inputs, weights, device, 10, runner=runner, key=key, mitigation=method)
        found = [key.step for key in runner.keys if key.part == "readout"]
        runner.keys.clear()
        return found

    assert steps_measured([0, 1, 9, 10, 19, 20], method) == [0, 10, 20]
    assert steps_measured([17, 18], ReadoutInversion(steps_between=10)) == [10]  # as a resumed run does


@pytest.mark.parametrize(
    ("does", "advice"),
    [("corrects_readout", "for origin: amend=False"), ("chooses_qubits", "for origin: mapping=False")],
)
@pytest.mark.parametrize("wrap", [lambda method: method, lambda method: ZeroNoise(readout_inversion=method)])
def test_a_device_that_would_spoil_it_is_refused_before_anything_is_sent(runner, does, advice, wrap):
    class Spoiling(LocalDevice):
        def capabilities(self):
            return replace(super().capabilities(), **{does: True})

    circuit, inputs, weights = correlated(1)
    with pytest.raises(DeviceError, match=advice):
        device_expectations(
            circuit, inputs, weights, Spoiling(), 10, runner=runner, mitigation=wrap(ReadoutInversion(ERRORS))
        )
    assert runner.batches == []


def test_a_readout_that_tells_nothing_is_refused():
    with pytest.raises(DeviceError, match=r"qubit 1 of the circuit.*0\.100 for 0 and 0\.000 for 1"):
        Readout.of([ReadoutError(), ReadoutError(0.45, 0.5)])
    with pytest.raises(DeviceError, match="Use other qubits"):
        Readout.of([ReadoutError(0.9, 0.9)])


def test_errors_for_another_number_of_qubits_are_refused():
    circuit, inputs, weights = correlated(1)
    with pytest.raises(DeviceError, match=r"errors of 2 qubit\(s\); the circuit has 3"):
        device_expectations(circuit, inputs, weights, LocalDevice(), 10, mitigation=ReadoutInversion(ERRORS[:2]))


def test_too_few_shots_or_steps_are_refused():
    with pytest.raises(ShotsError, match="at least 2; got 1"):
        ReadoutInversion(shots=1)
    with pytest.raises(ShotsError, match="whole number; got '10'"):
        ReadoutInversion(shots="10")
    with pytest.raises(DeviceError, match="steps_between is at least 1"):
        ReadoutInversion(steps_between=0)


def test_covariances_of_the_values_are_those_of_many_repeats():
    repeats, shots = 1500, 100
    circuit, inputs, weights = correlated(1)
    rows = inputs + 1e-9 * torch.arange(repeats, dtype=torch.float64)[:, None]
    call = DeviceCall(circuit, LocalDevice(seed=8, noise=MISREADS), shots, mitigation=ReadoutInversion(ERRORS))
    values, covariances = call.moments([bind(circuit, row, weights.tolist()).operations for row in rows.tolist()])
    expected = np.cov(values.T)
    # A sample covariance of 1500 is off by about 3 % of the variances.
    np.testing.assert_allclose(covariances.mean(0), expected, atol=0.13 * expected.diagonal().max())
    assert np.abs(expected - np.diag(expected.diagonal())).max() > 0.3 * expected.diagonal().max()


def test_an_uncertain_readout_makes_values_of_one_circuit_err_together():
    # Of one qubit and of its copy: values z, z and 1 from the same uncertain means, by hand.
    readout = Readout(np.array([[0.9, 0.8], [-0.7, -0.6]]), np.array([[0.01, 0.02], [0.03, 0.04]]))
    _, covariances = read([{"00": 0.7, "11": 0.3}], (1.0,), ("ZI", "IZ", "ZZ"), readout, None)

    def values(changes):
        moved = Readout(readout.means + changes.reshape(2, 2), np.zeros((2, 2)))
        return read([{"00": 0.7, "11": 0.3}], (1.0,), ("ZI", "IZ", "ZZ"), moved, None)[0]

    slopes = np.stack([(values(1e-5 * unit) - values(-1e-5 * unit)) / 2e-5 for unit in np.eye(4)])
    np.testing.assert_allclose(covariances, slopes.T @ np.diag([0.01, 0.02, 0.03, 0.04]) @ slopes, rtol=1e-6)


def test_a_runner_that_loses_a_calibration_result_is_an_error():
    circuit, inputs, weights = correlated(1)

    def loses(device, circuits, shots, *, key):
        return run_now(device, circuits, shots, key=key)[: 1 if key.part == "readout" else None]

    with pytest.raises(DeviceError, match="given 2 circuits and returned 1"):
        device_expectations(circuit, inputs, weights, LocalDevice(), 10, runner=loses, mitigation=ReadoutInversion())


def test_a_perfect_readout_changes_nothing():
    circuit = Circuit(2, (Operation("RY", (0,), Input(0)), Operation("CNOT", (0, 1))), ("ZI", "ZZ"))
    inputs = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    plain = device_expectations(circuit, inputs, torch.zeros(0), LocalDevice(seed=9), 40)
    found = device_expectations(
        circuit, inputs, torch.zeros(0), LocalDevice(seed=9), 40, mitigation=ReadoutInversion([ReadoutError()] * 2)
    )
    for one, other in zip(plain, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
