"""`qpeft runs` over finished, unfinished and damaged records."""

import csv
import io
import json
import re
import shutil

import pytest


@pytest.fixture
def root(talkative, tmp_path):
    """Two finished runs that differ in rank and result, an interrupted one, and three that are damaged."""
    root = tmp_path / "runs"
    record = json.loads((talkative / "run.json").read_text())
    for name in ("one", "deep/two", "stopped", "empty", "list", "other"):
        (root / name).mkdir(parents=True)
    (root / "one/run.json").write_text(json.dumps(record))
    changed = json.loads(json.dumps(record))
    changed["recipe"]["adapter"]["rank"] = 2
    changed["recipe"]["data"]["train"] = [{"path": "a.jsonl"}, {"path": "b.jsonl"}]
    changed["after"] |= {"loss": 1.2500321, "exact_match": 0.123456}
    changed["seconds_per_step"] = 0.0123456
    (root / "deep/two/run.json").write_text(json.dumps(changed))
    started = {key: record[key] for key in ("recipe", "environment", "data", "adapter", "before")}
    (root / "stopped/run.json").write_text(json.dumps({"state": "started", **started}))
    for step in (2, 10):
        (root / f"stopped/checkpoints/checkpoint-{step}").mkdir(parents=True)
    (root / "empty/run.json").touch()
    (root / "list/run.json").write_text("[]")
    (root / "other/run.json").write_text('{"recipe": null}')
    return root


def plain(out):
    """Without the marks of colours and of bold text."""
    return re.sub(r"\x1b\[[\d;]*m", "", out)


def table(out, root):
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    return {row[0].removeprefix(f"{root}/"): row[1:] for row in rows}


def test_list_shows_every_run_with_its_state_and_losses(qpeft, root, talkative):
    code, out, _ = qpeft("runs", "list", root)
    assert code == 0
    rows = table(out, root)
    assert {name: row[0] for name, row in rows.items()} == {
        "deep/two": "finished",
        "empty": "damaged",
        "list": "damaged",
        "one": "finished",
        "other": "damaged",
        "stopped": "unfinished, step 10",
    }
    record = json.loads((talkative / "run.json").read_text())
    assert rows["deep/two"][1] == "qtha"
    assert rows["deep/two"][6:9] == ["1.2500", "12.3%", "0.0123"]
    assert float(rows["one"][6]) == pytest.approx(record["after"]["loss"], abs=1e-4)
    assert rows["stopped"][6] == "-"
    assert out.count("damaged: ") == 3
    assert "has no state and no recipe" in out


