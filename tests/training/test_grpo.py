"""Training by rewards: against TRL's own trainer, killed and resumed, on a device, and with rewards that are wrong."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import GRPOConfig, GRPOTrainer

from qpeft.errors import RecipeError
from qpeft.training import train
from qpeft.training.grpo import GrpoRun
from qpeft.training.rewards import load_reward, reward_row

LORA = {"type": "lora", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
ANSWERS = [[{"role": "assistant", "content": text}] for text in ("It is 12.", "13", "#### 12")]
QUESTIONS = [[{"role": "user", "content": f"What is {n} plus 5?"}] for n in (7, 7, 7)]


def evenness(*, completion_ids, **_):
    """A reward that any model can learn: the share of even tokens."""
    return [sum(token % 2 == 0 for token in ids) / max(1, len(ids)) for ids in completion_ids]


@pytest.fixture(autouse=True)
def own_rewards(monkeypatch):
    """This file, under a name that a recipe can give."""
    monkeypatch.setitem(sys.modules, "my_rewards", SimpleNamespace(evenness=evenness, number=3))


@pytest.fixture
def by_rewards(recipe, tmp_path):
    """A function: a recipe of four steps of two prompts with four answers each."""

    def make(folder="run", *, grpo=None, **sections):
        training = {"method": "grpo", "steps": 4, "batch_size": 8, "learning_rate": 0.01, "log_every": 1, "warmup": 0}
        options = {"reward": "my_rewards:evenness", "num_generations": 4, "max_completion_length": 6}
        return recipe(
            **{"adapter": LORA, "evaluation": {"before": False, "items": 3}}
            | {k: v for k, v in sections.items() if k != "training"},
            training=training | {"checkpoint_every": 1} | sections.get("training", {}),
            grpo=options | (grpo or {}),
            output={"folder": str(tmp_path / folder)},
        )

    return make


def weights(tmp_path, folder="run"):
    return (tmp_path / folder / "adapter_model.safetensors").read_bytes()


def rewards_of(run):
    return [entry["reward"] for entry in run.record["history"] if "reward" in entry]


def test_a_recipe_trains_what_trl_s_own_script_trains(by_rewards, tiny_model, tmp_path):
    recipe = by_rewards(data={"hold_out": None}, grpo={"beta": 0.05}, training={"gradient_accumulation": 2})
    run = train(recipe)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    set_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    base.generation_config.eos_token_id = run.model.generation_config.eos_token_id
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **{k: v for k, v in LORA.items() if k != "type"}))
    from qpeft.training.splits import load_splits

    examples = load_splits(recipe.data, tokenizer, seed=0)[0].examples
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[evenness],
        args=GRPOConfig(
            output_dir=str(tmp_path / "trl"),
            seed=0,
            max_steps=4,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=0.01,
            lr_scheduler_type="cosine",
            num_generations=4,
            max_completion_length=6,
            beta=0.05,
            bf16=False,
            activation_checkpointing=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([dict(reward_row(example)) for example in examples]),
        processing_class=tokenizer,
    )
    trainer.train()
    theirs = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards_of(run) == pytest.approx(theirs, abs=1e-6)
    found = load_file(tmp_path / "run/adapter_model.safetensors")
    expected = {name.replace(".default", ""): weight for name, weight in model.named_parameters() if "lora_" in name}
    expected = {name: weight for name, weight in expected.items() if ".ref." not in name}
    assert sorted(found) == sorted(expected)
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name].detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("adapter", [LORA, {"type": "qtha", "rank": 4}, {"type": "quantum_weighted", "rank": 4}])
def test_a_killed_run_ends_with_the_same_bytes_and_figures(by_rewards, adapter, tmp_path, monkeypatch):
    adapter = {"target_modules": ["q_proj", "v_proj"]} | adapter
    if adapter["type"] == "quantum_weighted":
        adapter |= {"num_qubits": 4, "depth": 1}
    whole = train(by_rewards("whole", adapter=adapter, training={"log_every": 3}))
    recipe = by_rewards("parts", adapter=adapter, training={"log_every": 3})
    step = GrpoRun.training_step

    def killed(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(GrpoRun, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    parts = train(recipe, resume=True)
    assert weights(tmp_path, "parts") == weights(tmp_path, "whole")
    assert parts.record["order"] == whole.record["order"]
    assert rewards_of(parts) == rewards_of(whole)


def test_rewards_rise(by_rewards):
    training = {"steps": 40, "batch_size": 16, "learning_rate": 0.1, "checkpoint_every": None}
    adapter = {"type": "lora", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    rewards = rewards_of(train(by_rewards(adapter=adapter, training=training, grpo={"num_generations": 8})))
    assert sum(rewards[-10:]) / 10 > sum(rewards[:10]) / 10 + 0.05


def test_what_is_logged_says_how_many_prompts_teach_something(by_rewards, capsys):
    from rich.console import Console

    run = train(
        by_rewards(grpo={"reward": ["word_problems", {"name": "short", "weight": 0.5}]}), console=Console(width=300)
    )
    entries = [entry for entry in run.record["history"] if "reward" in entry]
    assert {"reward_signal", "rewards/word_problems/mean", "rewards/short/mean", "entropy"} <= entries[0].keys()
    assert all(0 <= entry["reward_signal"] <= 1 for entry in entries)
    said = capsys.readouterr().out
    assert "of prompts with signal" in said
    assert "tokens an answer" in said
    assert "held-out loss" in said


def test_held_out_rewards_choose_the_adapter_that_is_kept(by_rewards, capsys):
    from rich.console import Console

    training = {"eval_every": 1, "keep_best": True}
    run = train(by_rewards(training=training), console=Console(width=300))
    found = [entry["eval_reward"] for entry in run.record["history"] if "eval_reward" in entry]
    assert -run.record["best"]["loss"] == max(found)
    assert "held-out reward" in capsys.readouterr().out


def test_circuits_that_make_weights_are_measured_once_a_step_and_never_for_answers(by_rewards, tmp_path):
    adapter = {"type": "quantum_weighted", "rank": 4, "num_qubits": 4, "depth": 1, "target_modules": "all-linear"}
    device = {"name": "local", "shots": 50, "journal": str(tmp_path / "journal.sqlite"), "options": {"seed": 3}}
    bills = []
    run = train(by_rewards(adapter=adapter, device=device), confirm=bills.append)
    groups, steps = 2, 4
    assert bills[0].prices["a step"].circuits == groups
    # The values of each step and those that are kept; equal circuits of the two layers at the start are sent once.
    assert run.record["device"]["circuits"] == groups * steps + groups - 1
    with pytest.raises(RecipeError, match="read every token of every answer"):
        train(by_rewards("other", adapter={"type": "qtha", "rank": 4, "target_modules": ["v_proj"]}, device=device))


def test_the_reference_is_the_base_model_and_no_second_adapter(by_rewards):
    run = train(by_rewards(grpo={"beta": 0.1}))
    assert isinstance(run.model, PeftModel)
    assert list(run.model.peft_config) == ["default"]
    assert next(entry["kl"] for entry in run.record["history"] if "kl" in entry) == pytest.approx(0.0, abs=1e-6)


def test_a_task_is_a_reward_and_so_are_length_and_form():
    columns = {"completion_ids": [[1] * 5, [1], [1] * 20], "answer": ["12", "12", "12"]}

    def of(name, **options):
        return load_reward(name, max_completion_length=10, **options)(prompts=QUESTIONS, completions=ANSWERS, **columns)

    assert of("word_problems") == [1.0, 0.0, 1.0]
    assert of("short") == [0.5, 0.9, 0.0]
    assert of("format", pattern="#### [0-9]+$") == [0.0, 0.0, 1.0]


def wrong(result):
    def reward(**_):
        if isinstance(result, Exception):
            raise result
        return result

    return reward


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ZeroDivisionError("by zero"), r"raised ZeroDivisionError: by zero.*'What is 7 plus 5\?'.*'It is 12\.'"),
        ([1.0], "returned 1 rewards for 3 answers"),
        ([1.0, math.nan, 0.0], "gave nan for an answer to 'What is 7 plus 5"),
        ([1.0, "good", 0.0], "gave 'good' for an answer"),
    ],
)
def test_a_reward_that_is_wrong_says_for_which_prompt(monkeypatch, result, text):
    monkeypatch.setattr(sys.modules["my_rewards"], "wrong", wrong(result), raising=False)
    reward = load_reward("my_rewards:wrong", max_completion_length=10)
    with pytest.raises(RecipeError, match=text):
        reward(prompts=QUESTIONS, completions=ANSWERS)
    assert load_reward("my_rewards:evenness", max_completion_length=1)(
        prompts=QUESTIONS, completions=ANSWERS, completion_ids=[[2], [1], [2, 1]]
    ) == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"grpo": {"reward": "word_problem"}}, "There is no reward 'word_problem'. There are the tasks word_problems"),
        ({"grpo": {"reward": "my_rewards:missing"}}, "'my_rewards:missing' cannot be imported: AttributeError"),
        ({"grpo": {"reward": "no_such_module:f"}}, "cannot be imported: ModuleNotFoundError"),
        ({"grpo": {"reward": "my_rewards:number"}}, "is no function but int"),
        ({"grpo": {"reward": "format"}}, "'format' needs a pattern"),
        ({"grpo": {"reward": [{"name": "format", "pattern": "("}]}}, "is no regular expression"),
        ({"grpo": {"num_generations": 1}}, "at least 2 are needed"),
        ({"grpo": {"num_generations": 3}}, "8 answers a step, which must be a multiple of grpo.num_generations, 3"),
        ({"grpo": {"max_completion_length": 10_000}}, "more than the .* that the model reads"),
        ({"grpo": {"num_iterations": 2}}, "make training.checkpoint_every a multiple of that; got 1"),
        ({"training": {"method": "sft"}}, "grpo has options of training.method: grpo, and the method is sft"),
        ({"training": {"packing": True}}, "training.packing belongs to training.method: sft"),
    ],
)
def test_options_that_do_not_go_together_are_named(by_rewards, changes, text, tmp_path):
    with pytest.raises(RecipeError, match=text):
        train(by_rewards(**changes))
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()


def test_grpo_without_a_reward_says_what_to_set(recipe):
    with pytest.raises(RecipeError, match=r"needs a reward: set grpo\.reward"):
        recipe(training={"method": "grpo"})
