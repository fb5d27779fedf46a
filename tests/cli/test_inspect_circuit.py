"""`qpeft inspect --circuit`: what it prints, writes and refuses."""

import json
import xml.etree.ElementTree as ET

import pytest

QUICK = ("--qubits", "3", "--samples", "100")


def test_all_ansatze_stand_side_by_side(qpeft):
    code, out, _ = qpeft("inspect", "--circuit", *QUICK)
    assert code == 0
    head, *rows = out.splitlines()[1:]
    assert [cell.strip() for cell in head.strip("┃").split("┃")] == [
        "3 qubits, depth 1",
        "ring_crz",
        "ring_cz",
        "ring_cnot",
    ]
    form = next(row for row in rows if "exact classical form" in row)
    assert [cell.strip() for cell in form.strip("│").split("│")][1:] == ["no", "yes", "no"]


def test_json_has_the_named_ones_and_repeats_with_the_seed(qpeft):
    runs = [
        qpeft("inspect", "--circuit", "ring_cnot", "ring_cz", *QUICK, "--depth", "2", "--json", "--seed", seed)
        for seed in (3, 3, 4)
    ]
    first, second, other = (json.loads(out) for _, out, _ in runs)
    assert [one["ansatz"] for one in first] == ["ring_cnot", "ring_cz"]
    assert {(one["num_qubits"], one["depth"], one["seed"], one["samples"]) for one in first} == {(3, 2, 3, 100)}
    assert first == second
    assert first[0]["expressibility"] != other[0]["expressibility"]


def test_a_recipe_gives_its_circuit(qpeft, recipe_file):
    code, out, err = qpeft(
        "inspect", recipe_file, "--circuit", "--samples", 100, "--json", "--adapter.type", "qtha",
        "--adapter.rank", 4, "--adapter.num_qubits", 2, "--adapter.depth", 3, "--adapter.ansatz", "ring_cz",
    )  # fmt: skip
    assert code == 0, err
    (found,) = json.loads(out)
    assert (found["ansatz"], found["num_qubits"], found["depth"]) == ("ring_cz", 2, 3)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_figure_is_written_and_repeats(qpeft, tmp_path, ending):
    written = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{ending}"
        code, out, _ = qpeft("inspect", "--circuit", "ring_cz", *QUICK, "--figure", path)
        assert code == 0
        assert f"figure: {path}" in out
        written.append(path.read_bytes())
    assert written[0] == written[1]
    if ending == "svg":
        assert ET.fromstring(written[0]).tag.endswith("svg")
    else:
        assert written[0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--circuit", "ring_zz"], "There is no ansatz 'ring_zz'. Did you mean 'ring_cz'?"),
        (["--circuit", "--qubit", "4"], "there is no option --qubit"),
        (["--circuit", "--qubits", "13"], "Invalid value for '--qubits'"),
        (["--circuit", "--depth", "0"], "Invalid value for '--depth'"),
        (["--circuit", "--samples", "99"], "Invalid value for '--samples'"),
        (["--circuit", "--figure", "x.jpg"], "A figure is written as .svg or .png; got 'x.jpg'."),
        (["--circuit", "--figure", "missing/x.png", *QUICK, "ring_cz"], "Cannot write to missing"),
        (["--circuit", "--data"], "cannot be combined with --device or --data"),
        (["--circuit", "nothing.yaml"], "nothing.yaml"),
        (["recipe.yaml", "--json"], "is needed for --qubits"),
        (["recipe.yaml", "--qubits", "4"], "is needed for --qubits"),
        ([], "is missing: name a YAML file, or give --circuit"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(qpeft, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = qpeft("inspect", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())


def test_without_the_flag_a_seed_is_that_of_the_recipe(qpeft, recipe_file, monkeypatch):
    seen = []
    monkeypatch.setattr("qpeft.training.load_recipe", lambda path, overrides: seen.append((path, overrides)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        qpeft("inspect", recipe_file, "--seed", 7, "--training.steps", 2)
    assert seen == [(recipe_file, ["--training.steps", "2", "--seed", "7"])]


@pytest.mark.parametrize("bottleneck", ["tanh", "none"])
def test_a_recipe_without_such_a_circuit_says_so(qpeft, recipe_file, bottleneck):
    code, _, err = qpeft("inspect", recipe_file, "--circuit", "--adapter.middle", bottleneck)
    assert code == 2
    assert "has no circuit that reads inputs. Name an ansatz instead." in err
