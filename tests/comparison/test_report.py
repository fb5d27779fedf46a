"""The report as a reader meets it. With QPEFT_BROWSER=chromium, as a browser does too."""

import base64
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from qpeft.circuits import ansatz
from qpeft.comparison import found_in, words
from qpeft.comparison.drawing import columns
from qpeft.comparison.figures import frontier
from qpeft.comparison.report import write_report

BROWSER = os.environ.get("QPEFT_BROWSER")
"""A Chromium. Unset, the tests that need one do not exist: elsewhere one that is skipped would go unnoticed."""
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
def report(finished, tmp_path_factory):
    """The folder of a study with its report."""
    results, ledger = found_in(finished[0])
    write_report(results, ledger)
    return finished[0]


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_outside(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object")
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes[name])
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_every_figure_is_a_drawing_with_words_for_it(page):
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    for image in images:
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
        assert len(image["alt"].split()) > 10


def test_the_verdict_comes_first_and_figures_are_those_of_the_records(finished, report, page):
    body = page.text[page.text.index("}\n") :]
    assert body.index("QTHA") < body.index("What this cannot claim") < body.index("How to do it again")
    stored = json.loads((report / "results.json").read_text())
    for method in stored["methods"]:
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
        if "**" not in line:
            assert line in told
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows[:4]} == {rows[0].count("|")}


def test_text_of_the_data_cannot_become_part_of_the_page(finished, tmp_path):
    results, ledger = found_in(finished[0])
    object.__setattr__(results.study, "name", "<script>alert(1)</script> & more")
    place = write_report(results, ledger, tmp_path / "other" / "page.html")
    assert "script" not in [tag for tag, _ in Page(place.read_text(encoding="utf-8")).tags]


def test_what_cannot_be_claimed_is_said(finished):
    results, ledger = found_in(finished[0])
    study, values = results.study, ledger.values

    def said(**changes):
        object.__setattr__(results, "study", study.model_copy(update=changes))
        return " ".join(words.limits(results, values))

    assert "edge of its grid" in said()
    assert "Two seeds" in said()
    assert "One seed" in said(seeds=[0])
    assert "no method is shown to be better" in said(seeds=[0])
    assert "same items that chose their learning rates" in said(test=None)
    values["test_readings"] = [{}, {}]
    values["amendments"] = [{"when": "today", "changed": ["seeds"], "test_readings_before": 1}]
    assert "read 2 times" in said()
    assert "changed on today (seeds), after 1 readings" in said()


def test_the_frontier_is_what_no_smaller_method_beats(finished):
    measured = finished[1].measured
    expected = {
        one.method
        for one in measured
        if not any(other.parameters <= one.parameters and other.loss.estimate < one.loss.estimate for other in measured)
    }
    assert {one.method for one in frontier(measured)} == expected


@pytest.mark.parametrize("name", ["ring_crz", "ring_cz", "ring_cnot"])
def test_gates_in_one_column_of_a_drawing_do_not_cross(name):
    circuit = ansatz.ANSATZE[name](5, 2)
    places = columns(circuit.operations)
    taken = [
        (column, qubit)
        for operation, column in zip(circuit.operations, places, strict=True)
        for qubit in range(min(operation.qubits), max(operation.qubits) + 1)
    ]
    assert len(set(taken)) == len(taken)
    for qubit in range(5):  # and those of one qubit keep their order
        mine = [place for one, place in zip(circuit.operations, places, strict=True) if qubit in one.qubits]
        assert mine == sorted(mine)


def browse(page, tmp_path):
    """Messages of the console, and addresses that the page asks for, when a browser shows it on a telephone."""
    log = tmp_path / "net.json"
    command = [
        BROWSER, "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", "--window-size=400,2000",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--log-net-log={log}", f"--screenshot={tmp_path / 'page.png'}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # What the browser asks for by itself is "not an origin"; a page in a file is the origin null.
    asked = {event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"}
    return re.findall(r"CONSOLE.*", done.stderr), sorted(asked)


if BROWSER:

    def test_a_browser_complains_of_nothing_and_asks_for_nothing(report, tmp_path):
        assert browse(report / "report.html", tmp_path) == ([], [])
        assert (tmp_path / "page.png").stat().st_size > 10_000

    def test_a_browser_would_tell(tmp_path):
        page = Path(tmp_path / "page.html")
        page.write_text('<img src="http://outside.invalid/x.png"><script>console.error("oh")</script>')
        console, asked = browse(page, tmp_path)
        assert "oh" in console[0]
        assert asked == ["http://outside.invalid/x.png"]