def test_a_list_fits_into_80_columns_and_breaks_no_word(qpeft, root, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    shutil.copytree(root / "one", root / "a-run-with-a-rather-long-name/of_a_sweep")
    _, out, _ = qpeft("runs", "list", root, columns="80")
    lines = plain(out).splitlines()
    assert max(len(line) for line in lines if line[:1] in "┃│┏┡└") <= 80
    cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert f"{root}/a-run-with-a-rather-long-name/of_a_sweep" in "".join(cells)


def test_list_says_where_there_is_nothing(qpeft, tmp_path):
    code, out, _ = qpeft("runs", "list", tmp_path)
    assert (code, out.strip()) == (0, f"There is no run in {tmp_path}.")
    code, _, err = qpeft("runs", "list", tmp_path / "none")
    assert code == 2
    assert "not there" in err


def test_show_prints_the_recipe_the_losses_and_the_results(qpeft, talkative):
    code, out, _ = qpeft("runs", "show", "--all", talkative)
    assert code == 0
    rows = table(out, talkative)
    assert rows["recipe.adapter.rank"] == ["4"]
    assert "after.loss" in rows
    assert "held-out loss" in out


@pytest.fixture
def large(root):
    """A run of 48 layers, 200 held-out items, 300 logged steps and a recipe of many keys."""
    record = json.loads((root / "one/run.json").read_text())
    many = [round(0.001 * number, 4) for number in range(300)]
    layers = {f"model.layers.{n}.self_attn.q_proj": {"step": many, "variance": many} for n in range(48)}
    record["health"] = {"layers": layers, "warnings": {"model.layers.3.self_attn.q_proj": "it is constant. " * 9}}
    record["history"] = [{"step": n, "loss": 2.5 - n / 300, "learning_rate": 1e-3} for n in range(1, 301)]
    for when, loss in (("before", 2.5), ("after", 1.5)):
        record[when]["items"] = {"nats": many, "tokens": list(range(300)), "right": [True] * 300}
        record[when] |= {"loss": loss, "metrics": {"exact": 0.25, "close": 0.5}}
        record[when]["samples"] = [{"question": "What? " * 60, "text": "That. " * 60, "expected": "This. " * 60}] * 5
    record["recipe"]["adapter"] |= {f"option_{number}": number for number in range(30)}
    record["recipe"]["adapter"]["target_modules"] = [f"model.layers.{n}.self_attn.q_proj" for n in range(48)]
    (root / "one/run.json").write_text(json.dumps(record))
    record["recipe"]["adapter"] |= {f"option_{number}": -number for number in range(30)}
    record["before"]["loss"] = 2.25
    (root / "deep/two/run.json").write_text(json.dumps(record))
    return root


@pytest.mark.parametrize("columns", ["80", "100"])
@pytest.mark.parametrize("command", ["show", "compare"])
def test_a_run_is_one_screen_with_its_results_first(qpeft, large, monkeypatch, columns, command):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    folders = [large / "one", large / "deep/two"] if command == "compare" else [large / "one"]
    code, out, err = qpeft("runs", command, *folders, columns=columns)
    lines = plain(out).splitlines()
    assert code == 0, err
    assert len(lines) <= 40
    assert max(map(len, lines)) <= int(columns)
    results = next(number for number, line in enumerate(lines) if "2.5" in line)
    assert results < next(number for number, line in enumerate(lines) if "adapter.option_1 " in line)
    assert "--all" in lines[-1]
    code, whole, _ = qpeft("runs", command, "--all", *folders, columns=columns)
    assert len(whole.splitlines()) > 100
    assert "option_29" in whole


def test_show_names_what_came_out_before_what_was_asked_for(qpeft, large):
    lines = qpeft("runs", "show", large / "one")[1].splitlines()
    assert lines[0].startswith("finished: qtha on ")
    assert lines[1].split() == ["measured", "before", "after"]
    assert lines[2].split() == ["loss", "2.5", "1.5"]
    assert "warnings of 1 layers, first model.layers.3.self_attn.q_proj: it is constant." in "\n".join(lines)
    shown = [line.split()[0] for line in lines if line]
    assert shown.index("step") < shown.index("asked")
    assert "data.hold_out" in shown
    assert "training.batch_size" not in shown  # as it is by default


def test_of_more_runs_than_the_terminal_has_room_for_it_says_so(qpeft, root, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    code, out, _ = qpeft("runs", "compare", *[root / "one"] * 20, columns="80")
    assert code == 0
    assert "more runs need more than 80 columns" in out
    assert max(map(len, plain(out).splitlines())) <= 80


def test_compare_shows_what_differs_and_the_results(qpeft, root):
    code, out, _ = qpeft("runs", "compare", root / "one", root / "deep/two")
    assert code == 0
    rows = table(out, root)
    assert rows["recipe.adapter.rank"] == ["4", "2"]
    assert rows["recipe.data.train"][1] == '[{"path": "a.jsonl"}, {"path": "b.jsonl"}]'
    assert rows["after.loss"][1] == "1.25003"
    recipe = [key for key in rows if key.startswith(("recipe.", "environment.", "data."))]
    assert sorted(recipe) == ["recipe.adapter.rank", "recipe.data.train"]
    code, out, _ = qpeft("runs", "compare", root / "one", root / "one")
    assert "do not differ" in out
    assert qpeft("runs", "compare", root / "one")[0] == 2


def test_of_many_runs_side_by_side_nothing_is_cut_off(qpeft, root):
    record = json.loads((root / "one/run.json").read_text())
    folders = [root / f"many/a-run-with-a-long-name-{number}" for number in range(40)]
    for seed, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({**record, "recipe": {**record["recipe"], "seed": 100 + seed}}))
    code, out, _ = qpeft("runs", "compare", *folders)
    assert code == 0
    assert all(str(folder) in out.splitlines()[1] for folder in folders)
    assert table(out, root)["recipe.seed"] == [str(100 + number) for number in range(40)]


def test_csv_holds_a_line_for_each_run_and_json_the_whole_records(qpeft, root, talkative, tmp_path):
    code, out, _ = qpeft("runs", "export", root)
    assert code == 0
    rows = {row["folder"].removeprefix(f"{root}/"): row for row in csv.DictReader(io.StringIO(out))}
    assert rows["deep/two"]["recipe.adapter.rank"] == "2"
    assert rows["empty"]["state"] == "damaged"
    assert "cannot be read" in rows["empty"]["problem"]
    assert qpeft("runs", "export", root, "--format", "json", "--output", tmp_path / "all.json")[0] == 0
    records = {
        record["folder"].removeprefix(f"{root}/"): record for record in json.loads((tmp_path / "all.json").read_text())
    }
    stored = json.loads((talkative / "run.json").read_text())
    assert {key: records["one"][key] for key in stored} == stored


@pytest.mark.parametrize("command", ["show", "compare"])
def test_a_damaged_record_is_one_sentence(qpeft, root, command):
    for name in ("empty", "list", "other", "none"):
        code, out, err = qpeft("runs", command, root / name, *([root / "one"] if command == "compare" else []))
        assert code == 2
        assert ("does not exist" if name == "none" else "run.json") in err
        assert "Traceback" not in out + err


def test_a_record_in_any_other_shape_is_listed(qpeft, root):
    shutil.rmtree(root / "one")
    odd = {"state": "finished", "recipe": {}, "history": "x", "after": [1], "adapter": "\ud800", "before": {"loss": {}}}
    (root / "other/run.json").write_text(json.dumps(odd))
    (root / "list/run.json").unlink()
    (root / "list/run.json").symlink_to(root / "nothing")
    (root / "empty/run.json").unlink()
    (root / "empty/run.json").mkdir()
    code, out, _ = qpeft("runs", "list", root)
    assert code == 0
    rows = table(out, root)
    assert [rows[name][0] for name in ("other", "list", "empty")] == ["finished", "damaged", "damaged"]
    assert qpeft("runs", "show", root / "other")[0] == 0
    assert qpeft("runs", "export", root)[0] == 0
