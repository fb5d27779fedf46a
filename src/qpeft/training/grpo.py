"""Training by rewards (GRPO): TRL's trainer with what a run of ours adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from qpeft.adapters.load import evaluating
from qpeft.adapters.quantum_weighted import circuit_banks
from qpeft.data import Example
from qpeft.errors import RecipeError
from qpeft.evaluation import find_task, generate
from qpeft.evaluation.generation import context_length, prompts
from qpeft.evaluation.tasks import TASKS
from qpeft.runs.bars import OnProgress, to_nobody
from qpeft.training.rewards import Reward, load_reward, reward_row
from qpeft.training.sections import GrpoSection, Recipe
from qpeft.training.splits import Split
from qpeft.training.trainer import RunMixin

try:
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise RecipeError("training.method: grpo needs TRL: pip install 'qpeft[rl]'.") from error

LONGEST_COMPLETION = 256
"""Tokens of an answer, where neither the recipe nor the task of its reward says."""


class GrpoRun(RunMixin, GRPOTrainer):
    """GRPO whose runs can be killed and resumed bit for bit.

    Args:
        held_out: examples whose greedy answers `evaluate` rewards.
        rewards: with their weights.
        max_completion_length: tokens of an answer.
        on_progress: told how far an evaluation is.
        args, kwargs: of `RunMixin` and TRL's `GRPOTrainer`.
    """

    _name = "GRPO"

    def __init__(
        self,
        *args: Any,
        held_out: Sequence[Example],
        rewards: Sequence[tuple[Reward, float]],
        max_completion_length: int,
        on_progress: OnProgress = to_nobody,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, reward_funcs=[reward for reward, _ in rewards], **kwargs)
        self._held_out, self._rewards, self._on_progress = list(held_out), list(rewards), on_progress
        self._longest = max_completion_length
        if "ref" in self.model.peft_config:
            # TRL copies the adapter as it starts. The reference here is the base model, and a second adapter would be
            # trained beside in nothing, but saved and sent to a device with the first.
            self.model.delete_adapter("ref")

    def read_batch(self, inputs: Any) -> Mapping[str, Any] | None:  # noqa: ARG002
        """Return None: answers are not drawn yet."""
        return None

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Take TRL's step. Circuits that make weights are measured for it before answers are drawn with them.

        Args:
            model: the adapted model, or what wraps it for several processes.
            inputs: prompts.
            args, kwargs: of the trainer.
        """
        if self._device_steps is not None:
            # No token of an answer enters such a circuit, so any batch will do.
            nothing = torch.full((1, 1), -100)
            self._device_steps.begin(self.state.global_step, {"labels": nothing})
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss of prompts and answers, after `begin_batch` with both.

        Args:
            model: the adapted model, or what wraps it.
            inputs: of TRL: prompts, answers, their masks and advantages.
            return_outputs: is not supported by GRPO.
            num_items_in_batch: of transformers.
        """
        both = {
            name: torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], 1) for name in ("ids", "mask")
        }
        trained = torch.cat([torch.zeros_like(inputs["prompt_mask"]), inputs["completion_mask"]], 1)
        labels = torch.where(trained.bool(), both["ids"], -100)
        self.begin_batch(model, {"input_ids": both["ids"], "attention_mask": both["mask"], "labels": labels})
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def measure_held_out(self) -> float:
        """Return minus the mean reward of greedy answers to the held-out examples."""
        return -self.mean_reward(self._held_out)

    def mean_reward(self, examples: Sequence[Example]) -> float:
        """Return the mean weighted reward of greedy answers. Raises: RecipeError, as a reward."""
        questions = [example.question for example in examples]
        done = 0

        def count(number: int) -> None:
            nonlocal done
            done += number
            self._on_progress("held-out answers", done, len(questions))

        answers = generate(self.model, self.processing_class, questions, max_new_tokens=self._longest, on_batch=count)
        rows = [reward_row(example) for example in examples]
        given = {
            "prompts": [row["prompt"] for row in rows],
            "completions": [[{"role": "assistant", "content": text}] for text in answers],
            "completion_ids": [self.processing_class(text, add_special_tokens=False)["input_ids"] for text in answers],
            "answer": [row["answer"] for row in rows],
        }
        total = sum(weight * sum(value or 0.0 for value in reward(**given)) for reward, weight in self._rewards)
        return total / max(1, len(examples))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log also the share of prompts that teach something, whose answers were not all worth the same.

        Args:
            logs: figures by name.
            args, kwargs: of `Trainer`.
        """
        if "eval_loss" in logs:
            logs["eval_reward"] = -logs["eval_loss"]
        idle = self._metrics["train"].get("frac_reward_zero_std", ())
        if "loss" in logs and idle:
            logs["reward_signal"] = 1 - sum(idle) / len(idle)
        super().log(logs, *args, **kwargs)

    def try_evaluation(self, recipe: Recipe) -> None:
        """Try nothing: answers are made one token after another, and take less than a training step."""

    def try_step(self, examples: Sequence[int]) -> None:
        """Try nothing: what a step takes is known when its answers are drawn."""

    def remembered(self) -> dict[str, Any]:
        """Return what `RunMixin` remembers, and TRL's figures since the last log line."""
        return super().remembered() | {
            "metrics": {name: list(values) for name, values in self._metrics["train"].items()}
        }

    def restore(self, remembered: dict[str, Any]) -> None:
        """Go on from what `remembered` returned."""
        super().restore(remembered)
        self._metrics["train"].update(remembered["metrics"])

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none beside checkpoints: the run has one of its own."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        # Without dropout, and with what our adapters keep between tokens while nothing is trained.
        with evaluating(self.model):
            return super()._generate_single_turn(*args, **kwargs)


