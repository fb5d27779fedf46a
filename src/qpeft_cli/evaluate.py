"""`qpeft eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpeft_cli.keys import task_names
from qpeft_cli.options import AnsweringFolder, HeldOutData, TrustRemoteCode
from qpeft_cli.terminal import plain_console

EXACT_MATCH = "word_problems"
JUDGED = "cpsycoune"
NO_ANSWERS = (
    "is about generated answers, and only the loss is measured here. Add --task (such as --task gsm8k) or --tasks to "
    "have questions answered, or leave it out."
)


def evaluate(
    folder: AnsweringFolder,
    *,
    data: HeldOutData = None,
    task: Annotated[
        str | None,
        typer.Option(
            help=f"Also answer the examples and grade the answers: {', '.join(task_names())}, or {JUDGED} by a judge."
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
    """Measure held-out loss, and answers to a task; or score tasks of lm-eval.

    \b
    Examples:
      qpeft eval runs/mine --base
      qpeft eval runs/mine --task word_problems --items 50
    """
    if exact_match and task not in (None, EXACT_MATCH):
        raise typer.BadParameter(
            f"--exact-match is another way to write --task {EXACT_MATCH}, and --task is {task}; give one of them."
        )
    task = EXACT_MATCH if exact_match else task
    # Cases in which some options mean nothing, those options, and what to say of the first that is given.
    refused: list[tuple[bool, dict[str, object], str]] = [
        (
            tasks is not None,
            {"--data": data, "--task": task, "--max-new-tokens": max_new_tokens, "--output": output},
            "cannot be combined with --tasks, whose tasks bring their own examples. Leave one of the two out.",
        ),
        (
            tasks is None,
            {"--task-folder": task_folder, "--few-shot": few_shot, "--chat": chat},
            "is an option of lm-eval's tasks. Name these too, such as --tasks gsm8k, or leave it out.",
        ),
        (tasks is None and task is None, {"--items": items, "--max-new-tokens": max_new_tokens}, NO_ANSWERS),
        (
            task != JUDGED,
            {"--judge": judge, "--judge-model": judge_model, "--yes": yes},
            f"is an option of --task {JUDGED} alone. Add that, or leave it out.",
        ),
    ]
    for case, options, reason in refused:
        given = [name for name, value in options.items() if value not in (None, False)]
        if case and given:
            raise typer.BadParameter(f"{given[0]} {reason}")
    # Options are checked by now, so what follows may take the seconds that torch needs.
    from qpeft_cli.adapted import Adapted, load_adapted
    from qpeft_cli.scoring import Evaluation, print_harness_scores, print_judged, print_scores

    # Not loaded yet: an unknown task, a missing judge or a refusal of the user should not wait for a model.
    def load() -> Adapted:
        return load_adapted(folder, trust_remote_code=trust_remote_code)

    wanted = Evaluation(folder, data, task, items, max_new_tokens, base, output, load, plain_console())
    if task == JUDGED:
        print_judged(wanted, url=judge, model=judge_model, yes=yes)
    elif tasks is not None:
        names = [name.strip() for name in tasks.split(",")]
        print_harness_scores(wanted, names, task_folder=task_folder, few_shot=few_shot, chat=chat)
    else:
        print_scores(wanted)
