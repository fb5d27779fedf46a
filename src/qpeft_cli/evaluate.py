"""`qpeft eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from qpeft_cli.options import AdapterFolder, HeldOutData, TrustRemoteCode

if TYPE_CHECKING:
    from qpeft_cli.adapted import Adapted


def evaluate(
    folder: AdapterFolder,
    data: HeldOutData = None,
    exact_match: Annotated[bool, typer.Option(help="Also generate answers and compare their final numbers.")] = False,
    items: Annotated[
        int | None, typer.Option(min=1, help="Answer only the first so many, for --exact-match and --tasks.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Also measure the base model without the adapter.")] = False,
    tasks: Annotated[
        str | None, typer.Option(help="Score these tasks of lm-eval instead; names separated by commas.")
    ] = None,
    task_folder: Annotated[Path | None, typer.Option(help="Folder of further task files for --tasks.")] = None,
    few_shot: Annotated[int | None, typer.Option(min=0, help="Solved examples in each prompt, for --tasks.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask --tasks through the chat template.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure held-out loss, and exact match of maths answers; or score tasks of lm-eval."""
    if tasks is not None and (data is not None or exact_match):
        raise typer.BadParameter("--data and --exact-match measure held-out examples; --tasks is measured by itself.")
    if tasks is None and (task_folder is not None or few_shot is not None or chat):
        raise typer.BadParameter("--task-folder, --few-shot and --chat say how --tasks are asked; name tasks too.")
    if items is not None and tasks is None and not exact_match:
        raise typer.BadParameter("--items says how many are answered; nothing is without --exact-match or --tasks.")
    from qpeft_cli.adapted import load_adapted  # noqa: PLC0415  (takes seconds to import)

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    adapted = load_adapted(folder, trust_remote_code=trust_remote_code)
    if tasks is not None:
        from qpeft_cli.task_scores import print_task_scores  # noqa: PLC0415

        names = [name.strip() for name in tasks.split(",")]
        print_task_scores(
            adapted,
            names,
            task_folder=task_folder,
            few_shot=few_shot,
            chat=chat,
            items=items,
            base=base,
            console=console,
        )
    else:
        _print_held_out(adapted, data, exact_match=exact_match, items=items, base=base, console=console)


def _print_held_out(
    adapted: Adapted, data: str | None, *, exact_match: bool, items: int | None, base: bool, console: Console
) -> None:
    """Measure held-out examples, those of the run or of `data`. Raises: DataError if there are none."""
    from qpeft.errors import DataError  # noqa: PLC0415  (takes seconds to import)
    from qpeft.evaluation import score  # noqa: PLC0415
    from qpeft.training.splits import load_held_out  # noqa: PLC0415

    options = adapted.recipe.data
    if data is not None:
        # Read like the held-out file of the run: with its templates, and nothing left out.
        options = options.model_copy(update={"train": data, "hold_out": None, "eval": data, "eval_limit": None})
    held_out = load_held_out(options, adapted.tokenizer)
    if held_out is None:
        raise DataError("The training run held no data out; name some with --data.")

    table = Table("", "held-out loss", "perplexity", "tokens", "exact match", "answered")
    for name, disabled in (("base model", True), ("with adapter", False)):
        if disabled and not base:
            continue
        with adapted.without_adapter(disabled), console.status(f"measuring {name}"):
            scores = score(
                adapted.model,
                adapted.tokenizer,
                held_out.examples,
                held_out.encoded,
                exact_match=exact_match,
                items=items,
                max_new_tokens=adapted.recipe.evaluation.max_new_tokens,
            )
        matched = "-" if scores.exact_match is None else f"{scores.exact_match:.1%}"
        table.add_row(
            name,
            f"{scores.loss:.4f}",
            f"{scores.perplexity:.3f}",
            f"{scores.tokens:,}",
            matched,
            str(len(scores.answers)),
        )
    console.print(table)
