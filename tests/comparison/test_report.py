"""The report as a reader meets it; test_report_in_browser.py shows it to a browser."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from qpeft.comparison import load_results, summary_text
from qpeft.comparison.report import write_report
from qpeft.comparison.results import BETTER
from qpeft.comparison.study_log import StudyLog

VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """`tags`: every tag with its attributes. `text`: all of the text. Refuses tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_outside(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object")
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes[name])
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_every_figure_has_words_for_it(page):
    figures = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(figures) == 6  # differences, curves, frontier, circuit, health, rates
    assert [tag for tag, _ in page.tags if tag in ("figure", "svg")] == ["figure", "svg"] * 6
    for figure in figures:
        assert len(figure["aria-label"].split()) > 10


def test_no_two_elements_of_a_page_have_one_id_and_its_drawings_take_its_colours(report, page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    text = (report / "report.html").read_text(encoding="utf-8")
    used = set(re.findall(r"((?:fill|stroke): #\w{6})", text[text.index("<body") :]))
    ruled = set(re.findall(r'svg \[style\*="([^"]+)"\]', text))
    assert used
    assert used <= ruled


def test_the_verdict_comes_first_and_figures_are_those_of_the_records(finished, report, page):
    body = page.text[page.text.index("}\n") :]
    assert body.index("Verdict") < body.index("What this cannot claim") < body.index("How to do it again")
    stored = json.loads((report / "results.json").read_text())
    for method in stored["measured"]:
        one = finished[1].of(method["method"])
        assert method["loss"]["estimate"] == pytest.approx(np.mean(one.loss.per_seed))
        assert f"{one.loss.estimate:.4f}" in page.text
        assert f"{one.parameters:,}" in page.text


def test_it_says_how_to_do_it_again(report, page):
    values = json.loads((report / "study.json").read_text())
    for text in (values["digest"], *values["inputs"]["hashes"].values(), "qpeft compare study.yaml", "torch"):
        assert text in page.text


def test_both_forms_say_the_same(report, page):
    markdown = (report / "report.md").read_text(encoding="utf-8")
    lines = [line[2:] for line in markdown.splitlines() if line.startswith("- ") and "`" not in line]
    assert lines
    told = " ".join(page.text.split())
    for line in lines:
        assert line in told
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows[:4]} == {rows[0].count("|")}


def test_text_of_the_data_cannot_become_part_of_the_page(finished, tmp_path):
    bad = "<script>alert(1)</script> & 'more' \" $5 (#1) $6 计"
    results, ledger = load_results(finished[0])
    answers = ({"question": bad, "expected": bad, "text": bad, "right": True},)
    measured = tuple(replace(one, method=one.method + bad, samples=answers) for one in results.measured)
    results = replace(results, measured=measured, base_samples=answers, gaps=(bad,), missing={"QTHA": bad})
    object.__setattr__(results.study, "name", bad)
    place = write_report(results, StudyLog(tmp_path, ledger.values))
    page = Page(place.read_text(encoding="utf-8"))
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.text.count("alert(1)") > 10
    assert "$5 (#1) $6 计" in page.text


def test_what_cannot_be_claimed_is_said(finished):
    results, ledger = load_results(finished[0])
    study, values = results.study, ledger.values

    def said(**changes):
        object.__setattr__(results, "study", study.model_copy(update=changes))
        return " ".join(summary_text.limits(results, values))

    assert "edge of its grid" in said()
    assert "A single learning rate" not in said()
    assert "Two seeds" in said()
    assert "One seed" in said(seeds=[0])
    assert "no method is shown to be better" in said(seeds=[0])
    assert "same items that chose their learning rates" in said(test=None)
    alone = [replace(one, losses={one.rate: one.losses[one.rate]}) for one in results.choices]
    choices, results = results.choices, replace(results, choices=alone)
    assert "A single learning rate was tried" in said()
    assert "edge of its grid" not in said()
    results = replace(results, choices=choices)
    values["test_readings"] = [{}, {}]
    values["amendments"] = [{"when": "today", "changed": ["seeds"], "test_readings_before": 1}]
    assert "read 2 times" in said()
    assert "changed on today (seeds); the test had been read 1 time before." in said()


@pytest.fixture
def shown(finished, tmp_path):
    """A function: the page and the Markdown of the finished study, with parts of its results changed by keyword."""

    def show(*, seeds=None, **changes):
        results, ledger = load_results(finished[0])
        if seeds is not None:
            object.__setattr__(results, "study", results.study.model_copy(update={"seeds": seeds}))
        place = write_report(replace(results, **changes), StudyLog(tmp_path, ledger.values))
        return Page(place.read_text(encoding="utf-8")).text, (tmp_path / "report.md").read_text(encoding="utf-8")

    return show


def test_one_seed_is_warned_of_before_the_verdict(shown):
    page, markdown = shown(seeds=[0])
    warning = "One run each, with one seed, so nothing is shown of the methods."
    assert page.index("Verdict") < page.index(warning) < page.index("Lowest loss")
    assert markdown.index(warning) < markdown.index("## What this cannot claim")
    assert "- Of these single runs: " in markdown
    assert warning not in shown()[0]


