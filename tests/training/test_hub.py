"""Pushing an adapter to the Hub: asked for before the run, done after it, and nothing is lost if it fails."""

from typing import ClassVar

import pytest

from qpeft.errors import OutputError, RecipeError
from qpeft.training import train


class Api:
    """Takes note of what the Hub would get."""

    pushed: ClassVar[dict] = {}
    fault: Exception | None = None

    def whoami(self):
        if self.fault:
            raise self.fault

    def create_repo(self, name, *, private, exist_ok):
        assert exist_ok
        Api.pushed = {"name": name, "private": private}
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id, folder_path, ignore_patterns):
        from huggingface_hub.utils import filter_repo_objects

        files = [str(path.relative_to(folder_path)) for path in folder_path.rglob("*") if path.is_file()]
        assert repo_id == Api.pushed["name"]
        Api.pushed["files"] = set(filter_repo_objects(files, ignore_patterns=ignore_patterns))


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return Api


def test_a_finished_run_is_pushed_without_its_checkpoints(api, recipe, tmp_path):
    train(recipe(output={"push_to_hub": "me/mine"}))
    assert (api.pushed["name"], api.pushed["private"]) == ("me/mine", True)
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= api.pushed["files"]
    assert not [name for name in api.pushed["files"] if name.startswith(("checkpoints", "tensorboard", "."))]


def test_who_is_not_logged_in_hears_it_before_the_run(api, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Api, "fault", ValueError("token missing"))
    with pytest.raises(RecipeError, match=r"token missing Log in \(hf auth login\)"):
        train(recipe(output={"push_to_hub": "me/mine"}))
    assert not (tmp_path / "run").exists()


def test_a_push_that_fails_leaves_the_run_and_says_how_to_push_it(api, recipe, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("the network is away")

    monkeypatch.setattr(Api, "upload_folder", refuse)
    with pytest.raises(OutputError, match=r"the network is away Push it again with: hf upload me/mine"):
        train(recipe(output={"push_to_hub": "me/mine"}))
    assert (tmp_path / "run/adapter_model.safetensors").exists()


def test_an_optimiser_by_name_is_used_and_another_one_gives_other_weights(recipe, tmp_path):
    runs = [train(recipe(training={"optimizer": name}, output={"folder": str(tmp_path / str(name))})).record for name in
            ("adamw_torch", "adafactor")]  # fmt: skip
    last = [run["history"][-1]["loss"] for run in runs]
    assert last[0] != last[1]


def test_an_optimiser_that_does_not_exist_names_the_nearest(recipe):
    with pytest.raises(RecipeError, match=r"transformers has no 'adamw_torhc'; did you mean adamw_torch"):
        train(recipe(training={"optimizer": "adamw_torhc"}))
