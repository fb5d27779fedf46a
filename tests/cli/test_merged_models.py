"""Commands on what `merge` and `export` wrote, and where answers of trained models end."""

import contextlib
import io
import json
import shutil
import sys

import pytest
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from qpeft.models import load_model, load_tokenizer
from qpeft_cli.main import main
from tiny_model import END_OF_TEXT, TEMPLATE, make_scripted_model

WRITTEN = TEMPLATE.replace("<|im_start|>", "[").replace("<|im_end|>", " [/S]")
NEWS = "answers end at '<|im_end|>', as the chat template ends them and training teaches"
LORA = {"type": "lora", "r": 2, "target_modules": ["o_proj"]}


def run(*arguments):
    """The command line on the arguments; what it prints belongs to no test."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", ["qpeft", *map(str, arguments)])
        with contextlib.suppress(SystemExit):
            main()


def trained(folder, sums, says, adapter, **options):
    """Folders of a scripted model, of an adapter trained on it in one step, and of what `merge` and `export` made."""
    folder.mkdir(parents=True, exist_ok=True)
    make_scripted_model(folder / "base", says, **options)
    recipe = {
        "model": {"name": str(folder / "base")},
        "data": {"train": str(sums), "hold_out": 6, "system": "Be brief."},
        "adapter": adapter,
        "training": {"steps": 1, "learning_rate": 1e-3, "checkpoint_every": None},
        "evaluation": {"task": "word_problems", "items": 2},
        "output": {"folder": str(folder / "adapter")},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run("train", folder / "recipe.yaml")
    run("merge", folder / "adapter", folder / "merged", "--force")
    run("export", folder / "adapter", folder / "exported", "--force")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, sums):
    return trained(tmp_path_factory.mktemp("ends"), sums, "ab3<|im_end|>", LORA)


@pytest.fixture(scope="module")
def written(tmp_path_factory, sums):
    """Its ends of turns are several tokens."""
    return trained(tmp_path_factory.mktemp("written"), sums, "ab3 [/S]", LORA, template=WRITTEN)


KINDS = ("adapter", "exported", "merged")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["folders", "written"])
def test_generate_chat_and_eval_end_with_the_turn(qpeft, monkeypatch, request, family, kind):
    folder = request.getfixturevalue(family) / kind
    code, out, err = qpeft("generate", folder, "Hi", "What?", "--max-new-tokens", "20")
    assert (code, out) == (0, "> Hi\nab3\n> What?\nab3\n"), err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n")))
    code, out, err = qpeft("chat", folder, "--max-new-tokens", "20")
    assert code == 0, err
    assert out.rstrip().endswith("ab3")
    code, out, err = qpeft("eval", folder, "--task", "word_problems", "--items", "3", "--output", folder / "e.json")
    assert code == 0, err
    (results,) = json.loads((folder / "e.json").read_text())["results"].values()
    assert [answer["text"] for answer in results["answers"]] == ["ab3"] * 3
    assert results["cut"] == 0
    (folder / "e.json").unlink()


def test_the_run_says_once_where_answers_end_and_its_own_answers_do(folders, qpeft, tmp_path):
    code, out, _ = qpeft("train", folders / "recipe.yaml", "--output.folder", tmp_path / "run")
    assert code == 0
    assert out.count(NEWS) == 1
    record = json.loads((tmp_path / "run/run.json").read_text())
    for when in ("before", "after"):
        assert [one["text"] for one in record[when]["samples"]] == ["ab3", "ab3"]
        assert record[when]["cut"] == 0


def test_commands_say_it_for_an_adapter_that_says_nothing_of_it(folders, qpeft, tmp_path):
    folder = shutil.copytree(folders / "adapter", tmp_path / "older")
    assert NEWS not in qpeft("generate", folder, "Hi")[2]
    (folder / "generation_config.json").unlink()
    code, out, err = qpeft("generate", folder, "Hi")
    assert (code, out) == (0, "ab3\n")
    assert err.count(NEWS) == 1


def test_plain_transformers_stops_where_the_folders_say(folders):
    base, ends = folders / "base", ["<|im_end|>", END_OF_TEXT]
    tokenizer = AutoTokenizer.from_pretrained(base)
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    merged = AutoModelForCausalLM.from_pretrained(folders / "merged")
    models = {"merged": merged}
    for kind in ("adapter", "exported"):
        models[kind] = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folders / kind)
        models[kind].generation_config = GenerationConfig.from_pretrained(folders / kind)
    for kind, model in models.items():
        assert tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id) == ends, kind
        made = model.generate(**question, max_new_tokens=20, do_sample=False)
        assert tokenizer.decode(made[0, question["input_ids"].shape[1] :]) == "ab3<|im_end|>", kind
    # Complaint: a merge writes another end of text into the tokenizer, and servers wait for that (unsloth 5386).
    merged_tokenizer = AutoTokenizer.from_pretrained(folders / "merged")
    assert (merged_tokenizer.chat_template, merged_tokenizer.eos_token) == (TEMPLATE, tokenizer.eos_token)


def test_the_code_of_the_card_ends_answers(folders, monkeypatch):
    card = (folders / "adapter/README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(folders / "adapter"))
    names = {}
    exec(code, names)
    assert names["tokenizer"].convert_tokens_to_ids("<|im_end|>") in names["model"].generation_config.eos_token_id


def test_cards_name_ends_that_no_config_can(folders, written):
    for kind in KINDS:
        assert "stop_strings=['[/S]'], tokenizer=tokenizer" in (written / kind / "README.md").read_text()
        assert "stop_strings" not in (folders / kind / "README.md").read_text()
    model, tokenizer = load_model(str(written / "merged")), load_tokenizer(str(written / "merged"))
    question = tokenizer("[user\nHi [/S]\n[assistant\n", return_tensors="pt")
    made = model.generate(**question, max_new_tokens=20, do_sample=False, stop_strings=["[/S]"], tokenizer=tokenizer)
    assert tokenizer.decode(made[0, question["input_ids"].shape[1] :]) == "ab3 [/S]"


def test_a_merged_model_is_asked_as_in_training_and_measured_on_the_same_examples(folders, qpeft):
    """The right answer is what the adapter's own folder gives."""
    scores = {}
    for kind in KINDS:
        path = folders / kind / "loss.json"
        assert qpeft("eval", folders / kind, "--output", path)[0] == 0
        record = json.loads(path.read_text())
        ((name, result),) = record["results"].items()
        scores[kind] = (record["data"]["sha256"], result["loss"], name)
        assert record["adapter"].keys() > {"folder"}
        path.unlink()
    assert scores["merged"][0] == scores["exported"][0] == scores["adapter"][0]
    assert scores["merged"][1] == pytest.approx(scores["adapter"][1], rel=1e-4)
    assert [scores[kind][2] for kind in KINDS] == ["with adapter", "with adapter", "model"]
    recipe = json.loads((folders / "merged/export_report.json").read_text())["recipe"]
    assert recipe["data"]["system"] == "Be brief."
    assert "output" not in recipe


