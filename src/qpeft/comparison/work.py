"""What is done to one trial: training it, and measuring it once it has been chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.adapters.load import load_adapter
from qpeft.adapters.saved import WEIGHTS
from qpeft.comparison.ablations import ABLATIONS
from qpeft.comparison.judging import judged_by
from qpeft.comparison.neutral import neutral_text
from qpeft.errors import StudyError
from qpeft.evaluation import find_task, held_out_loss, score
from qpeft.models import default_device, load_model, load_tokenizer
from qpeft.models.reading import reading
from qpeft.runs import hash_file, read_record
from qpeft.runs.record import FILE_NAME
from qpeft.training import Recipe
from qpeft.training.bill import Bill
from qpeft.training.config import parse_recipe
from qpeft.training.splits import load_held_out

SAMPLES = 5
"""Generated answers kept per run."""


def train_trial(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Train as the recipe says, or go on where it was interrupted; the run's own record has the losses."""
    from qpeft.training import train  # noqa: PLC0415  (takes seconds to import, and reports train nothing)

    parsed = parse_recipe(recipe, source="trial")
    folder, start = Path(parsed.output.folder), time.monotonic()
    is_done = (folder / FILE_NAME).exists() and read_record(folder)["state"] == "finished"
    if not is_done:
        train(parsed, resume=True, confirm=_refuse_remote)
    return {"adapter_bytes": (folder / WEIGHTS).stat().st_size, "seconds": time.monotonic() - start}


def measure_run(
    recipe: Mapping[str, Any], run: str | None, test: str | None, items: int | None, digest: str | None, ablate: bool
) -> dict[str, Any]:
    """Everything that the report says of a chosen run.

    Args:
        recipe: of the run, or of any of the study for the base model.
        run: folder of the trained adapter; None for the base model.
        test: what to judge by; None for what the recipe holds out.
        items: the first so many of it.
        digest: SHA-256 that the test file must have; None if it is no file.
        ablate: whether to ablate the middle too.

    Returns:
        `final`: scores of the run, with some answers; `ablations`: nats per item for each; `neutral`: nats per token.
    """
    parsed = parse_recipe(recipe, source="trial")
    if test is not None and digest is not None and hash_file(Path(test)) != digest:
        raise StudyError(f"{test} was changed while the study ran.")
    model, tokenizer = _load(parsed, run)
    chosen = load_held_out(parsed.data, tokenizer)
    judged = chosen if test is None else load_held_out(judged_by(parsed.data, test, items), tokenizer)
    assert chosen is not None, "every trial holds a part out"
    assert judged is not None, "a test that is empty has been refused"
    scores = score(
        model,
        tokenizer,
        judged.examples,
        judged.encoded,
        task=find_task(parsed.evaluation.task_name) if parsed.evaluation.task_name else None,
        max_new_tokens=parsed.evaluation.max_new_tokens,
        items=parsed.evaluation.items,
    )
    found: dict[str, list[float]] = {}
    for name, ablation in ABLATIONS.items() if ablate else ():
        with ablation(model, chosen.encoded):
            found[name] = list(held_out_loss(model, judged.encoded).item_sums)
    return {
        "final": scores.to_dict() | {"samples": [vars(answer) for answer in scores.answers[:SAMPLES]]},
        "ablations": found,
        "neutral": held_out_loss(model, neutral_text(tokenizer, reading(model).positions)).loss,
    }


WORK: dict[str, Callable[..., dict[str, Any]]] = {"train": train_trial, "measure": measure_run}
"""By the name that a job gives it."""


def _load(recipe: Recipe, run: str | None) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    options = recipe.model
    tokenizer = load_tokenizer(
        options.name, chat_template=options.chat_template, trust_remote_code=options.trust_remote_code
    )
    model = load_model(options.name, dtype=options.dtype, trust_remote_code=options.trust_remote_code)
    model = model.to(default_device())
    return (model if run is None else load_adapter(model, Path(run))), tokenizer


def _refuse_remote(bill: Bill) -> None:
    if bill.capabilities.is_remote:
        raise StudyError(
            f"A study sends nothing to {bill.capabilities.name}: nobody is asked before each of its runs. Take a "
            "device that is here, such as local, or train with qpeft train."
        )
