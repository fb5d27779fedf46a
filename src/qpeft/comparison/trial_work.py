"""The work on one trial: training it, and measuring it once it has been chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from qpeft.adapters.load import load_adapter
from qpeft.adapters.qtha.bottleneck import AbstractBottleneck
from qpeft.adapters.validation import WEIGHTS
from qpeft.comparison.holdout import holdout_data
from qpeft.data import Encoded
from qpeft.errors import StudyError
from qpeft.evaluation import find_task, held_out_loss, score
from qpeft.models import default_device, load_model, load_tokenizer
from qpeft.models.reading import reading
from qpeft.runs import hash_file, read_record
from qpeft.runs.record import FILE_NAME
from qpeft.training.config import parse_recipe
from qpeft.training.cost_estimate import CostEstimate
from qpeft.training.splits import load_held_out

NEUTRAL = "neutral.txt"
SAMPLES = 5
"""Generated answers kept per run."""


def train_trial(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Train as the recipe says, or go on where it was interrupted; losses are in the run's own record."""
    from qpeft.training import train  # noqa: PLC0415  (takes seconds to import, and reports train nothing)

    parsed = parse_recipe(recipe, source="trial")
    folder, start = Path(parsed.output.folder), time.monotonic()
    # A job that was killed after its run had ended has no result, but the run is there.
    if not ((folder / FILE_NAME).exists() and read_record(folder)["state"] == "finished"):
        train(parsed, resume=True, confirm=_refuse_remote)
    return {"adapter_bytes": (folder / WEIGHTS).stat().st_size, "seconds": time.monotonic() - start}


def measure_run(
    recipe: Mapping[str, Any], run: str | None, test: str | None, items: int | None, digest: str | None, ablate: bool
) -> dict[str, Any]:
    """Return everything that the report says of a chosen run.

    Args:
        recipe: of the run, or of any of the study for the base model.
        run: folder of the trained adapter; None for the base model.
        test: what to judge by; None for what the recipe holds out.
        items: the first so many of it.
        digest: SHA-256 that the test file must have; None if it is no file.
        ablate: whether to ablate the bottleneck too.

    Returns:
        `final`: scores of the run, with some answers; `ablations`: nats per item for each; `neutral`: nats per token.
    """
    parsed = parse_recipe(recipe, source="trial")
    if test is not None and digest is not None and hash_file(Path(test)) != digest:
        raise StudyError(f"{test} was changed while the study ran.")
    options = parsed.model
    tokenizer = load_tokenizer(
        options.name, chat_template=options.chat_template, trust_remote_code=options.trust_remote_code
    )
    base = load_model(options.name, dtype=options.dtype, trust_remote_code=options.trust_remote_code)
    base = base.to(default_device())
    model = base if run is None else load_adapter(base, Path(run))
    chosen = load_held_out(parsed.data, tokenizer)
    judged = chosen if test is None else load_held_out(holdout_data(parsed.data, test, items), tokenizer)
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
    # The mean of an output is taken over the tenth, so that nothing of the test goes into it.
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
"""The work of a job, by the name that the job gives it."""


def _refuse_remote(bill: CostEstimate) -> None:
    if bill.capabilities.is_remote:
        raise StudyError(
            f"A study sends nothing to {bill.capabilities.name}: nobody is asked before each of its runs. Take a "
            "device that is here, such as local, or train with qpeft train."
        )


def neutral_text(tokenizer: PreTrainedTokenizerBase, longest: int | None = None) -> list[Encoded]:
    """Return the paragraphs of the package's own text about everyday things, every token labelled.

    Args:
        tokenizer: of the model.
        longest: keep this many tokens of each; None keeps all.

    Nobody trains for it, so the loss on it, before and after, says how much of the model's English an adapter costs.
    """
    text = files("qpeft.comparison").joinpath(NEUTRAL).read_text(encoding="utf-8")
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    tokens = tokenizer(paragraphs, add_special_tokens=False)["input_ids"]
    return [
        Encoded(ids[:longest], ids[:longest], 0, (), f"{NEUTRAL}:{number}")
        for number, ids in enumerate(tokens, start=1)
    ]


Change = Callable[[AbstractBottleneck, Tensor], Tensor]
"""A bottleneck and its outputs at the tokens of a batch, (tokens, features), padding left out, to what is put there."""


@contextmanager
def permuted(model: nn.Module, _: Sequence[Encoded]) -> Iterator[None]:
    """Give every token of a batch the bottleneck's output of another one within the block, drawn anew for a layer."""
    generator = torch.Generator().manual_seed(0)
    # Drawn on the CPU, so that the permutation is the same on every device.
    with _changed(
        model,
        lambda _, outputs: outputs[torch.randperm(len(outputs), generator=generator).to(outputs.device)],
    ):
        yield


@contextmanager
def replaced_by_mean(model: nn.Module, encoded: Sequence[Encoded]) -> Iterator[None]:
    """Give every token the same output of the bottleneck within the block: its mean over all tokens of the examples."""
    sums: dict[AbstractBottleneck, Tensor] = {}
    counts: dict[AbstractBottleneck, int] = {}

    def collect(bottleneck: AbstractBottleneck, outputs: Tensor) -> Tensor:
        # In double precision: there may be a hundred thousand tokens.
        sums[bottleneck] = sums.get(bottleneck, 0) + outputs.double().sum(0)
        counts[bottleneck] = counts.get(bottleneck, 0) + len(outputs)
        return outputs

    with _changed(model, collect):
        held_out_loss(model, encoded)

    with _changed(
        model,
        lambda bottleneck, outputs: (sums[bottleneck] / counts[bottleneck]).to(outputs.dtype).expand_as(outputs),
    ):
        yield


ABLATIONS: dict[str, Callable[[nn.Module, Sequence[Encoded]], AbstractContextManager[None]]] = {
    "output permuted among tokens": permuted,
    "output replaced by its mean": replaced_by_mean,
}
"""By the name that the report gives them."""


@contextmanager
def _changed(model: nn.Module, change: Change) -> Iterator[None]:
    """Change every bottleneck's output, at all tokens but padding. Raises: StudyError if there is no bottleneck."""
    bottlenecks = [module for module in model.modules() if isinstance(module, AbstractBottleneck)]
    if not bottlenecks:
        raise StudyError("The adapter has no bottleneck to ablate; only QTHA with a bottleneck other than none has.")
    # None outside of a batch: the loss tries parts of the model before, and what they return is not measured.
    is_token: Tensor | None = None

    def remember(_: nn.Module, __: Any, inputs: dict[str, Any]) -> None:
        """Note, before the model runs, which tokens of its batch are no padding."""
        nonlocal is_token
        is_token = inputs["attention_mask"].bool()

    def forget(_: nn.Module, __: Any, ___: Any) -> None:
        """Forget the batch, once the model has run."""
        nonlocal is_token
        is_token = None

    def replace(bottleneck: AbstractBottleneck, _: Any, output: Tensor) -> Tensor:
        """Return the output of a bottleneck, changed at all tokens of the batch at hand."""
        if is_token is None:
            return output
        # A copy, since a layer may still need the output for something else.
        changed = output.clone()
        changed[is_token] = change(bottleneck, output[is_token])
        return changed

    # The stack removes the hooks in any case: the same model is measured again after this.
    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(remember, with_kwargs=True).remove)
        hooks.callback(model.register_forward_hook(forget, always_call=True).remove)
        for bottleneck in bottlenecks:
            hooks.callback(bottleneck.register_forward_hook(replace).remove)
        yield
