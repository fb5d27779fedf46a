"""Answers to many questions at once, for `qpeft generate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from qpeft.data import Message
from qpeft.errors import DataError, OutputError
from qpeft.evaluation import generate
from qpeft.evaluation.generation import require_room
from qpeft.evaluation.questions import read_questions
from qpeft.runs import hash_file, make_folder
from qpeft.runs.bars import Bars
from qpeft.runs.files import GrowingFile, used_alone
from qpeft_cli.adapted import AdaptedModel, AdapterSource, load_onto, read_recipe, read_source, weight_hashes
from qpeft_cli.on_device import answering_on, section_for
from qpeft_cli.terminal import piped_lines

Questions = Sequence[Sequence[Message]]


@dataclass(frozen=True)
class Answering:
    """What `qpeft generate` was asked for; its options are described there."""

    folder: Path
    max_new_tokens: int
    batch_size: int
    system: str | None
    base: bool
    device: str | None
    device_options: tuple[str, ...]
    yes: bool
    trust_remote_code: bool
    console: Console

    def load(self, source: AdapterSource, questions: Questions, sources: Sequence[str]) -> AdaptedModel:
        """Return the model, which can read all questions.

        Args:
            source: what the folder says of its adapter.
            questions: that will be asked.
            sources: where each comes from, for the error.

        Raises: AdapterError if the base model or a device is asked for, and there is no adapter; DataError.
        """
        adapted = load_onto(source.model, self.folder, trust_remote_code=self.trust_remote_code)
        # Merged weights have no base model and no circuits; said now rather than after all answers.
        adapted.names(self.base or self.device is not None)
        require_room(adapted.model, adapted.tokenizer, questions, sources, max_new_tokens=self.max_new_tokens)
        return adapted

    def answers(self, adapted: AdaptedModel, questions: Questions, *, of_base: bool = False) -> list[str]:
        """Return answers with the adapter, or those of the base model.

        Args:
            adapted: the model.
            questions: dialogues that end with a question.
            of_base: whether the adapter is switched off.
        """
        with adapted.without_adapter(of_base):
            return generate(
                adapted.model,
                adapted.tokenizer,
                questions,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
            )

    def on_device(self, adapted: AdaptedModel, questions: Questions) -> AbstractContextManager[None]:
        """Return a block with circuits on the quantum device, if one was named: after an estimate, and consent."""
        if self.device is None:
            return nullcontext()
        recipe = read_recipe(self.folder)
        section = section_for(recipe, self.device, self.device_options)
        return answering_on(
            recipe, section, adapted, self.folder, questions,
            max_new_tokens=self.max_new_tokens, yes=self.yes, console=self.console,
        )  # fmt: skip


def answer_texts(options: Answering, arguments: Sequence[str]) -> None:
    """Print answers to questions; '-' stands for the lines of the standard input.

    Raises: DataError if one is blank or too long.
    """
    # A dash may stand among other questions: lines of the input come in its place.
    texts = [line for text in arguments for line in (piped_lines() if text == "-" else [text])]
    if not texts or not all(text.strip() for text in texts):
        raise DataError("There is no question: give one as an argument, or one per line on the standard input.")
    source = read_source(options.folder)
    system = source.system if options.system is None else options.system
    first = [Message("system", system)] if system else []
    questions = [[*first, Message("user", text)] for text in texts]
    adapted = options.load(source, questions, [f"question {number}" for number in range(1, len(texts) + 1)])
    # The base model has no circuits, so it answers before the device is asked for.
    before = options.answers(adapted, questions, of_base=True) if options.base else []
    with options.on_device(adapted, questions):
        after = options.answers(adapted, questions)
    for number, text in enumerate(texts):
        if len(texts) > 1 or options.base:
            options.console.print(f"> {text}", style="bold")
        if options.base:
            options.console.print(f"[base model] {before[number]}", style="dim")
        options.console.print(after[number])


def answer_file(options: Answering, source_file: Path, target: Path) -> None:
    """Append the rows of a file with `generated`, and `generated_base` if asked for, to another, batch by batch.

    Args:
        options: of the command.
        source_file: questions.
        target: JSON lines, which an earlier call may have begun.

    Raises: DataError for questions that cannot be read or are too long; OutputError if `target` holds something else.
    """
    source = read_source(options.folder)
    system = source.system if options.system is None else options.system
    questions = read_questions(source_file, system=system, prompt=source.prompt, roles=source.roles)
    # Before anything is loaded: an answer must not stand in the place of a column of the user's.
    for question in questions:
        if taken := {"generated", "generated_base"} & question.row.keys():
            raise DataError(f"{question.source} has a column '{min(taken)}' already; rename it.")
    if os.path.realpath(target) == os.path.realpath(source_file):
        raise OutputError(f"--input and --output are the same file, {source_file}. Choose another output.")
    # What answers depend on. Not the batch size: a run that ran out of memory goes on with a smaller one.
    job = {
        "input": hash_file(source_file),
        "adapter": weight_hashes(options.folder),
        "model": source.model.name,
        "prompt": source.prompt,
        "roles": dict(source.roles),
        "max_new_tokens": options.max_new_tokens,
        "system": system,
        "base": options.base,
        "device": options.device,
        "device_options": list(options.device_options),
    }
    # Two processes would each append their answers, and lines would no longer be rows of the input in order.
    make_folder(target.parent)
    with used_alone(target):
        file = GrowingFile(target, job, total=len(questions))
        if file.num_lines:
            options.console.print(f"{target} has {file.num_lines:,} of {len(questions):,} answers already")
        if missing := questions[file.num_lines :]:
            messages = [question.messages for question in missing]
            adapted = options.load(source, messages, [question.source for question in missing])
            with options.on_device(adapted, messages), Bars(Console(stderr=True)) as bars:
                bars("answers", file.num_lines, len(questions))
                # In the order of the file, not by length: what is there is then all up to some row.
                for start in range(0, len(missing), options.batch_size):
                    here = slice(start, start + options.batch_size)
                    generated = {"generated": options.answers(adapted, messages[here])}
                    if options.base:
                        generated["generated_base"] = options.answers(adapted, messages[here], of_base=True)
                    file.append(
                        {**question.row, **{name: texts[number] for name, texts in generated.items()}}
                        for number, question in enumerate(missing[here])
                    )
                    bars("answers", file.num_lines, len(questions))
    options.console.print(f"{len(questions):,} answers are in {target}")
