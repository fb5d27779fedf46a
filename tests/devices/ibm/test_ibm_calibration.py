"""Noise models from what IBM lists, checked against the listing itself."""

import json
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest

from qpeft.devices import load_device
from qpeft.devices.ibm.service import noise_model
from qpeft.errors import DeviceError
from qpeft.simulation.noise.channels import damping_channel, depolarising_channel


def listing(name):
    """The raw listing: per qubit and per gate name to value, in IBM's units (us, ns)."""
    text = (files(f"qiskit_ibm_runtime.fake_provider.backends.{name}") / f"props_{name}.json").read_text()
    raw = json.loads(text)
    qubits = [{entry["name"]: entry["value"] for entry in entries} for entries in raw["qubits"]]
    gates = {
        (gate["gate"], *gate["qubits"]): {entry["name"]: entry["value"] for entry in gate["parameters"]}
        for gate in raw["gates"]
    }
    return qubits, gates


@pytest.fixture(scope="module")
def manila():
    return load_device("ibm", backend="FakeManilaV2").calibration()


@pytest.fixture(scope="module")
def torino():
    return load_device("ibm", backend="FakeTorino").calibration()


def test_readout_errors_are_those_listed(manila):
    qubits, _ = listing("manila")
    found = [(noise.readout.p1_given_0, noise.readout.p0_given_1) for _, noise in manila.qubits]
    assert found == [(entry["prob_meas1_prep0"], entry["prob_meas0_prep1"]) for entry in qubits]


def test_relaxation_is_that_of_the_listed_times(manila):
    qubits, gates = listing("manila")
    for qubit, noise in manila.qubits:
        # exp(-t/T1) by its series; gates last thousandths of T1, so the third order is below 1e-9.
        share = gates["sx", qubit]["gate_length"] * 1e-3 / qubits[qubit]["T1"]
        assert noise.damping.amplitude == pytest.approx(share - share**2 / 2, abs=1e-8)


def test_gates_on_two_qubits_have_their_listed_fidelity_unless_relaxation_alone_costs_more(manila):
    _, gates = listing("manila")
    assert sum(noise.depolarising > 0 for _, noise in manila.edges) == 3
    for (first, second), noise in manila.edges:
        relaxation = np.kron(*(damping_channel(damping) for damping in noise.damping))
        channel = depolarising_channel(noise.depolarising, 2) @ relaxation
        error = 1 - (channel.trace() / 4 + 1) / 5  # Nielsen, quant-ph/0205035: d = 4, process fidelity tr / 16
        listed = gates["cx", first, second]["gate_error"]
        assert error == pytest.approx(listed, abs=1e-9) if noise.depolarising > 0 else error > listed


def test_dead_edges_and_qubits_are_left_out(torino):
    qubits, gates = listing("torino")
    blind = {qubit for qubit, entry in enumerate(qubits) if entry["readout_error"] > 0.5}
    dead = {tuple(sorted(key[1:])) for key, entry in gates.items() if key[0] == "cz" and entry["gate_error"] == 1}
    assert blind
    assert len(dead) > 3
    assert {qubit for qubit, _ in torino.qubits} == set(range(133)) - blind
    edges = {edge for edge, _ in torino.edges}
    assert not edges & dead
    assert not {qubit for edge in edges for qubit in edge} & blind
    everything = {tuple(sorted(key[1:])) for key in gates if key[0] == "cz"}
    assert edges == {edge for edge in everything - dead if not blind & set(edge)}


def test_listed_t2_beyond_2_t1_is_cut_to_it(torino):
    qubits, _ = listing("torino")
    beyond = [qubit for qubit, entry in enumerate(qubits) if entry["T2"] > 2 * entry["T1"]]
    present = dict(torino.qubits)
    assert beyond
    assert all(present[qubit].damping.phase == pytest.approx(0, abs=1e-12) for qubit in beyond if qubit in present)
    assert any(noise.damping.phase > 0 for noise in present.values())


def test_turns_about_z_are_free_where_the_listing_gives_rz_no_time_and_no_error(manila):
    _, gates = listing("manila")
    assert all(entry == {"gate_error": 0, "gate_length": 0} for key, entry in gates.items() if key[0] == "rz")
    assert manila.free_gates == {"RZ", "PHASE", "Z", "S", "SDG", "T", "TDG"}
    assert noise_model(chip(), None).free_gates == frozenset()


def test_a_perfect_simulator_lists_nothing():
    assert load_device("ibm", backend="aer").calibration() is None


def stated(error, duration=1e-7):
    return SimpleNamespace(error=error, duration=duration)


def chip(readout=0.01, gate=0.001, t2=1e-4, pair=0.01):
    """Two qubits, what is given being that of qubit 1 or of the edge."""

    class Target(dict):
        operation_names = ("sx", "measure", "cz")
        qubit_properties = (SimpleNamespace(t1=1e-4, t2=1e-4), SimpleNamespace(t1=1e-4, t2=t2))

    return Target(
        sx={(0,): stated(0.001), (1,): stated(gate)},
        measure={(0,): stated(0.01), (1,): stated(readout)},
        cz={(1, 0): stated(pair)},
    )


@pytest.mark.parametrize(
    "broken",
    [{"readout": 0.6}, {"readout": None}, {"gate": 1.0}, {"gate": float("nan")}, {"t2": None}, {"t2": 0.0}],
    ids=str,
)
def test_a_broken_qubit_and_its_edge_are_left_out(broken):
    whole, rest = noise_model(chip(), None), noise_model(chip(**broken), None)
    assert ([qubit for qubit, _ in whole.qubits], [edge for edge, _ in whole.edges]) == ([0, 1], [(0, 1)])
    assert ([qubit for qubit, _ in rest.qubits], rest.edges) == ([0], ())


def test_qubits_that_the_service_calls_faulty_are_left_out():
    properties = SimpleNamespace(faulty_qubits=lambda: [0], qubits=[[], []])
    assert [qubit for qubit, _ in noise_model(chip(), properties).qubits] == [1]


def test_a_chip_with_nothing_alive_is_an_error():
    target = chip(gate=1.0)
    target["sx"][0,] = stated(1.0)
    with pytest.raises(DeviceError, match="no qubit that is alive"):
        noise_model(target, None)
