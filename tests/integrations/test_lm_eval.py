"""lm-eval on our adapters, against likelihoods summed by hand."""

import json
import math
import sys

import datasets
import pytest
import snippets
import torch
from peft import get_peft_model

from qpeft import QthaConfig
from qpeft.errors import DataError, TaskError
from qpeft.evaluation import harness
from qpeft.models import load_model, load_tokenizer
from qpeft_cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore::FutureWarning:(transformers|peft)\."),
]
HEADING = "lm-eval"
ROWS = [
    {"question": f"What is {a} and {b}?", "choices": [f"{a + b}", f"{a * b + 9}", f"{a}{b}1"], "label": (a + b) % 3}
    for a in range(6)
    for b in range(4)
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The page's task and its data in the working directory, and no hub."""
    (text,) = snippets.blocks(HEADING, "yaml")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/word_sums.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "word_sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)  # runs `pip list` each time
    return tmp_path


@pytest.fixture
def no_stock_tasks(here, monkeypatch):
    """Leaves lm-eval's own thousands of task files out, which take ten seconds to read."""
    (here / "stock").mkdir()
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(here / "stock/manager.py"))


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


@pytest.fixture
def adapted(tiny_model):
    """The tiny model with an adapter of random weights, which changes what it prefers."""
    config = QthaConfig(rank=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_seed=0)
    model = get_peft_model(load_model(str(tiny_model)), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_branch." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return model.eval()


def test_the_documented_ways_give_the_accuracy_of_likelihoods_summed_by_hand(here, adapted, tokenizer, tiny_model):
    adapted.save_pretrained(str(here / "my-adapter"))
    names = snippets.run(HEADING, {snippets.MODEL: str(tiny_model)})
    right, deviation = by_hand(adapted, tokenizer)
    result = names["results"]["results"]["word_sums"]
    assert result["acc,none"] == pytest.approx(right)
    assert result["acc_stderr,none"] == pytest.approx(deviation)
    score = next(score for score in names["scores"] if score.metric == "acc")
    assert score == harness.TaskScore("word_sums", "acc", "none", right, pytest.approx(deviation), len(ROWS), 0)


def test_the_adapter_counts_unless_it_is_switched_off(here, adapted, tokenizer, tiny_model):
    with adapted.disable_adapter():
        (without, *_) = score(here, adapted, tokenizer)
    (with_it, *_) = score(here, adapted, tokenizer)
    assert without.value == pytest.approx(by_hand(load_model(str(tiny_model)), tokenizer)[0])
    assert with_it.value != without.value


def test_items_and_mode_of_the_model_are_as_asked_and_as_before(here, adapted, tokenizer):
    adapted.train()
    (first, *_) = score(here, adapted, tokenizer, items=10)
    assert first.items == 10
    assert first.value == pytest.approx(by_hand(adapted.eval(), tokenizer, ROWS[:10])[0])
    assert score(here, adapted.train(), tokenizer, items=10)[0] == first  # in evaluation mode again
    assert adapted.training


def test_few_shot_examples_are_as_many_as_asked_for(here, adapted, tokenizer):
    assert [one.few_shot for one in score(here, adapted, tokenizer, few_shot=2, items=3)] == [2, 2]


def test_a_group_has_the_mean_of_its_tasks(here, adapted, tokenizer, no_stock_tasks):
    text = (here / "tasks/word_sums.yaml").read_text(encoding="utf-8")
    sums = text.replace("task: word_sums", "task: other_sums").replace("word_sums.jsonl", "other_sums.jsonl")
    (here / "tasks/other_sums.yaml").write_text(sums, encoding="utf-8")
    (here / "other_sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:6]), encoding="utf-8")
    group = "group: sums\ntask: [word_sums, other_sums]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    (here / "tasks/sums.yaml").write_text(group, encoding="utf-8")
    found = {one.task: one for one in score(here, adapted, tokenizer, name="sums") if one.metric == "acc"}
    right = found["word_sums"].value * len(ROWS) + found["other_sums"].value * 6
    assert found["sums"].value == pytest.approx(right / (len(ROWS) + 6))
    assert found["sums"].items is None


def test_chat_asks_through_the_template(here, adapted, tokenizer):
    chats = [
        row | {"question": tokenizer.apply_chat_template(turns(row), tokenize=False, add_generation_prompt=True)}
        for row in ROWS
    ]
    (first, *_) = score(here, adapted, tokenizer, chat=True)
    assert first.value == pytest.approx(by_hand(adapted, tokenizer, chats, space="")[0])


def test_problems_are_told_with_the_way_out(here, adapted, tokenizer, monkeypatch, tiny_model, no_stock_tasks):
    with pytest.raises(TaskError, match="did you mean 'word_sums'"):
        score(here, adapted, tokenizer, name="word_sum")
    with pytest.raises(TaskError, match="no folder"):
        harness.evaluate_with_harness(adapted, tokenizer, ["word_sums"], task_folder=here / "task")
    (here / "word_sums.jsonl").unlink()
    with pytest.raises(TaskError, match=r"word_sums cannot be scored.*word_sums\.jsonl"):
        score(here, adapted, tokenizer)
    plain = load_tokenizer(str(tiny_model))
    plain.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        score(here, adapted, plain, chat=True)
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(TaskError, match=r'pip install "qpeft\[eval\]"'):
        score(here, adapted, tokenizer)


def test_the_command_prints_base_and_adapter_with_standard_errors(here, recipe, tokenizer, monkeypatch, capsys):
    from qpeft.training.recipe import train

    train(recipe())
    command = ["qpeft", "eval", str(here / "run"), "--tasks", "word_sums", "--task-folder", "tasks", "--base"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setenv("COLUMNS", "200")
    main_without_exit()
    cells = next(line for line in capsys.readouterr().out.splitlines() if " acc " in line).split()
    value, deviation = by_hand(load_model(recipe().model.name), tokenizer)
    assert f"{value:.4f}" in cells
    assert f"{deviation:.4f}" in cells
    monkeypatch.setattr(sys, "argv", [*command, "--exact-match"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--task cannot be combined with --tasks" in capsys.readouterr().err


def main_without_exit():
    with pytest.raises(SystemExit, match="0"):
        main()


def score(folder, model, tokenizer, name="word_sums", **options):
    return harness.evaluate_with_harness(model, tokenizer, [name], task_folder=folder / "tasks", **options)


def turns(row):
    return [{"role": "user", "content": row["question"]}]


@torch.no_grad()
def by_hand(model, tokenizer, rows=ROWS, space=" "):
    """Share of rows whose right choice has the largest log-likelihood after the question, and its standard error."""
    right = 0
    for row in rows:
        question = tokenizer(row["question"]).input_ids
        sums = []
        for choice in row["choices"]:
            tokens = tokenizer(row["question"] + space + choice).input_ids
            logs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
            sums.append(sum(logs[i - 1, tokens[i]].item() for i in range(len(question), len(tokens))))
        right += sums.index(max(sums)) == row["label"]
    share = right / len(rows)
    return share, math.sqrt(share * (1 - share) / (len(rows) - 1))
