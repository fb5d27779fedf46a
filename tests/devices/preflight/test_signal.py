import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpeft.devices.chip import Preflight, Signal, Usability, fit_line
from qpeft.errors import DeviceError

VALUES = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=3, max_size=20)


@given(VALUES)
def test_the_line_is_that_of_numpy(pairs):
    exact, noisy = np.array(pairs).T
    line = fit_line(exact, noisy)
    if exact.std() < 1e-3 or noisy.std() < 1e-3:
        assert abs(line.correlation) <= 1 + 1e-9
        return
    slope, offset = np.polyfit(exact, noisy, 1)
    assert (line.slope, line.offset) == (pytest.approx(slope, abs=1e-9), pytest.approx(offset, abs=1e-9))
    assert line.correlation == pytest.approx(np.corrcoef(exact, noisy)[0, 1], abs=1e-9)
    assert line.residual == pytest.approx(np.std(noisy - slope * exact - offset), abs=1e-9)
    assert line.spread == pytest.approx(exact.std())


def test_values_that_do_not_vary_carry_nothing():
    line = fit_line([0.4, 0.4, 0.4], [0.1, 0.2, 0.3])
    assert (line.slope, line.correlation, line.offset) == (0, 0, pytest.approx(0.2))
    signal = Signal.of("Z", np.full(3, 0.4), np.array([0.1, 0.2, 0.3]), shots=100)
    assert (signal.signal_to_noise, signal.verdict) == (0, Usability.UNUSABLE)


@pytest.mark.parametrize(
    ("exact", "noisy"), [([0.1], [0.1]), ([0.1, 0.2], [0.1]), ([0.1, math.nan], [0.1, 0.2]), ([[0.1]], [[0.2]])]
)
def test_a_line_needs_two_finite_pairs(exact, noisy):
    with pytest.raises(DeviceError, match=r"two pairs|finite"):
        fit_line(exact, noisy)


def test_expected_correlation_is_that_of_sampled_values():
    """20,000 readings of 50 shots each, of values half of which follow the exact ones."""
    generator = np.random.default_rng(0)
    exact = generator.uniform(-1, 1, 20_000)
    noisy = 0.3 * exact + 0.05 * generator.uniform(-1, 1, 20_000)
    read = 2 * generator.binomial(50, (1 + noisy) / 2) / 50 - 1
    signal = Signal.of("Z", exact, noisy, shots=50)
    assert np.corrcoef(exact, read)[0, 1] == pytest.approx(signal.expected_correlation, abs=0.01)
    assert signal.expected_correlation < signal.line.correlation - 0.1


@pytest.mark.parametrize(
    ("signal_to_noise", "correlation", "verdict"),
    [
        (3, 0.9, Usability.USABLE),
        (math.inf, 1, Usability.USABLE),
        (2.9, 1, Usability.WEAK),
        (30, 0.89, Usability.WEAK),
        (1, 0.5, Usability.WEAK),
        (0.9, 1, Usability.UNUSABLE),
        (30, 0.4, Usability.UNUSABLE),
        (-5, -1, Usability.UNUSABLE),
    ],
)
def test_the_verdict_follows_its_rule(signal_to_noise, correlation, verdict):
    assert Usability.of(signal_to_noise, correlation) is verdict


def test_a_value_that_every_shot_agrees_on_has_no_shot_noise():
    signal = Signal.of("Z", np.array([1.0, -1.0]), np.array([1.0, -1.0]), shots=10)
    assert signal.signal_to_noise == math.inf
    assert signal.expected_correlation == 1


@pytest.mark.parametrize(
    ("deviations", "verdict"),
    [
        ((0.5, 0.5, 0.01, 0.01), Usability.USABLE),
        ((0.5, 0.06, 0.06), Usability.WEAK),
        ((0.5, 0.01, 0.01), Usability.UNUSABLE),
    ],
)
def test_the_whole_is_what_half_of_the_observables_are(deviations, verdict):
    """At 1,000 shots the shot noise is 0.03, so these have ratios of about 18, 2 and 0.3."""
    half = np.array([1.0, -1.0])
    signals = tuple(Signal.of("Z", size * half, size * half, shots=1000) for size in deviations)
    found = Preflight((0,), 1000, 2, 0, 0, signals)
    assert found.verdict is verdict
    assert found.signal_to_noise == pytest.approx(np.median([s.signal_to_noise for s in signals]))
