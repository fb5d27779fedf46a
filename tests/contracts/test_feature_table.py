"""docs/features.md speaks of the present methods and features, and its cells come from outcomes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from feature_table import (
    FAILS,
    FEATURES,
    NOT_APPLICABLE,
    NOT_RUN,
    REFUSED,
    WORKS,
    cell,
    is_deliberate,
    outcome,
    rows_and_columns,
)

from qpeft.adapters import ADAPTERS
from qpeft.errors import AdapterError

PAGE = Path(__file__).parents[2] / "docs/features.md"


def test_the_committed_table_has_the_present_methods_and_features_and_no_gap():
    page = PAGE.read_text(encoding="utf-8")
    again = "run the command in docs/features.md"
    assert rows_and_columns(page) == (list(FEATURES.values()), list(ADAPTERS)), again
    assert f"| {NOT_RUN} " not in page, again
    assert FAILS not in page, again


@pytest.mark.parametrize(
    ("report", "refusals", "word"),
    [
        ({"passed": True}, [], WORKS),
        ({"passed": True}, ["no"], REFUSED),
        ({"passed": False}, ["no"], FAILS),
        (
            {"passed": False, "skipped": True, "longrepr": ("f", 1, "Skipped: not applicable: no rank")},
            [],
            NOT_APPLICABLE,
        ),
        ({"passed": False, "skipped": True, "longrepr": ("f", 1, "Skipped: no torchao")}, [], NOT_RUN),
    ],
)
def test_a_test_counts_as_what_it_showed(report, refusals, word):
    assert outcome(SimpleNamespace(**({"skipped": False, "longrepr": None} | report)), refusals) == word


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [([WORKS, REFUSED, WORKS], REFUSED), ([REFUSED, FAILS], FAILS), ([WORKS], WORKS), ([], NOT_RUN)],
)
def test_a_feature_is_as_good_as_its_worst_test(outcomes, word):
    assert cell(outcomes) == word


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (AdapterError("This cannot be."), True),
        (ValueError("Hotswapping only supports LORA but QTHA was passed."), True),
        (AttributeError("'LlamaForCausalLM' object has no attribute 'add_weighted_adapter'"), False),
        (ValueError("cannot reshape array"), False),
        (TypeError("Hotswapping only supports LORA but QTHA was passed."), False),
    ],
)
def test_only_an_error_that_was_meant_counts_as_a_refusal(error, counts):
    assert is_deliberate(error) == counts
