"""`qpeft split`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def split(
    data: Annotated[str, typer.Argument(help="Data file, or name of a dataset on the Hub.")],
    folder: Annotated[Path, typer.Argument(help="Where NAME_train.jsonl and NAME_test.jsonl go.")],
    share: Annotated[float, typer.Option(help="About so much goes to the test, between 0 and 1.")] = 0.1,
    by: Annotated[
        str | None,
        typer.Option(help="Column in which rows that belong together are equal. By default the first question."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="For rows of other columns: the question, as '{column}' in a text.")
    ] = None,
    response: Annotated[str | None, typer.Option(help="The answer likewise.")] = None,
) -> None:
    """Split a data set into one to train on and one to test on, with no question in both.

    Which side a question lies on depends on its text alone, so that the same data are split in the same way anywhere.

    \b
    Example:
      qpeft split everything.jsonl parts --share 0.1
    """
    from qpeft.data import load_examples, split_by_opening
    from qpeft.data.rows import is_local, local_path
    from qpeft.errors import DataError, OutputError
    from qpeft.runs import make_folder, write_atomically

    if not 0 < share < 1:
        raise typer.BadParameter(f"must lie between 0 and 1; got {share:g}", param_hint="--share")
    sides = split_by_opening(load_examples(data, prompt=prompt, response=response), share, column=by)
    # Of a data set on the Hub the last part, with its configuration: owner/gsm8k:main becomes gsm8k_main.
    name = local_path(data).stem if is_local(data) else Path(data).name.replace(":", "_")
    files = [folder / f"{name}_{side}.jsonl" for side in ("train", "test")]
    contents, source = [], ""
    try:
        for examples in sides:
            lines = []
            for example in examples:
                source = example.source
                # Rows stay as they are, so that other programs read them as they read the whole file.
                lines.append(json.dumps(dict(example.row), ensure_ascii=False, allow_nan=False) + "\n")
            contents.append("".join(lines))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{source} holds a value that JSON cannot: {error}. Convert it first, or take the column out."
        ) from error
    # Both are looked at before either is written.
    for file, content in zip(files, contents, strict=True):
        if file.exists() and file.read_text(encoding="utf-8") != content:
            raise OutputError(f"{file} is there already and holds something else. Name another folder.")
    make_folder(folder)
    for file, content, examples in zip(files, contents, sides, strict=True):
        write_atomically(file, content)
        asked = len({example.opening for example in examples})
        typer.echo(f"{file}: {len(examples):,} examples, {asked:,} different questions")