def make_grpo(
    recipe: Recipe,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Split,
    held_out: Split | None,
    arguments: Mapping[str, Any],
    **of_run: Any,
) -> GrpoRun:
    """Return the trainer of a recipe with `training.method: grpo`.

    Args:
        recipe: of the run.
        model: with its adapter.
        tokenizer: of the model.
        training: examples whose questions are prompts.
        held_out: whose answers are rewarded between steps, or None.
        arguments: of transformers, by name.
        of_run: of `RunMixin`.

    Raises: RecipeError for options that do not go together, examples that are no questions, or prompts beyond the
        model's context.
    """
    options = recipe.grpo
    assert options is not None, "checked with the recipe"
    longest = completion_length(options)
    batch = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    if batch % options.num_generations:
        raise RecipeError(
            f"training.batch_size times gradient_accumulation is {batch} answers a step, which must be a multiple of "
            f"grpo.num_generations, {options.num_generations}: every prompt gets that many."
        )
    if recipe.device is not None and not circuit_banks(model):
        raise RecipeError(
            f"Circuits of {recipe.adapter.type} read every token of every answer that is drawn, some thousands a step. "
            "With rewards a device takes quantum_weighted, whose circuits make weights: one per group of layers."
        )
    if not training.examples or any(example.is_plain or not example.question for example in training.examples):
        raise RecipeError(
            "Training by rewards needs questions with reference answers, kept in memory: leave out data.streaming and "
            "data sets of plain text."
        )
    _require_room(model, tokenizer, training.examples, longest)
    configured = GRPOConfig(
        **arguments,
        bf16=False,  # TRL's own default is to train in bfloat16
        num_generations=options.num_generations,
        max_completion_length=longest,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        beta=options.beta,
        epsilon=options.epsilon,
        num_iterations=options.num_iterations,
        loss_type=options.loss_type,
        scale_rewards=options.scale_rewards,
        mask_truncated_completions=options.mask_truncated_completions,
        reward_weights=[one.weight for one in options.rewards],
    )
    rewards = [
        (load_reward(one.name, max_completion_length=longest, pattern=one.pattern), one.weight)
        for one in options.rewards
    ]
    items = recipe.evaluation.items
    return GrpoRun(
        model=model,
        args=configured,
        train_dataset=Dataset.from_list([dict(reward_row(example)) for example in training.examples]),
        # `evaluate` has its own way; transformers asks for a set if it is to be called.
        eval_dataset=Dataset.from_list([dict(reward_row(one)) for one in held_out.examples]) if held_out else None,
        processing_class=tokenizer,
        held_out=held_out.examples[:items] if held_out else (),
        rewards=rewards,
        max_completion_length=longest,
        **of_run,
    )


def completion_length(options: GrpoSection) -> int:
    """Return the tokens of an answer: of the recipe, or of the task of its first reward that is one."""
    if options.max_completion_length is not None:
        return options.max_completion_length
    tasks = [find_task(one.name).max_new_tokens for one in options.rewards if one.name in TASKS]
    return tasks[0] if tasks else LONGEST_COMPLETION


def _require_room(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], longest: int
) -> None:
    """Raises: RecipeError if a prompt and its answer are longer than what the model reads."""
    room = context_length(model)
    if room is None:
        return
    texts = prompts(tokenizer, [example.question for example in examples])
    for example, ids in zip(examples, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
        if len(ids) + longest > room:
            raise RecipeError(
                f"{example.source}: the prompt has {len(ids)} tokens, and with grpo.max_completion_length {longest} "
                f"that is more than the {room} that the model reads. Leave it out, or shorten the answers."
            )
