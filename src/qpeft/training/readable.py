"""Whether a model can read the examples of a recipe, before time is spent on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.data import Encoded, PackedExamples, StoredExamples, lengths
from qpeft.errors import DataError, ModelError, QpeftError
from qpeft.evaluation import find_task
from qpeft.evaluation.scores import answerable
from qpeft.models.reading import Reading, reading
from qpeft.training.sections import Recipe
from qpeft.training.splits import Split, lost_in


def require_readable(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: Split, held_out: Split | None
) -> list[str]:
    """Return what a user should know of the examples of a recipe, a sentence each.

    Args:
        recipe: of the run.
        model: its base model, or the skeleton of it.
        tokenizer: of the model.
        training: examples.
        held_out: examples, or None.

    Raises: the first of the `faults`.
    """
    for fault in faults(recipe, model, tokenizer, training, held_out):
        raise fault
    known = reading(model, recipe.model.name)
    notes: list[str] = []
    if known.positions is not None or known.made_for is None:
        return notes
    for split in filter(None, (training, held_out)):
        sizes = lengths(split.encoded)
        if count := sum(size > known.made_for for size in sizes):
            notes.append(
                f"{count:,} of {len(sizes):,} examples are longer than the {known.made_for:,} tokens that {known.name} "
                "was made for; it reads them, at positions that it was never trained on"
            )
    return notes


def faults(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: Split, held_out: Split | None
) -> Iterator[QpeftError]:
    """Give every reason why a run would be refused, or would break, since the model cannot read its examples.

    Args:
        recipe: of the run.
        model: its base model, or the skeleton of it.
        tokenizer: of the model.
        training: examples; answers in them may be wholly cut off.
        held_out: examples, or None.
    """
    known = reading(model, recipe.model.name)
    if (fault := known.padding_fault(tokenizer)) is not None:
        yield ModelError(fault)
    for split in (training, held_out):
        if split is not None:
            # Both, since `inspect` shows all faults at once.
            found = (lost_in(split), unreadable(known, tokenizer, split.encoded))
            yield from (DataError(fault) for fault in found if fault is not None)
    # Positions begin anew in each example of a row, so most models read rows longer than themselves. One longer example
    # is a fault of its own, named above.
    longest = max(lengths(training.encoded))
    if recipe.training.packing and known.whole_rows and known.positions is not None and longest <= known.positions:
        rows = PackedExamples(training.encoded, recipe.data.max_length)
        if max(len(row.input_ids) for row in rows) > known.positions:
            yield DataError(
                f"'training.packing' makes rows of up to {recipe.data.max_length} tokens, and {known.name} reads at "
                f"most {known.positions} at once. Set data.max_length: {known.positions}, or training.packing: false."
            )
    if held_out is not None and recipe.evaluation.task_name is not None:
        task, options = find_task(recipe.evaluation.task_name), recipe.evaluation
        try:
            answerable(
                model, tokenizer, held_out.examples, task, max_new_tokens=options.max_new_tokens, items=options.items
            )
        except QpeftError as error:
            yield error


def unreadable(known: Reading, tokenizer: PreTrainedTokenizerBase, encoded: Sequence[Encoded]) -> str | None:
    """Return why the model cannot read some of the examples, and what to do; None if it reads all.

    Args:
        known: what the model can read.
        tokenizer: that the examples were encoded with.
        encoded: examples.
    """
    if isinstance(encoded, StoredExamples):
        import pyarrow.compute  # noqa: PLC0415

        # Over the whole column at once: a set in files may be larger than memory.
        tokens = pyarrow.compute.list_flatten(encoded.dataset.data["input_ids"])
        largest = int(pyarrow.compute.max(tokens).as_py())
    else:
        largest = max(max(one.input_ids) for one in encoded)
    if largest >= known.tokens:
        beyond = [one for one in encoded if max(one.input_ids) >= known.tokens]
        token = next(token for token in beyond[0].input_ids if token >= known.tokens)
        return (
            f"{beyond[0].source}: {known.unknown_token(tokenizer, token)} ({len(beyond):,} of {len(encoded):,} "
            "examples have such tokens). Take the tokenizer and chat template that belong to the model, or give the "
            "model a place for them (model.resize_token_embeddings) and save both together."
        )
    sizes = lengths(encoded)
    if known.positions is not None and max(sizes) > known.positions:
        place = next(place for place, size in enumerate(sizes) if size > known.positions)
        return (
            f"{encoded[place].source}: {sizes[place]:,} tokens, and {known.name} has positions for {known.positions:,} "
            f"({sum(size > known.positions for size in sizes):,} of {len(sizes):,} examples are longer). Set "
            f"data.max_length: {known.positions}, and data.drop_longer: true to leave them out instead of cutting them."
        )
    return None
