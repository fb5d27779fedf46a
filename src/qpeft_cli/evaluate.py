"""`qpeft eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qpeft_cli.options import AnsweringFolder, HeldOutData, TrustRemoteCode

if TYPE_CHECKING:
    from qpeft_cli.adapted import Adapted

EXACT_MATCH = "word_problems"
JUDGED = "cpsycoune"


def evaluate(
    folder: AnsweringFolder,
    *,
    data: HeldOutData = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Also answer the examples and grade the answers: word_problems, gsm8k, math, cpsycound, "
            "cpsycound_words, or cpsycoune by a judge."
        ),
    ] = None,
    exact_match: Annotated[bool, typer.Option(help=f"The same as --task {EXACT_MATCH}.")] = False,
    items: Annotated[
        int | None, typer.Option(min=1, help="With --task or --tasks: answer only this many examples, from the start.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="With --task: longest answer, in tokens; without it, the task's own.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Also measure the base model without the adapter.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="New JSON file for results; without it, those of a task go to FOLDER/evaluations."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Score these tasks of lm-eval instead; names separated by commas.")
    ] = None,
    task_folder: Annotated[Path | None, typer.Option(help="With --tasks: folder of further task files.")] = None,
    few_shot: Annotated[int | None, typer.Option(min=0, help="With --tasks: solved examples in each prompt.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="With --tasks: ask through the chat template.")] = False,
    judge: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server that judges, such as http://host/v1.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Name of the model on the judge's server.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree that texts go to the judge.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure held-out loss, and answers to a task; or score tasks of lm-eval."""
    if exact_match and task not in (None, EXACT_MATCH):
        raise typer.BadParameter(
            f"--exact-match is another way to write --task {EXACT_MATCH}, and --task is {task}; give one of them."
        )
    task = EXACT_MATCH if exact_match else task
    _refuse(
        tasks is not None,
        {"--data": data, "--task": task, "--max-new-tokens": max_new_tokens, "--output": output},
        "cannot be combined with --tasks, whose tasks bring their own examples. Leave one of the two out.",
    )
    _refuse(
        tasks is None,
        {"--task-folder": task_folder, "--few-shot": few_shot, "--chat": chat},
        "is an option of lm-eval's tasks. Name these too, such as --tasks gsm8k, or leave it out.",
    )
    _refuse(
        tasks is None and task is None,
        {"--items": items, "--max-new-tokens": max_new_tokens},
        "is about generated answers, and only the loss is measured here. Add --task (such as --task gsm8k) or --tasks "
        "to have questions answered, or leave it out.",
    )
    _refuse(
        task != JUDGED,
        {"--judge": judge, "--judge-model": judge_model, "--yes": yes},
        f"is an option of --task {JUDGED} alone. Add that, or leave it out.",
    )
    from qpeft_cli.adapted import load_adapted

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

    def load() -> Adapted:
        return load_adapted(folder, trust_remote_code=trust_remote_code)

    if task == JUDGED:
        from qpeft_cli.judged import Judging, print_judged

        judging = Judging(folder, data, judge, judge_model, items, max_new_tokens, base, output, yes)
        print_judged(judging, load, console)
    elif tasks is not None:
        from qpeft_cli.task_scores import print_task_scores

        print_task_scores(
            load(),
            [name.strip() for name in tasks.split(",")],
            task_folder=task_folder,
            few_shot=few_shot,
            chat=chat,
            items=items,
            base=base,
            console=console,
        )
    else:
        from qpeft_cli.held_out_scores import WantedScores, print_scores

        wanted = WantedScores(folder, data, task, items, max_new_tokens, base, output)
        print_scores(wanted, load, console)


def _refuse(case: bool, options: dict[str, object], reason: str) -> None:
    """Raises: BadParameter in a case in which none of these options means anything, and one is given."""
    given = [name for name, value in options.items() if value not in (None, False)]
    if case and given:
        raise typer.BadParameter(f"{given[0]} {reason}")