def test_a_method_that_crashed_is_a_row_with_its_reason(finished, shown):
    reason = "learning rate 0.01, seed 1: its process ended with signal 9; see trained.log"
    rest = tuple(one for one in finished[1].measured if one.method != "QTHA")
    page, markdown = shown(measured=rest, missing={"QTHA": reason}, gaps=(f"QTHA, {reason}",))
    (row,) = [line for line in markdown.splitlines() if line.startswith("| QTHA | missing")]
    assert reason in row
    heading = next(line for line in markdown.splitlines() if line.startswith("| method | verdict"))
    assert row.count("|") == heading.count("|")
    assert "Nothing can be compared" in page
    assert "Without a result, so nothing is said of them: QTHA." in page
    assert page.count("its process ended with signal 9") == 2  # in the table, and in the list of what is missing


def test_without_the_reference_nothing_is_called_the_reference(finished, shown):
    alone = tuple(replace(one, against=None) for one in finished[1].measured if one.method == "QTHA")
    _, markdown = shown(measured=alone, missing={"LoRA": "it broke"})
    assert "| QTHA | not compared |" in markdown
    assert "| LoRA | missing |" in markdown


def test_the_health_of_every_layer_is_told(finished, shown):
    records = finished[1].of("QTHA").health
    assert len(records) == 2
    assert all(len(health["layers"]) == 4 for health in records)
    last = [ends["variance"][1] for health in records for ends in health["layers"].values()]
    (row,) = [line for line in shown()[1].splitlines() if line.startswith("| QTHA | 0 of 4 |")]
    assert f"| {min(last):.2g} to {max(last):.2g} |" in row
    ill = [
        dict(health) | {"warnings": {"model.layers.1.self_attn.q_proj": "it is constant."}} for health in records[:1]
    ]
    one = replace(finished[1].of("QTHA"), health=(*ill, records[1]))
    page, markdown = shown(measured=(one,))
    assert "| QTHA | 1 of 4 |" in markdown
    for text in (page, markdown):
        assert "QTHA, model.layers.1.self_attn.q_proj, in 1 of 2 runs: it is constant." in text


def test_health_is_that_of_the_runs(finished):
    from qpeft.comparison.trials import plan_trials
    from qpeft.runs import read_record

    ledger = StudyLog.read(finished[0])
    rate = next(choice.rate for choice in finished[1].choices if choice.method == "QTHA")
    trials = plan_trials(ledger.study, ledger.inputs)
    run = next(one.run for one in trials if (one.method, one.rate, one.seed) == ("QTHA", rate, 1))
    for layer, columns in read_record(run)["health"]["layers"].items():
        found = finished[1].of("QTHA").health[1]["layers"][layer]
        assert found["variance"] == [columns["variance"][0], columns["variance"][-1]]
        assert found["gradient_ratio"][1] == columns["circuit_gradient"][-1] / columns["core_gradient"][-1]
    assert finished[1].of("LoRA").health == (None, None)


def test_answers_stand_side_by_side_with_those_of_the_model_itself(finished, shown):
    def answer(text, right):
        return ({"question": "1 and 1?", "expected": "2", "text": text, "right": right},)

    measured = tuple(replace(one, samples=answer(f"by {one.method}", True)) for one in finished[1].measured)
    page, markdown = shown(measured=measured, base_samples=answer("by nobody", False))
    told = " ".join(page.split())
    assert "1 and 1? expected2 without an adapter: wrongby nobody QTHA: rightby QTHA LoRA: rightby LoRA" in told
    assert "- without an adapter, wrong: `by nobody`" in markdown
    assert len(finished[1].base_samples) == 4


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("<b> *a* | _b_\n\n# c", "`<b> *a* | _b_ # c`"),
        ("x ``y` z", "``` x ``y` z ```"),
        ("`", "`` ` ``"),
        (" \n", "`(nothing)`"),
    ],
)
def test_answers_are_one_line_of_code_in_markdown(finished, shown, text, shown_as):
    answers = ({"question": text, "expected": text, "text": text, "right": None},)
    measured = tuple(replace(one, samples=answers) for one in finished[1].measured)
    _, markdown = shown(measured=measured, base_samples=answers)
    assert f"1. {shown_as}\n   - expected: {shown_as}\n" in markdown
    assert f"- QTHA: {shown_as}\n" in markdown


def test_findings_name_each_method_once_the_best_first(finished):
    results = finished[1]
    against = replace(results.of("QTHA").against, verdict=BETTER)
    better = replace(results.of("QTHA"), method="A, small", against=against)
    both = replace(results, measured=(*results.measured, better), missing={"B": "it broke"})
    found = summary_text.findings(both)
    assert [(found[0].verdict, found[0].methods), (found[-1].verdict, found[-1].methods)] == [
        (BETTER, ("A, small",)),
        (summary_text.MISSING, ("B",)),
    ]
    assert sorted(method for finding in found for method in finding.methods) == ["A, small", "B", "QTHA"]
    assert summary_text.headline(both).startswith("A, small: better than LoRA; ")
