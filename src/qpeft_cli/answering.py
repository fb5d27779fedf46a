"""Answers to many questions at once, for `qpeft generate`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from qpeft.data import Message
from qpeft.errors import DataError, OutputError
from qpeft.evaluation import generate
from qpeft.evaluation.answers import Question, read_questions
from qpeft.evaluation.dialogue import require_room
from qpeft.runs import hash_file, make_folder
from qpeft.runs.bars import Bars
from qpeft.runs.files import GrowingFile, used_alone
from qpeft_cli.adapted import AdaptedModel, AdapterSource, load_onto, read_origin, read_recipe, weight_hashes
from qpeft_cli.input_lines import piped_lines
from qpeft_cli.on_device import answering_on, section_for


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

    def load(self, origin: AdapterSource) -> AdaptedModel:
        """The model. Raises: AdapterError also if it has no adapter, and the base model or a device is asked for."""
        adapted = load_onto(origin.model, self.folder, trust_remote_code=self.trust_remote_code)
        adapted.names(self.base or self.device is not None)
        return adapted

    def answers(self, adapted: AdaptedModel, questions: Sequence[Sequence[Message]]) -> list[str]:
        """With the adapter, or without it inside `adapted.without_adapter`."""
        return generate(
            adapted.model,
            adapted.tokenizer,
            questions,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )

    @contextmanager
    def on_device(self, adapted: AdaptedModel, questions: Sequence[Sequence[Message]]) -> Iterator[None]:
        """Circuits on the quantum device inside, if one was named: after the bill for these questions, and consent."""
        if self.device is None:
            yield
            return
        recipe = read_recipe(self.folder)
        with answering_on(
            recipe,
            section_for(recipe, self.device, self.device_options),
            adapted,
            self.folder,
            questions,
            max_new_tokens=self.max_new_tokens,
            yes=self.yes,
            console=self.console,
        ):
            yield


def answer_texts(options: Answering, arguments: Sequence[str]) -> None:
    """Print answers to questions; '-' stands for the lines of the standard input.

    Raises: DataError if one is blank or too long.
    """
    texts = [line for text in arguments for line in (piped_lines() if text == "-" else [text])]
    if not texts or not all(text.strip() for text in texts):
        raise DataError("There is no question: give one as an argument, or one per line on the standard input.")
    origin = read_origin(options.folder)
    adapted = options.load(origin)
    system = origin.system if options.system is None else options.system
    first = [Message("system", system)] if system else []
    questions = [[*first, Message("user", text)] for text in texts]
    _require_room(options, adapted, questions, [f"question {number}" for number in range(1, len(texts) + 1)])

    before: list[str] = []
    if options.base:
        with adapted.without_adapter(True):
            before = options.answers(adapted, questions)
    with options.on_device(adapted, questions):
        after = options.answers(adapted, questions)
    for number, text in enumerate(texts):
        if len(texts) > 1 or options.base:
            options.console.print(f"> {text}", style="bold")
        if options.base:
            options.console.print(f"[base model] {before[number]}", style="dim")
        options.console.print(after[number])


def answer_file(options: Answering, source: Path, target: Path) -> None:
    """Append the rows of `source` with `generated`, and `generated_base` if asked for, to `target`, batch by batch.

    Args:
        options: of the command.
        source: questions.
        target: JSON lines, which an earlier call may have begun.

    Raises: DataError for questions that cannot be read or are too long; OutputError if `target` holds something else.
    """
    origin = read_origin(options.folder)
    system = origin.system if options.system is None else options.system
    questions = read_questions(source, system=system, prompt=origin.prompt, roles=origin.roles)
    _require_free_columns(questions)
    if os.path.realpath(target) == os.path.realpath(source):
        raise OutputError(f"--input and --output are the same file, {source}. Choose another output.")
    make_folder(target.parent)
    with used_alone(target):
        file = GrowingFile(target, _job(options, source, origin, system), total=len(questions))
        if file.num_lines:
            options.console.print(f"{target} has {file.num_lines:,} of {len(questions):,} answers already")
        if missing := questions[file.num_lines :]:
            adapted = options.load(origin)
            messages, sources = zip(*((question.messages, question.source) for question in missing), strict=True)
            _require_room(options, adapted, messages, sources)
            with options.on_device(adapted, [question.messages for question in missing]):
                _append_answers(options, adapted, missing, file)
    options.console.print(f"{len(questions):,} answers are in {target}")


def _append_answers(options: Answering, adapted: AdaptedModel, missing: Sequence[Question], file: GrowingFile) -> None:
    total = file.num_lines + len(missing)
    with Bars(Console(stderr=True)) as bars:
        bars("answers", file.num_lines, total)
        # In the order of the file, not by length: what is there is then all up to some row.
        for start in range(0, len(missing), options.batch_size):
            batch = missing[start : start + options.batch_size]
            asked = [question.messages for question in batch]
            generated = {"generated": options.answers(adapted, asked)}
            if options.base:
                with adapted.without_adapter(True):
                    generated["generated_base"] = options.answers(adapted, asked)
            file.append(
                {**question.row, **{name: texts[number] for name, texts in generated.items()}}
                for number, question in enumerate(batch)
            )
            bars("answers", file.num_lines, total)


def _job(options: Answering, source: Path, origin: AdapterSource, system: str | None) -> dict[str, Any]:
    """What answers depend on. Not the batch size: a run that ran out of memory goes on with a smaller one."""
    return {
        "input": hash_file(source),
        "adapter": weight_hashes(options.folder),
        "model": origin.model.name,
        "prompt": origin.prompt,
        "roles": dict(origin.roles),
        "max_new_tokens": options.max_new_tokens,
        "system": system,
        "base": options.base,
        "device": options.device,
        "device_options": list(options.device_options),
    }


def _require_free_columns(questions: Sequence[Question]) -> None:
    for question in questions:
        if taken := {"generated", "generated_base"} & question.row.keys():
            raise DataError(f"{question.source} has a column '{min(taken)}' already; rename it.")


def _require_room(
    options: Answering, adapted: AdaptedModel, questions: Sequence[Sequence[Message]], sources: Sequence[str]
) -> None:
    require_room(adapted.model, adapted.tokenizer, questions, sources, max_new_tokens=options.max_new_tokens)
