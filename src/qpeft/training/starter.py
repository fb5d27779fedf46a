"""A commented recipe for somebody's own model and data, after a look at both."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import islice

import yaml

from qpeft.adapters.build import build_config, check_targets
from qpeft.data import Example, Reader, Source, encode_each
from qpeft.data.rows import read_rows
from qpeft.errors import AdapterError, DataError
from qpeft.models import load_skeleton, load_tokenizer

GOALS: dict[str, tuple[str, dict[str, object]]] = {
    "small": (
        "a small adapter: rank 1 around a circuit, about a fifth of LoRA of rank 8 on small models",
        {"type": "qtha", "preset": "compact"},
    ),
    "circuit": (
        "a circuit in every layer that reads the text, as published (QTHA); for research",
        {"type": "qtha", "target_modules": ["q_proj", "v_proj"]},
    ),
    "chip": (
        "some hundred numbers from circuits that never see the text; the way to train on a quantum computer",
        {"type": "quantum_weighted", "target_modules": "all-linear"},
    ),
    "lora": (
        "LoRA of rank 8, to compare with; where size does not matter, the lowest loss in our studies",
        {"type": "lora", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    ),
}
"""What somebody may want: what it is, and the adapter section for it."""
LOOKED_AT = 2_000
"""Rows that lengths are taken from; more tell the same."""
LEAST_STEPS = 60
"""A small data set is read several times until a run has so many."""


@dataclass(frozen=True)
class Look:
    """What was found in the data: a sentence on it, how rows are read, and what lengths and steps follow."""

    found: str
    reading: dict[str, str]
    examples: int
    max_length: int
    too_long: int
    task: str | None


def look_at(data: str, model: str, *, prompt: str | None = None, response: str | None = None) -> Look:
    """Read the data as the model would.

    Args:
        data: file, name on the Hub, or data set of ours.
        model: whose tokenizer counts.
        prompt, response: templates, where columns have names of their own.

    Raises: DataError, ModelError; a DataError on unknown columns names those that there are.
    """
    first = next(iter(read_rows(data, split="train")), None)
    if first is None:
        raise DataError(f"{data} holds no rows.")
    reading = {} if prompt is None and response is None else {"prompt": prompt or "", "response": response or ""}
    task = None
    if not reading and {"question", "equation", "answer"} <= first.values.keys():
        # Such rows would also pass for question and answer; the equation is what can be learned and graded.
        reading, task = {"prompt": "{question}", "response": "{equation} = {answer}"}, "word_problems"
    reader = Reader(Source(data, **reading))  # type: ignore[arg-type]
    examples: list[Example] = list(islice(reader, LOOKED_AT))
    more = len(examples) == LOOKED_AT
    tokenizer = load_tokenizer(model)
    lengths = sorted(len(one.input_ids) for one in encode_each(tokenizer, examples, max_length=None, keep_lost=True))
    # Nineteen of twenty whole, up to what a small machine can hold; the rest is cut.
    wanted = lengths[math.ceil(0.95 * len(lengths)) - 1] if len(lengths) >= 20 else lengths[-1]
    max_length = min(2048, 64 * math.ceil(wanted / 64))
    found = (
        f"{len(examples):,}{' or more' if more else ''} examples, read as {reader.row_format.title}; "
        f"{lengths[len(lengths) // 2]} tokens at the median, {lengths[-1]} at most"
    )
    too_long = sum(length > max_length for length in lengths)
    return Look(found, reading, len(examples), max_length, too_long, task)


def starter_recipe(model: str, data: str, goal: str, look: Look, *, held_out: str | None, folder: str) -> str:
    """Return the text of a recipe that trains, with a comment on everything one may want to change.

    Args:
        model: name or folder.
        data: what is trained on.
        goal: one of `GOALS`.
        look: what `look_at` found in the data.
        held_out: file of examples to measure by; None keeps a part of `data` out.
        folder: where the run goes.

    Raises: ModelError if the model cannot be found.
    """
    about, adapter = GOALS[goal]
    adapter, where = _fitting(model, adapter)
    batch, kept_out = 8, min(200, max(4, look.examples // 10))
    epochs = max(1, math.ceil(LEAST_STEPS * batch / max(1, look.examples - (0 if held_out else kept_out))))
    lines = [
        f"# Written by qpeft init. Goal: {about}.",
        "# Look before you train: qpeft inspect THIS_FILE. All keys: qpeft train --keys.",
        "model:",
        f"  name: {_yaml(model)}",
        "data:",
        f"  train: {_yaml(data)} # {look.found}",
        f"  eval: {_yaml(held_out)} # held out: never trained on, measured before and after"
        if held_out
        else f"  hold_out: {kept_out} # examples kept out of training, to measure before and after",
        *(f"  {key}: {_yaml(text)} # columns of the data in braces" for key, text in look.reading.items()),
        f"  max_length: {look.max_length} # tokens; {look.too_long:,} of the rows looked at are longer and will be cut",
        "adapter:",
        *(f"  {key}: {_yaml(value)}{where if key == 'target_modules' else ''}" for key, value in adapter.items()),
        "training:",
        f"  epochs: {epochs} # passes over the data; or steps: 200",
        f"  batch_size: {batch} # if memory is short: smaller, with gradient_accumulation: 2 or 4",
        "  # learning_rate: 1.0e-2 # left out: the method's default, found in short runs on a small model; try half of",
        "  # it, and twice, when a run is much longer or the model much larger",
        "  log_every: 5",
    ]
    if look.task:
        lines += ["evaluation:", f"  task: {look.task} # answers are generated and graded, not only the loss"]
        lines += ["  items: 20 # how many", "  max_new_tokens: 24"]
    lines += ["output:", f"  folder: {_yaml(folder)} # new or empty"]
    return "\n".join(lines) + "\n"


def _fitting(model: str, adapter: dict[str, object]) -> tuple[dict[str, object], str]:
    """Return an adapter section whose modules the model has, and a comment on what was chosen."""
    skeleton = load_skeleton(model)
    options = {key: value for key, value in adapter.items() if key != "type"}
    try:
        check_targets(skeleton, build_config(str(adapter["type"]), options))
    except AdapterError:
        # Modules have other names in other families of models; their linear layers can be found in all.
        comment = " # this model has no modules of the usual names, so all linear layers; or name some, in a list"
        return {**adapter, "target_modules": "all-linear"}, comment
    return dict(adapter), ""


def _yaml(value: object) -> str:
    # JSON is YAML; a plain word needs no quotes, unless YAML would take it for something else.
    if isinstance(value, str) and re.fullmatch(r"[\w./:@-]+", value) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
