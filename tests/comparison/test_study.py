"""What a study file may hold, and what it is told otherwise."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qpeft.adapters.build import add_adapter
from qpeft.comparison.study import load_study, parse_study, study_schema
from qpeft.errors import AdapterError, RecipeError, StudyError
from qpeft.models import load_skeleton

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "studies").glob("*.yaml"))
CHANGE = {
    "unknown key": ({"margins": 0.1}, RecipeError, "did you mean 'margin'"),
    "unknown key of the recipe": ({"recipe": {"modell": {}}}, RecipeError, "did you mean 'model'"),
    "a tuning seed that is none": (
        {"tuning_seeds": [2]},
        RecipeError,
        r"tuning_seeds: 2 is not among the seeds, \[0, 1\]",
    ),
    "a contrast with nothing": ({"contrasts": [["QTHA", "DoRA"]]}, RecipeError, "contrasts names 'DoRA'.*QTHA, LoRA"),
    "a contrast with itself": ({"contrasts": [["QTHA", "QTHA"]]}, RecipeError, r"\[QTHA, QTHA\] is one method twice"),
    "a contrast with the reference": (
        {"contrasts": [["QTHA", "LoRA"]]},
        RecipeError,
        r"\[QTHA, LoRA\] is compared anyway: LoRA is the reference",
    ),
    "unknown reference": ({"reference": "Lora"}, RecipeError, "reference names 'Lora'.*QTHA, LoRA"),
    "unknown method to ablate": ({"ablate": ["x"]}, RecipeError, "ablate names 'x'"),
    "no learning rates for one": ({"learning_rates": {"QTHA": [1.0]}}, RecipeError, "a list for each method"),
    "more trials for one": (
        {"learning_rates": {"QTHA": [0.1, 0.2], "LoRA": [0.1]}},
        RecipeError,
        "same number of trials; got QTHA: 2, LoRA: 1",
    ),
    "a seed twice": ({"seeds": [1, 1]}, RecipeError, "same seed twice"),
    "a rate twice": ({"learning_rates": [0.1, 0.1]}, RecipeError, "same rate twice"),
    "no seed": ({"seeds": []}, RecipeError, "seeds"),
    "no margin": ({"margin": 0}, RecipeError, "margin"),
    "one method": ({"methods": {"LoRA": {"type": "lora"}}}, RecipeError, "methods"),
    "unknown method": ({"methods": {"LoRA": {"type": "lora"}, "QTHA": {"type": "qhta"}}}, AdapterError, "'qtha'"),
    "unknown preset": ({"methods": {"LoRA": {"type": "lora"}, "QTHA": {"preset": "x"}}}, AdapterError, "no preset"),
    "nothing to ablate": ({"ablate": ["LoRA"]}, StudyError, "LoRA.*nothing in its bottleneck"),
}


@pytest.mark.parametrize(("changes", "error", "message"), CHANGE.values(), ids=CHANGE)
def test_a_study_at_odds_with_itself_is_refused(study_values, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        parse_study(study_values(tmp_path, **changes), source="test")


def test_choosing_by_the_test_is_refused(study_values, tmp_path, test_file):
    values = study_values(tmp_path)
    for held_out in ({"eval": str(test_file)}, {"hold_out": 3}):
        recipe = values["recipe"] | {"data": values["recipe"]["data"] | held_out}
        with pytest.raises(StudyError, match="must not be chosen on what it is judged by"):
            parse_study(values | {"recipe": recipe}, source="test")
    with pytest.raises(StudyError, match=r"test and recipe\.data\.train are the same"):
        parse_study(values | {"test": values["recipe"]["data"]["train"]}, source="test")


def test_grids_may_differ_if_they_are_of_one_length(study_values, tmp_path):
    grids = {"QTHA": [0.3, 0.1], "LoRA": [0.01, 0.001]}
    study = parse_study(study_values(tmp_path, learning_rates=grids), source="test")
    assert study.rates("QTHA") == [0.1, 0.3]


def test_a_recipe_file_may_be_named_and_parts_of_it_changed(study_values, tmp_path):
    values = study_values(tmp_path)
    recipe = values["recipe"] | {"output": {"folder": "x"}, "adapter": {"type": "lora"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    changes = {"recipe": {"from": "recipe.yaml", "training": {"steps": 7}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values | changes))
    study = load_study(tmp_path / "study.yaml", ["--seeds", "[5]", "--recipe.training.batch_size", "2"])
    assert study.seeds == [5]
    assert study.recipe["training"] == recipe["training"] | {"steps": 7, "batch_size": 2}
    assert study.recipe["data"] == recipe["data"]


def test_the_digest_is_that_of_what_is_fixed_and_not_of_the_folder(study_values, tmp_path):
    digest = parse_study(study_values(tmp_path / "a"), source="test").digest()
    assert parse_study(study_values(tmp_path / "b"), source="test").digest() == digest
    assert parse_study(study_values(tmp_path / "a", margin=0.02), source="test").digest() != digest


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_studies_that_the_schema_knows(path):
    study, schema = load_study(path), study_schema()
    assert set(study.model_fields_set) <= set(schema["properties"])
    assert set(study.recipe) <= set(schema["$defs"]["Recipe"]["properties"])


def test_the_schema_is_printed_as_json_and_nothing_else():
    command = [sys.executable, "-m", "qpeft_cli", "compare", "--schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(study_schema()))


@pytest.mark.parametrize("halving", [[3], [2, 1], [1, 1]])
def test_short_trainings_that_are_no_shorter_or_do_not_grow_are_refused(study_values, tmp_path, halving):
    with pytest.raises(RecipeError, match="stay shorter than recipe"):
        parse_study(study_values(tmp_path, halving=halving), source="test")


def test_the_frontier_study_says_how_many_parameters_its_methods_train():
    path = next(one for one in EXAMPLES if one.stem == "frontier")
    said = dict(re.findall(r'^  "?([^"\n]+?)"?: \{type.*\} # ([\d,]+)$', path.read_text(encoding="utf-8"), re.M))
    study = load_study(path)
    assert list(said) == list(study.methods)
    skeleton = load_skeleton(study.base().model.name)
    for method, count in said.items():
        model = add_adapter(copy.deepcopy(skeleton), study.config(method), low_cpu_mem_usage=True)
        # By identity: some methods hold one weight in every layer.
        trained = {id(weight): weight.numel() for weight in model.parameters() if weight.requires_grad}
        assert f"{sum(trained.values()):,}" == count, method
