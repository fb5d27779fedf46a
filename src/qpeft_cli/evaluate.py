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
        int | None, typer.Option(min=1, help="Answer only the first so many, for --task and --tasks.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer; without it, the task's own.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Also measure the base model without the adapter.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="New JSON file for results; without it, those of a task go to FOLDER/evaluations."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Score these tasks of lm-eval instead; names separated by commas.")
    ] = None,
    task_folder: Annotated[Path | None, typer.Option(help="Folder of further task files for --tasks.")] = None,
    few_shot: Annotated[int | None, typer.Option(min=0, help="Solved examples in each prompt, for --tasks.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask --tasks through the chat template.")] = False,
    judge: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server that judges, such as http://host/v1.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Name of the model there.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree that texts go to the judge.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure held-out loss, and answers to a task; or score tasks of lm-eval."""
    if exact_match and task not in (None, EXACT_MATCH):
        raise typer.BadParameter(f"--exact-match means --task {EXACT_MATCH}; give one of them.")
    task = EXACT_MATCH if exact_match else task
    _refuse(
        tasks is not None,
        {"--data": data, "--task": task, "--max-new-tokens": max_new_tokens, "--output": output},
        "goes with held-out examples; --tasks is measured by itself.",
    )
    _refuse(
        tasks is None,
        {"--task-folder": task_folder, "--few-shot": few_shot, "--chat": chat},
        "says how --tasks are asked; name tasks too.",
    )
    _refuse(
        tasks is None and task is None,
        {"--items": items, "--max-new-tokens": max_new_tokens},
        "says how many are answered, or how; nothing is without --task, --exact-match or --tasks.",
    )
    _refuse(task != JUDGED, {"--judge": judge, "--judge-model": judge_model, "--yes": yes}, f"is of --task {JUDGED}.")
    from qpeft_cli.adapted import load_adapted  # noqa: PLC0415  (takes seconds to import)

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

    def load() -> Adapted:
        return load_adapted(folder, trust_remote_code=trust_remote_code)

    if task == JUDGED:
        from qpeft_cli.judged import Judging, print_judged  # noqa: PLC0415

        judging = Judging(folder, data, judge, judge_model, items, max_new_tokens, base, output, yes)
        print_judged(judging, load, console)
    elif tasks is not None:
        from qpeft_cli.task_scores import print_task_scores  # noqa: PLC0415

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
        from qpeft_cli.held_out_scores import Wanted, print_scores  # noqa: PLC0415

        wanted = Wanted(folder, data, task, items, max_new_tokens, base, output)
        print_scores(wanted, load, console)


def _refuse(case: bool, options: dict[str, object], reason: str) -> None:
    """Raises: BadParameter in a case in which none of these options means anything, and one is given."""
    given = [name for name, value in options.items() if value not in (None, False)]
    if case and given:
        raise typer.BadParameter(f"{given[0]} {reason}")