def test_a_file_of_questions_is_answered_by_a_merged_model_and_not_continued_by_another(folders, qpeft, tmp_path):
    (tmp_path / "q.txt").write_text("Hi\nWhat?\n")
    options = ("--input", tmp_path / "q.txt", "--output", tmp_path / "a.jsonl")
    assert qpeft("generate", folders / "merged", *options)[0] == 0
    assert [json.loads(line)["generated"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == ["ab3", "ab3"]
    code, _, err = qpeft("generate", folders / "adapter", *options)
    assert code == 2
    assert "another" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "MERGED", "Hi", "--base"],
        ["generate", "MERGED", "Hi", "--device", "local"],
        ["eval", "MERGED", "--base"],
        ["merge", "MERGED", "NEW"],
        ["export", "MERGED", "NEW"],
    ],
)
def test_what_needs_an_adapter_says_that_there_is_none(folders, qpeft, tmp_path, arguments):
    places = {"MERGED": folders / "merged", "NEW": tmp_path / "new"}
    code, _, err = qpeft(*(places.get(one, one) for one in arguments))
    assert code == 2
    assert "full weights and no adapter beside them" in err
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_chat_with_a_merged_model_has_no_base_model_to_show(folders, qpeft, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"/both\nHi\n")))
    code, out, _ = qpeft("chat", folders / "merged", "--max-new-tokens", "9")
    assert code == 0
    assert "no adapter beside them" in out
    assert out.rstrip().endswith("ab3")


def test_full_weights_from_elsewhere_answer_and_are_measured_on_data_that_are_named(folders, qpeft, sums, tmp_path):
    folder = shutil.copytree(folders / "merged", tmp_path / "foreign")
    (folder / "export_report.json").unlink()
    assert qpeft("generate", folder, "Hi")[:2] == (0, "ab3\n")
    code, _, err = qpeft("eval", folder)
    assert code == 2
    assert "name a file of them with --data" in err
    assert qpeft("eval", folder, "--data", sums)[0] == 0


@pytest.mark.parametrize("text", ["{", "[1]", '{"recipe": {"model": 5}}', '{"recipe": {}}'])
def test_a_damaged_report_is_one_sentence(folders, qpeft, tmp_path, text):
    folder = shutil.copytree(folders / "merged", tmp_path / "damaged")
    (folder / "export_report.json").write_text(text)
    for command in (["generate", folder, "Hi"], ["eval", folder]):
        code, _, err = qpeft(*command)
        assert code == 2
        assert "export_report.json" in err
        assert "Traceback" not in err
