"""What answers without torch: help and mistyped commands; and the schema of recipes."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest
import yaml

from qpeft.adapters import ADAPTERS
from qpeft.comparison.study import Study
from qpeft.devices.journal import BatchState
from qpeft.training.config import recipe_schema, section_of
from qpeft.training.sections import Recipe
from qpeft_cli.jobs import State
from qpeft_cli.keys import MOST_USED, recipe_keys
from qpeft_cli.main import COMMANDS

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "numpy", "qpeft")
RUN = f"""
import sys
from qpeft_cli.main import main
try:
    main()
except SystemExit as stop:
    code = stop.code
loaded = sorted(set({HEAVY}) & set(sys.modules))
sys.exit(f"imported {{loaded}}" if loaded else code)
"""
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def run(*arguments):
    return subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_comes_without_the_heavy_packages(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--help" in done.stdout


def test_help_describes_every_command():
    listed = run("--help").stdout.split("Commands:")[1].strip().splitlines()
    assert [line.split(maxsplit=1)[0] for line in listed] == list(COMMANDS)
    assert all(line.split(maxsplit=1)[1] for line in listed)


def test_the_version_is_that_of_the_package_without_the_heavy_packages():
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, version("qpeft"))


def test_a_mistyped_command_is_corrected_without_the_heavy_packages():
    done = run("trian")
    assert done.returncode == 2
    assert "Did you mean 'train'?" in done.stderr


def test_the_schema_is_printed_as_json_and_nothing_else():
    command = [sys.executable, "-m", "qpeft_cli", "train", "--schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(recipe_schema()))


def test_what_trains_and_draws_is_imported_by_nothing_that_does_neither():
    modules = (
        "qpeft.comparison",
        "qpeft.training",
        *(f"qpeft_cli.{name}" for name in ("answering", "scoring", "export", "chat")),
    )
    heavy = {"trl", "datasets", "pandas", "pyarrow", "matplotlib", "sklearn", "transformers.trainer"}
    code = f"import sys, {', '.join(modules)}; sys.exit(str(sorted({heavy} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_the_schema_describes_every_key_and_refuses_unknown_ones():
    schema = recipe_schema()
    methods = [rule["then"] for rule in schema["$defs"]["AdapterSection"]["allOf"]]
    assert len(methods) == len(ADAPTERS)
    sections = [section for name, section in schema["$defs"].items() if name != "AdapterSection"]
    for section in [schema, *sections, *methods]:
        assert section["additionalProperties"] is False
        for name, key in section["properties"].items():
            assert key.get("description") or "description" in schema["$defs"][key["$ref"].split("/")[-1]], name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_knows_every_key_of_the_examples(path):
    schema = recipe_schema()
    for section, values in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        described = schema["properties"][section]
        if not isinstance(values, dict):
            continue
        named = [part["$ref"] for part in [described, *described.get("anyOf", [])] if "$ref" in part]
        options = schema["$defs"][named[0].split("/")[-1]]
        known = options["properties"]
        for rule in options.get("allOf", []):
            if rule["if"]["properties"]["type"]["const"] == values.get("type", "qtha"):
                known = rule["then"]["properties"]
        assert values.keys() <= known.keys()


def test_jobs_are_listed_by_every_state_of_a_batch():
    assert list(get_args(State)) == [state.value for state in BatchState]


@pytest.mark.parametrize("command", ["train", "inspect"])
def test_help_names_sections_and_the_keys_that_are_used_most(command):
    out = run(command, "--help").stdout
    listed, section = set(), ""
    for line in out.split("Most used keys of a recipe")[1].splitlines()[1:]:
        if re.match(r"  \w+: ", line):
            section = line.strip().partition(":")[0]
        elif found := re.match(r"    (?:  )?(\w+) ", line):
            listed.add(f"{section}.{found[1]}" if section else found[1])
    known = {key.path for key in recipe_keys()}
    assert listed == set(MOST_USED) <= known
    assert {"model", "data", "adapter", "training", "evaluation", "device", "output"} <= {
        path.split(".")[0] for path in listed
    }
    assert max(map(len, out.splitlines())) <= 80
    assert f"qpeft {command} --keys" in out


def test_help_names_every_key_of_a_study():
    out = run("compare", "--help").stdout
    for name in Study.model_fields:
        assert re.search(rf"^ +{name}:? ", out, re.MULTILINE), name
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["train", "inspect", "compare"])
def test_all_keys_come_with_all_that_they_mean_and_without_the_heavy_packages(command):
    done = run(command, "--keys")
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    models = (
        [Study] if command == "compare" else [section_of(field.annotation) for field in Recipe.model_fields.values()]
    )
    for model in filter(None, models):
        for name, field in model.model_fields.items():
            if section_of(field.annotation) is None or (command == "compare" and name not in ("output", "methods")):
                assert f"{name} {' '.join(field.description.split())}" in said
    assert max(map(len, done.stdout.splitlines())) <= 80
