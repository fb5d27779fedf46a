"""What is small is computed in one thread of torch, and the user's setting is back afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qpeft.adapters.qtha import QthaConfig
from qpeft.circuits import ansatz, bind
from qpeft.circuits.ansatz import cnot_chain
from qpeft.devices import LocalDevice, run
from qpeft.simulation import apply_circuit, expectations, threads, torch_path
from qpeft.simulation.noise import NoiseModel, QubitNoise, noisy_expectations
from qpeft.simulation.threads import one_thread, threads_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


class Products(TorchDispatchMode):
    """Notes in how many threads matrix products and cosines are made."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.cos):
            self.threads.add(torch.get_num_threads())
        return function(*args, **(kwargs or {}))


def test_the_setting_comes_back_also_after_an_error_and_from_blocks_within_blocks():
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(ValueError, match="inside"), one_thread():
        raise ValueError("inside")
    assert torch.get_num_threads() == 3


def test_threads_of_python_that_overlap_leave_each_other_the_setting_from_before():
    """One in which torch is new reads 1 while another is in a block, and must not take it for the user's."""
    entered, leave = threading.Barrier(2), threading.Event()

    def first():
        with one_thread():
            entered.wait()
            leave.wait()
            assert torch.get_num_threads() == 1
        return torch.get_num_threads()

    def second():
        entered.wait()
        with one_thread():
            assert torch.get_num_threads() == 1
        leave.set()
        return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        assert [one.result() for one in (pool.submit(first), pool.submit(second))] == [3, 3]


def test_large_states_are_computed_in_the_threads_that_the_user_set():
    with threads_for(threads.SMALL, CPU):
        assert torch.get_num_threads() == 1
    with threads_for(threads.SMALL + 1, CPU):
        assert torch.get_num_threads() == 3
    with threads_for(1, torch.device("meta")):
        assert torch.get_num_threads() == 3


def test_small_simulations_run_in_one_thread():
    circuit, real = ansatz.ring_crz(3), cnot_chain(3, 1)
    bound = bind(circuit, [0.1] * 3, [0.2] * circuit.num_weights)
    noise = NoiseModel.uniform(3, qubit=QubitNoise(0.01), edges=[(0, 1), (1, 2), (2, 0)])
    inputs = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.zeros(circuit.num_weights, dtype=torch.float64)
    for work in (
        lambda: expectations(circuit, inputs, weights).sum().backward(),
        lambda: noisy_expectations(circuit, inputs, weights, noise).sum().backward(),
        lambda: apply_circuit(real, torch.eye(8), torch.zeros(real.num_weights)),
        lambda: run(LocalDevice(), [bound], 10),
    ):
        with Products() as products:
            work()
        assert products.threads == {1}


def test_a_large_simulation_is_the_same_in_one_thread_and_in_three():
    circuit = ansatz.ring_crz(6)
    inputs = torch.linspace(-3, 3, 6 * 3000).reshape(3000, 6)
    weights = torch.linspace(-1, 1, circuit.num_weights)
    assert len(inputs) << circuit.num_qubits > threads.SMALL
    whole = torch_path.values(circuit, inputs, weights)
    with one_thread():
        torch.testing.assert_close(torch_path.values(circuit, inputs, weights), whole, atol=1e-6, rtol=0)


def test_a_portrait_is_made_in_one_thread(monkeypatch):
    module, found = import_module("qpeft.analysis.portrait"), []
    monkeypatch.setattr(module, "GROWTH", (4, 5))
    real = module.resources
    monkeypatch.setattr(module, "resources", lambda circuit: found.append(torch.get_num_threads()) or real(circuit))
    with Products() as products:
        module.portrait(QthaConfig(), 2, samples=100)
    assert found == [1]
    assert products.threads == {1}
