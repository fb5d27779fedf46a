"""Intervals and tests, against those of scipy.stats, against brute force, and by how often they are right."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from qpeft.evaluation import statistics
from qpeft.evaluation.statistics import holm, paired_difference, sign_test


def study(generator, *, seeds, items, of_seeds, of_items, noise, difference=0.0):
    """Nats per seed and item of two methods that truly differ by `difference` a token, and tokens per item."""
    tokens = generator.integers(5, 30, size=items).astype(float)
    by_seed = generator.normal(0, of_seeds, (seeds, 1))
    by_item = generator.standard_t(6, (1, items)) * of_items
    rate = difference + by_seed + by_item + generator.normal(0, noise, (seeds, items))
    second = generator.gamma(4, 0.2, (seeds, items)) * tokens
    return second + rate * tokens, second, tokens


def test_the_estimate_is_the_difference_of_nats_per_token():
    first, second, tokens = study(np.random.default_rng(0), seeds=3, items=20, of_seeds=0.1, of_items=0.1, noise=0.1)
    found = paired_difference(first, second, tokens)
    losses = [method.sum(1) / tokens.sum() for method in (first, second)]
    assert found.estimate == pytest.approx((losses[0] - losses[1]).mean())
    assert found.per_seed == pytest.approx(losses[0] - losses[1])
    assert found.low < found.estimate < found.high


def test_one_seed_and_equal_tokens_give_the_paired_t_test():
    generator = np.random.default_rng(1)
    first, second = generator.normal(0, 1, (1, 50)), generator.normal(0.2, 1, (1, 50))
    found = paired_difference(first, second, np.ones(50))
    reference = scipy.stats.ttest_rel(first[0], second[0])
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
    interval = reference.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.03)


def test_seeds_that_differ_and_items_that_do_not_give_the_t_test_over_seeds():
    rates = np.array([[0.1], [0.3], [0.25], [0.05]])
    found = paired_difference(np.repeat(rates, 30, axis=1), np.zeros((4, 30)), np.ones(30))
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(rates[:, 0], 0).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    "spread",
    [
        {"seeds": 3, "items": 60, "of_seeds": 0.1, "of_items": 0.0, "noise": 0.1},
        {"seeds": 3, "items": 60, "of_seeds": 0.0, "of_items": 0.5, "noise": 0.1},
        {"seeds": 3, "items": 60, "of_seeds": 0.05, "of_items": 0.4, "noise": 0.2},
        {"seeds": 2, "items": 40, "of_seeds": 0.05, "of_items": 0.4, "noise": 0.2},
    ],
)
def test_the_interval_holds_the_truth_in_about_95_of_100_studies(spread, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    generator, held, repeats = np.random.default_rng(2), 0, 300
    for _ in range(repeats):
        found = paired_difference(*study(generator, **spread, difference=0.02))
        held += found.low <= 0.02 <= found.high
    # Three standard errors of 300 studies below 95 %; an interval that says more than it must is no lie.
    assert held / repeats > 0.912


def test_the_smallest_detectable_difference_is_found_in_about_80_of_100_studies(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    spread = {"seeds": 8, "items": 80, "of_seeds": 0.05, "of_items": 0.3, "noise": 0.1}
    generator = np.random.default_rng(4)
    size = np.median([paired_difference(*study(generator, **spread)).detectable for _ in range(40)])
    found = [paired_difference(*study(generator, **spread, difference=size)).p < 0.05 for _ in range(200)]
    assert 0.7 <= np.mean(found) <= 0.9


@pytest.mark.parametrize(("above", "below"), [(0, 0), (1, 0), (3, 0), (5, 5), (9, 2), (40, 71)])
def test_the_sign_test_is_the_binomial_test(above, below):
    differences = [1.0] * above + [-2.0] * below + [0.0] * 4
    expected = scipy.stats.binomtest(above, above + below).pvalue if above + below else 1.0
    assert sign_test(differences) == pytest.approx(expected, rel=1e-9)


def test_holm_equals_the_closed_test_of_bonferroni():
    p_values = np.random.default_rng(5).random(5) ** 3
    for p in (p_values, np.array([0.01, 0.01, 0.02, 1.0])):
        subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size)]
        expected = [max(min(1, len(s) * min(p[list(s)])) for s in subsets if i in s) for i in range(len(p))]
        assert holm(p.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["word_problems", "counselling_english"])
def test_a_committed_study_gives_its_committed_figures(name):
    """They were made with quantiles that were summed up by hand, to six figures; nats are stored to five digits."""
    path = Path(__file__).parents[2] / f"docs/evidence/{name}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    nats = {one["method"]: np.array(one["nats"]) for one in record["measured"]}
    tokens, reference = np.array(record["tokens"], dtype=float), nats[record["study"]["reference"]]
    one = next(one for one in record["measured"] if one["against"] is not None)
    found, stored = paired_difference(nats[one["method"]], reference, tokens), one["against"]["loss"]
    for figure in ("estimate", "low", "high", "detectable"):
        assert getattr(found, figure) == pytest.approx(stored[figure], abs=2e-5), figure
    assert found.p == pytest.approx(stored["p"], rel=1e-3, abs=2e-6)


def test_no_difference_at_all_is_no_evidence():
    same = np.ones((3, 10))
    found = paired_difference(same, same, np.ones(10))
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)
