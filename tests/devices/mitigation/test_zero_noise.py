"""Zero-noise extrapolation: right where noise is a polynomial, as predicted where it is exponential, or refused."""

from dataclasses import replace

import dense_oracle
import numpy as np
import pytest
import torch

from qpeft.circuits import GATES, Circuit, Operation, ansatz, bind
from qpeft.devices import (
    CallKey,
    Journal,
    JournalledRunner,
    LocalDevice,
    ReadoutInversion,
    ZeroNoise,
    backward_circuits,
    device_expectations,
    forward_circuits,
)
from qpeft.devices.mitigation.zero_noise import extrapolation_weights, folded
from qpeft.errors import DeviceError, GradientError
from qpeft.simulation import expectations
from qpeft.simulation.noise import EdgeNoise, NoiseModel, QubitNoise, ReadoutError

CIRCUIT = Circuit(3, ansatz.ring_crz(3).operations, ("ZII", "ZZI", "XYZ"))


def angles(circuit, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, circuit.num_inputs, generator=generator, dtype=torch.float64)
    return inputs, torch.randn(circuit.num_weights, generator=generator, dtype=torch.float64)


class PolynomialDevice(LocalDevice):
    """Shrinks every expectation value by a polynomial of the number of gates; the rest of the shares is noise."""

    def __init__(self, *coefficients):
        super().__init__()
        self.coefficients, self.shrunk = coefficients, {}

    def submit(self, circuits, shots):
        job_id = super().submit(circuits, shots)
        self.shrunk[job_id] = [np.polyval((*self.coefficients, 1.0), len(c.operations)) for c in circuits]
        return job_id

    def fetch(self, job_id):
        results = super().fetch(job_id)
        return [self.mixed(result, kept) for result, kept in zip(results, self.shrunk[job_id], strict=True)]

    def mixed(self, result, kept):
        keys = [f"{number:03b}" for number in range(8)]
        return {key: kept * result.get(key, 0.0) + (1 - kept) / 8 for key in keys}


@pytest.mark.parametrize(
    ("scales", "order", "coefficients"),
    [((1, 3), 1, (-3e-3,)), ((1, 3, 5), 1, (-2e-3,)), ((1, 3, 5), 2, (3e-5, -5e-3)), ((3, 7, 9, 11), 2, (5e-6, -3e-3))],
)
def test_noise_that_is_a_polynomial_of_the_number_of_gates_is_taken_out_exactly(scales, order, coefficients):
    inputs, weights = angles(CIRCUIT, 4)
    exact = expectations(CIRCUIT, inputs, weights)
    device = PolynomialDevice(*coefficients)
    plain = device_expectations(CIRCUIT, inputs, weights, device, None).values
    assert (plain - exact).abs().max() > 0.01
    values = device_expectations(CIRCUIT, inputs, weights, device, None, mitigation=ZeroNoise(scales, order)).values
    torch.testing.assert_close(values, exact, atol=1e-9, rtol=0)


