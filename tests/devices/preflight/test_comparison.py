import math

import pytest
import torch
from calibrations import calibration_of

from qpeft.circuits import ansatz
from qpeft.devices.chip import Usability, compare, preflight, suggest
from qpeft.errors import CircuitError, DeviceError
from qpeft.simulation.noise import EdgeNoise, NoiseModel
from qpeft_emulator import chip as chips


@pytest.fixture(scope="module")
def inputs():
    return (torch.rand(24, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1) * math.pi


@pytest.fixture(scope="module")
def clean():
    return calibration_of(chips.clean())


@pytest.fixture(scope="module")
def comparison(inputs, clean):
    return compare(4, inputs, clean, shots=1000, depths=(1, 2))


def test_every_candidate_is_predicted_on_the_same_qubits_best_first(comparison):
    found = comparison.candidates
    assert {(c.ansatz, c.depth) for c in found} == {(name, depth) for name in ansatz.ANSATZE for depth in (1, 2)}
    assert len({prediction.block for c in found for prediction in c.predictions}) == 1
    assert [c.verdict.rank for c in found] == sorted(c.verdict.rank for c in found)
    ratios = [c.signal_to_noise for c in found if c.verdict is comparison.best.verdict]
    assert ratios == sorted(ratios, reverse=True)


def test_fewer_gates_on_two_qubits_keep_more(comparison):
    slopes = {(c.ansatz, c.depth): c.slope for c in comparison.candidates}
    assert slopes["ring_cz", 1] > slopes["ring_crz", 1] > slopes["ring_crz", 2]
    flips = {(c.ansatz, c.depth): c.num_cz for c in comparison.candidates}
    assert (flips["ring_cz", 1], flips["ring_crz", 1], flips["ring_cnot", 2]) == (4, 16, 8)


def test_ring_cz_is_suggested_for_a_deep_ring_crz(inputs):
    poor = NoiseModel.uniform(4, edge=EdgeNoise(depolarising=0.1))
    found = compare(4, inputs, poor, shots=1000, depths=(1, 4), ansatze=("ring_crz", "ring_cz"))
    current = found.find("ring_crz", 4)
    assert current.verdict is Usability.UNUSABLE
    sentence = suggest(current, found)
    assert sentence.startswith("ring_crz of depth 4 is unusable")
    assert "ring_cz of depth 1 is better: usable" in sentence
    assert "4 CZ instead of 64" in sentence


def test_the_best_one_can_stay_and_a_hopeless_one_says_what_else_helps(inputs, comparison):
    assert suggest(comparison.best, comparison).endswith("nothing compared here is better.")
    hopeless = NoiseModel.uniform(4, edge=EdgeNoise(depolarising=0.95))
    alone = compare(4, inputs, hopeless, shots=100, ansatze=["ring_cz"], depths=[1])
    assert "take fewer qubits, better ones than [0, 1, 2, 3], or more shots" in suggest(alone.best, alone)


def test_trained_weights_are_used_where_given(inputs, clean):
    weights = torch.linspace(-1, 1, 8)
    found = compare(4, inputs, clean, shots=50, ansatze=["ring_cz"], depths=[1], weights={("ring_cz", 1): weights})
    block = found.best.predictions[0].block
    own = preflight(ansatz.ring_cz(4), inputs, weights, clean, shots=50, block=block)
    assert found.best.predictions == (own,)
    assert (found.best.slope, found.best.verdict) == (own.slope, own.verdict)


def test_one_lucky_draw_does_not_decide(inputs, clean):
    found = compare(4, inputs, clean, shots=50, ansatze=["ring_cz"], depths=[1], draws=3).best
    ratios = [prediction.signal_to_noise for prediction in found.predictions]
    assert len(set(ratios)) == 3
    assert found.signal_to_noise == pytest.approx(sum(ratios) / 3)
    assert [prediction.rows for prediction in found.predictions] == [21] * 3


def test_drawn_weights_follow_the_seed(inputs, clean):
    first, same, other = (
        compare(4, inputs, clean, shots=50, ansatze=["ring_cz"], depths=[1], seed=seed) for seed in (0, 0, 1)
    )
    assert first == same
    assert first != other


def test_tables_name_every_row(comparison):
    lines = str(comparison).splitlines()
    assert len(lines) == 1 + 6
    assert all(c.ansatz in line for c, line in zip(comparison.candidates, lines[1:], strict=True))


def test_unknown_candidates_are_errors(inputs, clean, comparison):
    with pytest.raises(CircuitError, match="Did you mean 'ring_crz'"):
        compare(4, inputs, clean, shots=10, ansatze=["ring_cry"])
    with pytest.raises(DeviceError, match="nothing to compare"):
        compare(4, inputs, clean, shots=10, ansatze=[])
    with pytest.raises(DeviceError, match=r"nothing to compare.*draws=0"):
        compare(4, inputs, clean, shots=10, draws=0)
    with pytest.raises(DeviceError, match=r"weights for \[\('ring_cz', 2\)\]"):
        compare(4, inputs, clean, shots=10, ansatze=["ring_cz"], depths=[1], weights={("ring_cz", 2): torch.zeros(16)})
    with pytest.raises(CircuitError, match="depth must be at least 1"):
        compare(4, inputs, clean, shots=10, depths=[0])
    with pytest.raises(DeviceError, match="ring_cz of depth 7 is not among"):
        comparison.find("ring_cz", 7)
