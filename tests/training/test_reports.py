"""Loggers: TensorBoard's files, calls to W&B, and the figure."""

import importlib.machinery
import io
import sys
from unittest import mock

import pytest
from rich.console import Console

from qpeft.errors import RecipeError
from qpeft.training import progress, train


def short(recipe, **training):
    return recipe(
        training={"eval_every": 3, "checkpoint_every": None, **training},
        evaluation={"before": False},
    )


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_is_written_by_default_and_holds_the_losses(recipe, tmp_path):
    pytest.importorskip("tensorboard")
    record = train(short(recipe)).record
    found = scalars(tmp_path / "run/tensorboard")
    for tag, key in (("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("eval/loss", "eval_loss")):
        expected = [(entry["step"], pytest.approx(entry[key], rel=1e-5)) for entry in record["history"] if key in entry]
        assert found[tag] == expected
    assert not list((tmp_path / "run/checkpoints").glob("*"))


@pytest.fixture
def wandb(monkeypatch):
    """A package of that name that takes note of calls."""
    wandb = mock.MagicMock(name="wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    wandb.run = None
    wandb.init.side_effect = lambda **_: setattr(wandb, "run", mock.MagicMock())
    errors = mock.MagicMock(ConfigError=ValueError)
    for name, module in {"wandb": wandb, "wandb.sdk": wandb, "wandb.sdk.lib": wandb}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.config_util", errors)
    return wandb


def test_wandb_is_told_the_losses_by_name(recipe, wandb):
    record = train(short(recipe, report_to="wandb")).record
    told = [call.args[0] for call in wandb.log.call_args_list]
    losses = [entry["loss"] for entry in record["history"] if "loss" in entry]
    assert [entry["train/loss"] for entry in told if "train/loss" in entry] == losses
    assert wandb.init.call_args.kwargs["name"] == "run"


def test_wandb_that_does_not_start_says_so_and_the_run_can_go_on_without(recipe, wandb):
    wandb.init.side_effect = RuntimeError("No API key configured.")
    with pytest.raises(RecipeError, match=r"'training.report_to': W&B does not start: No API key configured\. Log in"):
        train(short(recipe, report_to="wandb"))
    assert train(short(recipe, report_to="none"), resume=True).record["state"] == "finished"


@pytest.mark.parametrize(
    ("installed", "wanted", "names"),
    [
        ({"tensorboard"}, "auto", ["tensorboard"]),
        (set(), "auto", []),
        ({"tensorboard", "wandb"}, "auto", ["tensorboard"]),
        ({"tensorboard"}, "none", []),
        ({"tensorboard", "wandb"}, ["tensorboard", "wandb"], ["tensorboard", "wandb"]),
        ({"wandb"}, "wandb", ["wandb"]),
    ],
)
def test_loggers_by_name_and_by_what_is_installed(recipe, monkeypatch, installed, wanted, names):
    monkeypatch.setattr(progress, "_is_installed", lambda package: package in installed)
    assert progress.report_names(recipe(training={"report_to": wanted}).training) == names


@pytest.mark.parametrize(("wanted", "is_told"), [("auto", True), ("none", False)])
def test_a_run_without_tensorboard_says_so_unless_that_was_asked_for(recipe, monkeypatch, wanted, is_told):
    monkeypatch.setattr(progress, "_is_installed", lambda _: False)
    shown = io.StringIO()
    train(short(recipe, report_to=wanted, steps=1, eval_every=None), console=Console(file=shown, width=200))
    assert ("TensorBoard, which is not installed: pip install tensorboard" in shown.getvalue()) is is_told


def test_a_logger_that_is_not_installed_is_named_before_anything_is_written(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_is_installed", lambda _: False)
    with pytest.raises(RecipeError, match="wandb is not installed: pip install wandb"):
        train(short(recipe, report_to=["wandb"]))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def drawn(monkeypatch, with_figures):
    """Panels of every figure that is drawn: title or label of the axes, and what its lines are."""
    from matplotlib.figure import Figure

    found, write = [], Figure.draw

    def remember(figure, renderer):
        found.append(figure)
        return write(figure, renderer)

    monkeypatch.setattr(Figure, "draw", remember)
    return found


def lines_of(figure):
    return {line.get_label(): line.get_xydata().tolist() for axes in figure.axes for line in axes.lines}


def test_the_figure_shows_losses_and_learning_rate(tmp_path, drawn):
    from qpeft.training.figure import save_loss_curve

    history = [{"step": 1, "loss": 3.0, "learning_rate": 0.1}, {"step": 2, "eval_loss": 2.0}]
    save_loss_curve(history, tmp_path / "loss.png", title="t")
    expected = {"training": [[1, 3.0]], "held out": [[2, 2.0]], "learning rate": [[1, 0.1]]}
    assert lines_of(drawn[-1]) == expected


def test_points_of_a_short_run_are_marked_and_those_of_a_long_one_are_not(tmp_path, drawn):
    from qpeft.training.figure import FEW, save_loss_curve

    for number, marker in ((1, "o"), (FEW, "o"), (FEW + 1, "")):
        history = [{"step": step, "loss": 1.0 / step, "learning_rate": 0.1} for step in range(1, number + 1)]
        save_loss_curve(history, tmp_path / "loss.png", title="t", ends={0: 3.0, number: 2.0})
        marks = {line.get_label(): line.get_marker() for axes in drawn[-1].axes for line in axes.lines}
        assert marks == {"training": marker, "held out": "o", "learning rate": marker}


def test_losses_before_and_after_are_in_the_figure_and_nothing_empty_is(tmp_path, drawn):
    from qpeft.training.figure import save_loss_curve

    save_loss_curve([{"step": 2, "loss": 2.5}], tmp_path / "loss.png", title="t", ends={0: 3.0, 2: 2.0})
    assert lines_of(drawn[-1]) == {"training": [[2, 2.5]], "held out": [[0, 3.0], [2, 2.0]]}
    assert len(drawn[-1].axes) == 1  # no learning rate was logged
    save_loss_curve([], tmp_path / "loss.png", title="t")
    assert [text.get_text() for axes in drawn[-1].axes for text in axes.texts] == ["no losses were logged"]


def test_what_was_never_measured_has_no_panel_in_the_figure_of_health(tmp_path, drawn):
    from qpeft.training.figure import HEALTH, save_health

    columns = {"step": [1], "angle_spread": [0.5], "wrapped": [0.0], "variance": [None]}
    columns |= {"circuit_gradient": [None], "core_gradient": [None]}
    save_health({"layer": columns}, tmp_path / "health.png", title="t")
    titles = {axes.get_title(): [line.get_marker() for line in axes.lines] for axes in drawn[-1].axes}
    assert titles == {HEALTH["angle_spread"]: ["o"], HEALTH["wrapped"]: ["o"]}


@pytest.mark.parametrize(
    ("steps", "log_every", "shown"), [(3, 10, [1, 2, 3]), (10, 10, range(1, 11)), (6, 4, [1, 4, 6])]
)
def test_a_run_shorter_than_log_every_shows_each_step(recipe, steps, log_every, shown):
    console = Console(file=io.StringIO(), width=200)
    training = {"steps": steps, "log_every": log_every, "checkpoint_every": None}
    run = train(recipe(training=training), console=console)
    assert [entry["step"] for entry in run.record["history"] if "loss" in entry] == list(shown)
    told = [line.split()[1] for line in console.file.getvalue().splitlines() if "gradient norm" in line]
    assert len(told) == len(shown)
    layers = run.record["health"]["layers"].values()
    assert all(len(columns["step"]) >= min(steps, 3) or log_every < steps for columns in layers)


def test_bars_of_a_run_end_with_it_on_a_terminal(recipe):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    train(recipe(training={"eval_every": 2, "checkpoint_every": None}), console=console)
    out = console.file.getvalue()
    for bar in ("before: held-out loss", "training", "after: held-out loss"):
        assert bar in out
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") == 3


@pytest.fixture
def trackio(monkeypatch):
    """A package of that name that takes note of calls."""
    trackio = mock.MagicMock(name="trackio", __version__="0.1")
    trackio.__spec__ = importlib.machinery.ModuleSpec("trackio", None)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_trackio_available", lambda: True)
    return trackio


def test_trackio_is_told_the_losses_by_name(recipe, trackio):
    record = train(short(recipe, report_to="trackio")).record
    told = [call.args[0] for call in trackio.log.call_args_list]
    losses = [entry["loss"] for entry in record["history"] if "loss" in entry]
    assert [entry["train/loss"] for entry in told if "train/loss" in entry] == losses


def test_trackio_that_does_not_start_says_so(recipe, trackio):
    trackio.init.side_effect = RuntimeError("no space left")
    with pytest.raises(RecipeError, match=r"Trackio does not start: no space left .*or take trackio out"):
        train(short(recipe, report_to="trackio"))


@pytest.mark.slow
def test_mlflow_holds_the_losses(recipe, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the small package, mlflow-skinny, has no other
    record = train(short(recipe, report_to="mlflow")).record
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    held = [entry.value for entry in mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")]
    assert held == [entry["loss"] for entry in record["history"] if "loss" in entry]