def test_depolarising_noise_leaves_what_the_closed_form_says():
    # One qubit: every gate shrinks Z by 1 - p, so at scale s the value is exact * (1 - p)**(s * gates).
    circuit = Circuit(1, tuple(Operation("RY", (0,), 0.2 + 0.1 * number) for number in range(4)))
    shrink, exact = 0.98**4, np.cos(0.2 + 0.3 + 0.4 + 0.5)
    device = LocalDevice(noise=NoiseModel.uniform(1, qubit=QubitNoise(depolarising=0.02)))
    nothing = torch.zeros(1, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    for scales, order in (((1, 3, 5), 1), ((1, 3, 5), 2), ((1, 3), 1)):
        values = device_expectations(circuit, *nothing, device, None, mitigation=ZeroNoise(scales, order)).values
        at_zero = np.polynomial.Polynomial.fit(scales, [exact * shrink**scale for scale in scales], order)(0)
        assert values.item() == pytest.approx(at_zero, abs=1e-6)
        assert abs(values.item() - exact) < abs(exact * shrink - exact) / 3


def test_two_qubit_depolarising_is_extrapolated_gate_by_gate():
    noise = NoiseModel.uniform(3, edge=EdgeNoise(depolarising=0.01))
    inputs, weights = angles(CIRCUIT, 20)
    exact = expectations(CIRCUIT, inputs, weights)

    def rms(mitigation):
        values = device_expectations(CIRCUIT, inputs, weights, LocalDevice(noise=noise), None, mitigation=mitigation)
        return (values.values - exact).square().mean().sqrt()

    plain, line, richardson = rms(None), rms(ZeroNoise()), rms(ZeroNoise(order=2))
    assert line < plain / 3
    assert richardson < line / 3


@pytest.mark.parametrize("name", GATES)
def test_folding_any_gate_leaves_what_it_computes(name):
    num_qubits = GATES[name].num_qubits
    gate = Operation(
        name, (1, 0)[:num_qubits] if num_qubits == 2 else (0,), 0.7 if GATES[name].is_parametrised else None
    )
    before = (Operation("RX", (0,), 0.4), Operation("RY", (1,), -0.9), Operation("CNOT", (0, 1)))
    operations = (*before, gate, Operation("H", (0,)))
    observables = ("ZI", "XI", "YI", "IZ", "ZZ", "XY")
    plain, thrice = (
        dense_oracle.expectations(Circuit(2, version, observables), np.zeros((1, 0)), np.zeros(0))
        for version in (operations, folded(operations, 5))
    )
    np.testing.assert_allclose(thrice, plain, atol=1e-12)
    assert len(folded(operations, 5)) == 5 * len(operations)


def test_scale_one_is_the_circuit_itself():
    operations = bind(CIRCUIT, [0.1] * 3, [0.2] * CIRCUIT.num_weights).operations
    assert ZeroNoise().versions(operations)[0] == operations


@pytest.mark.parametrize(("scales", "order"), [((1, 3), 1), ((1, 3, 5), 1), ((1, 3, 5), 2), ((1, 3, 5, 9), 2)])
def test_weights_are_those_of_the_least_squares_polynomial_at_zero(scales, order):
    weights = extrapolation_weights(scales, order)
    for number in range(len(scales)):
        values = np.eye(len(scales))[number]
        assert weights[number] == pytest.approx(np.polynomial.Polynomial.fit(scales, values, order)(0))
    assert sum(weights) == pytest.approx(1)


def test_richardson_weights_are_those_of_the_literature():
    # Temme et al., equation (3): products of c_j / (c_j - c_i) over the others.
    assert extrapolation_weights((1, 3, 5), 2) == pytest.approx((15 / 8, -10 / 8, 3 / 8))


@pytest.mark.parametrize("readout_inversion", [None, ReadoutInversion(shots=3000)], ids=["alone", "over readout"])
def test_standard_errors_are_the_spread_and_values_those_of_infinite_shots_on_average(readout_inversion):
    repeats, shots = 150, 400
    circuit = Circuit(2, ansatz.ring_cz(2).operations, ("ZI", "ZZ", "XX"))
    inputs, weights = angles(circuit, 1)
    noise = NoiseModel.uniform(2, qubit=QubitNoise(0.01, readout=ReadoutError(0.03, 0.08)), edge=EdgeNoise(0.03))
    device, found = LocalDevice(seed=6, noise=noise), []
    limit = device_expectations(
        circuit, inputs, weights, device, None, mitigation=ZeroNoise(readout_inversion=readout_inversion)
    ).values
    for _ in range(repeats):
        fresh = readout_inversion and ReadoutInversion(shots=3000)
        found.append(
            device_expectations(circuit, inputs, weights, device, shots, mitigation=ZeroNoise(readout_inversion=fresh))
        )
    values, errors = (torch.cat(part) for part in zip(*found, strict=True))
    z = (values.mean(0) - limit) / (values.std(0) / repeats**0.5)
    assert z.abs().max() < 4
    # A sample deviation of 150 is off by 6 %.
    torch.testing.assert_close(errors.mean(0), values.std(0), rtol=0.22, atol=0)


def test_readout_errors_need_readout_inversion_inside():
    noise = NoiseModel.uniform(3, qubit=QubitNoise(readout=ReadoutError(0.03, 0.08)))
    inputs, weights = angles(CIRCUIT, 5)
    exact = expectations(CIRCUIT, inputs, weights)
    device = LocalDevice(noise=noise)
    alone = device_expectations(CIRCUIT, inputs, weights, device, None, mitigation=ZeroNoise()).values
    both = ZeroNoise(readout_inversion=ReadoutInversion())
    values = device_expectations(CIRCUIT, inputs, weights, device, None, mitigation=both).values
    assert (alone - exact).abs().max() > 0.05
    torch.testing.assert_close(values, exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("readout_inversion", [None, ReadoutInversion()], ids=["alone", "over readout"])
@pytest.mark.parametrize("gradient", ["parameter-shift", "spsa", "simulated"])
def test_as_many_circuits_are_sent_as_were_announced(runner, gradient, readout_inversion):
    method = ZeroNoise((1, 3), readout_inversion=readout_inversion)
    inputs, weights = angles(CIRCUIT, 2)
    values = device_expectations(
        CIRCUIT, inputs.requires_grad_(), weights.requires_grad_(), LocalDevice(), 20, gradient=gradient,
        runner=runner, mitigation=method,
    ).values  # fmt: skip
    forward = forward_circuits(CIRCUIT, 2, mitigation=method)
    assert forward == 2 * 2 * 2  # rows, bases, scales
    assert runner.num_circuits == forward + method.num_calibration_circuits
    sent = runner.num_circuits
    values.square().sum().backward()
    announced = backward_circuits(CIRCUIT, gradient, 2, mitigation=method)
    assert announced == 2 * backward_circuits(CIRCUIT, gradient, 2)
    assert runner.num_circuits - sent == announced


def test_parameter_shift_gives_the_gradient_of_the_extrapolated_values():
    noise = NoiseModel.uniform(3, qubit=QubitNoise(0.01), edge=EdgeNoise(0.03))
    inputs, weights = angles(CIRCUIT, 1)
    options = {"mitigation": ZeroNoise(), "gradient": "parameter-shift"}

    def total(inputs):
        return device_expectations(CIRCUIT, inputs, weights, LocalDevice(noise=noise), None, **options).values.sum()

    (found,) = torch.autograd.grad(total(inputs.requires_grad_()), inputs)
    step = 1e-4 * torch.eye(3, dtype=torch.float64)
    expected = [(total(inputs + move) - total(inputs - move)) / 2e-4 for move in step]
    torch.testing.assert_close(found[0], torch.stack(expected).detach(), atol=1e-5, rtol=0)


def test_without_a_gradient_the_message_counts_all_versions():
    inputs, weights = angles(ansatz.ring_crz(2), 3)
    circuit = ansatz.ring_crz(2)
    values = device_expectations(circuit, inputs.requires_grad_(), weights, LocalDevice(), 10, mitigation=ZeroNoise())
    with pytest.raises(GradientError, match=r"12 circuits per input, 36 for these"):
        values.values.sum().backward()


def test_no_rows_send_nothing(runner):
    inputs, weights = angles(CIRCUIT, 0)
    method = ZeroNoise(readout_inversion=ReadoutInversion())
    values = device_expectations(CIRCUIT, inputs, weights, LocalDevice(), 10, runner=runner, mitigation=method).values
    assert values.shape == (0, 3)
    assert runner.batches == []


def test_a_journal_answers_a_resumed_run_with_the_same_values_and_calibration(tmp_path):
    noise = NoiseModel.uniform(3, qubit=QubitNoise(0.01, readout=ReadoutError(0.03, 0.08)), edge=EdgeNoise(0.03))
    inputs, weights = angles(CIRCUIT, 2)

    def run(device):
        runner = JournalledRunner(Journal(tmp_path / "journal.sqlite"), "run", seconds_between_polls=0.01)
        method = ZeroNoise(readout_inversion=ReadoutInversion())
        found = []
        for call in range(2):
            key = CallKey("v_proj", step=3, call=call)
            found += device_expectations(
                CIRCUIT, inputs + call, weights, device, 100, runner=runner, key=key, mitigation=method
            )
        return found

    first = run(LocalDevice(seed=1, noise=noise))
    unused = LocalDevice(seed=2, noise=noise)
    again = run(unused)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    with pytest.raises(DeviceError, match="no job"):
        unused.poll("local-0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (1, 2, 3)}, "odd numbers"),
        ({"scales": (-1, 1)}, "odd numbers"),
        ({"scales": (1, 3.0)}, "odd numbers"),
        ({"scales": (3, 1)}, "ascend"),
        ({"scales": (1, 1, 3)}, "ascend"),
        ({"scales": (1, 3), "order": 2}, "order from 1 to 1; got order=2"),
        ({"order": 0}, "order from 1 to 2"),
        ({"scales": (1,)}, "more scales"),
        ({"scales": ()}, "more scales"),
    ],
)
def test_scales_and_orders_that_make_no_polynomial_are_refused(options, message):
    with pytest.raises(DeviceError, match=message):
        ZeroNoise(**options)


def test_a_device_that_simplifies_circuits_is_refused_before_anything_is_sent(runner):
    class Simplifying(LocalDevice):
        def capabilities(self):
            return replace(super().capabilities(), simplifies_circuits=True)

    inputs, weights = angles(CIRCUIT, 1)
    with pytest.raises(DeviceError, match="for origin: optimization=False"):
        device_expectations(CIRCUIT, inputs, weights, Simplifying(), 10, runner=runner, mitigation=ZeroNoise())
    assert runner.batches == []
    device_expectations(CIRCUIT, inputs, weights, Simplifying(), 10, mitigation=ReadoutInversion())


@pytest.mark.parametrize("wrong", [ZeroNoise, "zero-noise"])
def test_what_is_no_mitigation_is_refused(wrong):
    inputs, weights = angles(CIRCUIT, 1)
    with pytest.raises(DeviceError, match=r"such as ReadoutInversion\(\) or ZeroNoise\(\), or None; got"):
        device_expectations(CIRCUIT, inputs, weights, LocalDevice(), 10, mitigation=wrong)
