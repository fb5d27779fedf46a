"""Commands that put circuits on a quantum device."""

import json
from dataclasses import replace
from threading import Thread

import pytest
from rich.console import Console

from qpeft.devices import Capabilities, Journal, LocalDevice
from qpeft.devices.journal import default_path
from qpeft.errors import DeviceError, JournalError, RecipeError
from qpeft.training.cost_estimate import CostEstimate
from qpeft.training.sections import DeviceSection
from qpeft_cli import on_device
from qpeft_cli.on_device import section_for

LAYERS = "[layers.1.self_attn.v_proj]"


@pytest.fixture(autouse=True)
def data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def is_remote(monkeypatch):
    """The local device, as if it were somebody else's."""
    capabilities = LocalDevice.capabilities

    def remote(device):
        return Capabilities(**vars(capabilities(device)) | {"is_remote": True})

    monkeypatch.setattr(LocalDevice, "capabilities", remote)


def train(qpeft, recipe_file, *arguments):
    return qpeft("train", recipe_file, "--device.name", "local", "--device.layers", LAYERS, *arguments)


def test_inspect_states_the_bill_and_sends_nothing(qpeft, recipe_file):
    code, out, _ = qpeft("inspect", recipe_file, "--device", "local", "--device.shots", "300")
    assert code == 0
    for words in ("on local", "a step of average length", "an epoch", "a generated token"):
        assert words in out
    assert not default_path().exists()


def test_train_and_generate_on_a_device_count_what_they_send(qpeft, recipe_file, tmp_path):
    code, out, err = train(qpeft, recipe_file)
    assert (code, err) == (0, "")
    assert "sent to the device in all" in out
    question = ["generate", str(tmp_path / "run"), "What is 1 and 1?", "What is the sum of 2 and 3?"]
    code, out, _ = qpeft(*question, "--max-new-tokens", "4", "--device", "local", "--device-option", "shots=10")
    assert code == 0
    assert "all of it, at most" in out
    code, sums, _ = qpeft("jobs", "sum")
    assert [line.split("│")[2].strip() for line in sums.splitlines() if "run-" in line] == ["local"] * 2


def test_generation_with_exact_values_says_what_the_simulator_says(qpeft, recipe_file, tmp_path):
    train(qpeft, recipe_file)
    question = [
        "generate",
        str(tmp_path / "run"),
        "What is 1 and 1?",
        "What is the sum of 2 and 3?",
        "--max-new-tokens",
        "4",
    ]
    _, here, _ = qpeft(*question)
    _, there, _ = qpeft(*question, "--device", "local", "--device-option", "shots=null")
    assert here.strip() in there


def test_an_answer_that_fails_says_why_also_if_the_journal_cannot_be_summed_up(
    qpeft, recipe_file, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise JournalError("The disk is full.")

    train(qpeft, recipe_file)
    monkeypatch.setattr(Journal, "submitted", full)
    monkeypatch.setattr(Journal, "spent", full)
    question = ["generate", str(tmp_path / "run"), "What?", "--device", "local", "--device-option", "shots=10"]
    code, out, err = qpeft(*question)
    assert code == 2
    assert "is at the device as job local-0" in err
    assert "qpeft jobs list --run run-" in out


def test_angles_leave_the_machine_only_after_a_word(qpeft, recipe_file, tmp_path, is_remote, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, out, err = train(qpeft, recipe_file)
    assert code == 2
    assert "will leave this machine" in out
    assert "--yes" in err
    assert not (tmp_path / "run").exists()
    assert train(qpeft, recipe_file, "--yes")[0] == 0
    assert list(json.loads(default_path().with_name("agreed.json").read_text())) == ["local"]
    # Agreed once, for all commands.
    code, out, _ = qpeft("generate", str(tmp_path / "run"), "What?", "--max-new-tokens", "1", "--device", "local")
    assert code == 0
    assert "will leave" not in out


def test_a_word_for_one_recipient_is_none_for_another_of_the_same_device(is_remote, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    console, shown = Console(quiet=True), LocalDevice().capabilities()
    for recipient in ("origin at https://one.test", "origin at https://other.test"):
        bill = CostEstimate(replace(shown, recipient=recipient), {})
        with pytest.raises(DeviceError, match=recipient):
            on_device.asking(console, yes=False)(bill)
        on_device.asking(console, yes=True)(bill)
        on_device.asking(console, yes=False)(bill)


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 2)])
def test_at_a_terminal_the_user_is_asked(qpeft, recipe_file, is_remote, monkeypatch, answer, code):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(on_device.typer, "confirm", lambda _: answer)
    assert train(qpeft, recipe_file)[0] == code


@pytest.mark.parametrize("text", ["{", '["local"]', '"local"'])
def test_an_unreadable_word_of_the_user_is_no_agreement(qpeft, recipe_file, is_remote, text):
    default_path().parent.mkdir(parents=True)
    default_path().with_name("agreed.json").write_text(text)
    code, _, err = train(qpeft, recipe_file, "--yes")
    assert code == 2
    assert "agreed.json cannot be read" in err
    assert "Delete it to be asked again" in err


def test_words_for_two_devices_at_once_are_both_kept(is_remote, monkeypatch):
    console, shown = Console(quiet=True), LocalDevice().capabilities()

    def agree(device):
        on_device.asking(console, yes=True)(CostEstimate(replace(shown, recipient=device), {}))

    read, other = on_device._agreed, Thread(target=agree, args=["second"])

    def slowly():
        agreed = read()
        if not other.ident:
            other.start()
            other.join(timeout=0.3)
        return agreed

    monkeypatch.setattr(on_device, "_agreed", slowly)
    on_device._remember("first")
    other.join()
    assert read().keys() == {"first", "second"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "locl"], "did you mean 'local'"),
        (["--device", "local", "--device-option", "shotz=1"], "did you mean 'device.shots'"),
        (["--device", "local", "--device-option", "shots"], "has no value"),
        (["--device", "local", "--device-option", "shots=0"], "greater than 0; got 0"),
    ],
)
def test_a_wrong_option_is_named(qpeft, talkative, options, message):
    code, _, err = qpeft("generate", talkative, "What?", *options)
    assert code == 2
    assert message in err


def test_a_key_goes_to_no_address_that_only_the_folder_names(recipe):
    def trained(url):
        device = DeviceSection(name="origin", options={"chip": "c", "url": url})
        return recipe().model_copy(update={"device": device})

    elsewhere, here = trained("https://elsewhere.example"), trained("http://127.0.0.1:8123")
    with pytest.raises(RecipeError, match="would get your key"):
        section_for(elsewhere, "origin", ["shots=5"])
    said = section_for(elsewhere, "origin", ["options.url=https://mine.example"])
    assert said.options == {"chip": "c", "url": "https://mine.example"}
    assert section_for(here, "origin", []).options["url"] == "http://127.0.0.1:8123"
    assert section_for(elsewhere, "local", []).options == {}
