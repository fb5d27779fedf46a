"""Figures: nothing hides anything, nothing is told by colour alone, and colours can be seen on both pages."""

import re
from itertools import pairwise

import pytest

from qpeft.circuits import ansatz
from qpeft.circuits.circuit import Input, Weight
from qpeft.circuits.drawing import angle_name, columns
from qpeft.comparison import svg
from qpeft.comparison.circuit_figures import circuits_of
from qpeft.comparison.circuit_health import health_sentences
from qpeft.comparison.figures import curves, differences, frontier, short

CIRCUITS = ["ring_crz", "ring_cz", "ring_cnot"]


def contrast(first, second):
    """As WCAG 2 defines it, from 1 to 21."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [svg.LIGHT, svg.DARK], ids=["light", "dark"])
def test_text_can_be_read_and_lines_can_be_seen(colours):
    for name in ("ink", "soft", "accent", "good", "bad"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours[name], colours["tint"]) >= 4.5, name
    for number in range(svg.NUM_SERIES):  # labels are in these colours too
        assert contrast(colours[f"s{number}"], colours["paper"]) >= 4.5, number
    for name in ("input", "weight", "fixed"):
        assert contrast(colours["ink"], colours[name]) >= 4.5, name


def test_both_pages_have_the_same_colours():
    assert svg.LIGHT.keys() == svg.DARK.keys()


def test_methods_differ_by_more_than_colour():
    looks = [svg.style(number) for number in range(8)]
    assert len({look["marker"] for look in looks}) == 8
    assert len({tuple(svg.style(number).values()) for number in range(32)}) == 32


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.0, 0.01, 0.9], [0.99, 0.98], [0.3, 0.1, 0.2] * 4])
def test_labels_do_not_overlap_and_keep_their_order(places):
    tall = [0.08 * (1 + number % 2) for number in range(len(places))]
    found = svg.spread(places, tall)
    order = sorted(range(len(places)), key=places.__getitem__)
    for low, high in pairwise(order):
        assert found[high] - found[low] >= (tall[low] + tall[high]) / 2 - 1e-9


def test_labels_with_room_stay_where_they_belong():
    assert svg.spread([0.2, 0.8], [0.1, 0.1]) == [0.2, 0.8]


def test_a_drawing_has_the_page_s_colours_and_text_and_ids_of_its_own(finished):
    drawn, other = differences(finished[1]), curves(finished[1])
    colours = re.findall(r"(?:fill|stroke): (#\w{6})", drawn.svg)
    assert svg.LIGHT["ink"] in colours
    assert set(colours) <= set(svg.LIGHT.values())
    assert ">QTHA</text>" in drawn.svg
    ids, others = (re.findall(r' id="([^"]+)"', one.svg) for one in (drawn, other))
    assert len({*ids, *others}) == len(ids) + len(others)
    assert set(re.findall(r"(?:url\(|href=\")#([\w-]+)", drawn.svg)) <= set(ids)
    assert "<metadata" not in drawn.svg
    assert drawn == differences(finished[1])


def test_equal_colours_of_the_light_page_are_equal_on_the_dark_one():
    """The style sheet knows the colours of a drawing by their light value alone."""
    assert len(set(svg.LIGHT.values())) == len(set(zip(svg.LIGHT.values(), svg.DARK.values(), strict=True)))


def test_one_seed_has_no_band(finished):
    results = finished[1]
    study = results.study.model_copy(update={"seeds": [0]})
    assert "band" in curves(results).title
    assert "one seed" in curves(type(results)(**vars(results) | {"study": study})).title


def test_the_frontier_is_what_no_smaller_method_beats(finished):
    measured = finished[1].measured
    expected = {
        one.method
        for one in measured
        if not any(other.parameters <= one.parameters and other.loss.estimate < one.loss.estimate for other in measured)
    }
    assert {one.method for one in frontier(measured)} == expected


@pytest.mark.parametrize(("value", "expected"), [(900, "900"), (92_880, "92.9k"), (100_000, "100k"), (2.5e6, "2.5M")])
def test_counts_on_an_axis_are_short(value, expected):
    assert short(value) == expected


@pytest.mark.parametrize("name", CIRCUITS)
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


def test_where_an_angle_comes_from_is_written_into_its_gate():
    assert [angle_name(angle) for angle in (Input(3), Weight(12), 0.5, None)] == ["x3", "w12", "0.5", ""]


def test_methods_of_one_circuit_share_its_drawing(finished):
    study = finished[1].study
    qtha = study.methods["QTHA"]
    methods = study.methods | {"again": qtha}
    ((circuit, names),) = circuits_of(study.model_copy(update={"methods": methods}))
    assert (circuit.num_qubits, names) == (4, ["QTHA", "again"])


def test_of_many_warnings_a_few_are_quoted_and_all_are_named():
    health = {"layers": {}, "warnings": {f"layers.{number}.q": "constant." for number in (10, 9, 2, 1, 0, 3)}}
    found = health_sentences("QTHA", [health, None, health])
    assert found[0] == "QTHA, layers.0.q, in 2 of 2 runs: constant."
    assert found[-1] == "QTHA, warned of as well: layers.9.q, layers.10.q."
    assert len(found) == 5
