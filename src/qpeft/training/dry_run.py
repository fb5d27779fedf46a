"""A look before the first step: is the loss the model's own, does every adapted layer act, can examples be packed?"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from peft import PeftModel
from rich.console import Console
from torch import Tensor, nn
from transformers import PreTrainedModel

from qpeft.adapters import bridge
from qpeft.adapters.load import evaluating
from qpeft.data import Encoded, pad_batch
from qpeft.data.encode import IGNORED
from qpeft.errors import AdapterError, RecipeError
from qpeft.evaluation.loss import CausalLoss

EXAMPLES = 4
"""From all over the training data, unless fewer tell all. A layer that is skipped at random has so many chances."""
BEFORE, AFTER = 192, 64
"""Tokens of an example on both sides of the first that is trained on: a look costs less than a step."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Of losses that should be equal, relative but below one nat, where logits round; `ROUNDED` for shorter numbers."""
ROUNDED = 5e-3


def try_out(
    model: PeftModel, examples: Sequence[Encoded], console: Console, *, router_aux_loss_coef: float | None = None
) -> None:
    """Train on a few cut examples, of which nothing stays, and refuse what would go wrong without a word.

    Args:
        model: with its adapter, not wrapped yet.
        examples: of the training data, at least one.
        console: for what is worth knowing and no error.
        router_aux_loss_coef: of the recipe.

    Raises:
        RecipeError: the loss trained on would not be the model's, or a router loss is asked for and it has none.
        AdapterError: an adapted layer is not called, or nothing trained in it gets a gradient.
    """
    batches = []
    for number in range(EXAMPLES):
        # Of fewer examples some come again.
        example = examples[number * len(examples) // EXAMPLES]
        first = next(place for place, label in enumerate(example.labels) if label != IGNORED)
        here = slice(max(0, first - BEFORE), first + AFTER)
        cut = Encoded(example.input_ids[here], example.labels[here], 0, (), example.source)
        batches.append({name: part.to(model.device) for name, part in pad_batch([cut]).items()})
    kinds = (bridge.BaseTunerLayer, bridge.AuxiliaryTrainingWrapper)
    layers = {
        name: module
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, kinds) and any(weight.requires_grad for weight in module.parameters())
    }
    loss_of = CausalLoss(model)
    with evaluating(model):
        _require_own_loss(model, loss_of, batches[0], router_aux_loss_coef)
    if loss_of.way == "logits":
        console.print("the model's logits cannot be made in blocks, so a step keeps those of a whole batch in memory")
    if idle := _never_called(model, loss_of, batches, layers):
        _refuse(
            idle,
            layers,
            console,
            "are not called by the model's forward pass, which passes them over or reads their weights itself, so "
            "adapters on them would never act",
        )
    if idle := _without_gradient(model, loss_of, batches, layers):
        _refuse(idle, layers, console, "get no gradient from the loss, so adapters on them would stay as they are")


def require_separate_examples(model: PreTrainedModel) -> None:
    """Raises: RecipeError if a token of a packed example depends on the example before it in its row."""
    # Two rows of two examples; the second row's first example differs from the first row's.
    first = torch.tensor([[1, 2, 3, 1], [2, 3, 1, 3]])
    tokens = torch.cat([first, torch.tensor([[2, 1, 3, 2]]).expand(2, -1)], dim=1).to(model.device)
    positions = torch.arange(4, device=model.device).repeat(2).expand(2, -1)
    with evaluating(model):
        logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[:, 4:].float()
    # Attention over rows of another content rounds otherwise, so equal to a thousandth is equal.
    if (logits[0] - logits[1]).abs().max() > 1e-3 * logits.abs().max():
        attention = getattr(model.config, "_attn_implementation", "unknown")
        raise RecipeError(
            f"'training.packing': {model.config.model_type} with {attention} attention lets packed examples see each "
            "other, so their loss would be another one. Set training.packing: false."
        )


def _loss(model: PeftModel, loss_of: CausalLoss, batch: Mapping[str, Tensor]) -> Tensor:
    rest = {name: part for name, part in batch.items() if name != "labels"}
    parts = loss_of(model, rest, batch["labels"])
    return parts.total / parts.losses.numel()


def _require_own_loss(
    model: PeftModel, loss_of: CausalLoss, batch: Mapping[str, Tensor], router_aux_loss_coef: float | None
) -> None:
    # Both passes draw the same, if they draw at all, as attention by random hashes does.
    with torch.random.fork_rng():
        ours = _loss(model, loss_of, batch).item()
    # The base model with the adapter's layers in it: what a method adds to the loss (AdaLoRA does) is not the model's.
    causal = model.get_base_model()
    with torch.random.fork_rng():
        own = causal(**batch, use_cache=False).loss
    if router_aux_loss_coef is not None:
        moe = hasattr(causal.config.get_text_config(), "output_router_logits")
        outputs = causal(**batch, use_cache=False, output_router_logits=True) if moe else None
        if getattr(outputs, "aux_loss", None) is None:
            raise RecipeError(
                f"'training.router_aux_loss_coef' is {router_aux_loss_coef}, and {type(causal).__name__} has no router "
                "loss, which mixtures of experts have. Leave the option out."
            )
    if own is None:
        return
    own = own.item()
    tolerance = TOLERANCE.get(next(model.parameters()).dtype, ROUNDED)
    # Turned round, so that a loss that is no number is refused too.
    if not abs(ours - own) <= tolerance * max(1.0, abs(own)):
        raise RecipeError(
            f"The model's own loss is not the cross-entropy of its next token: {type(causal).__name__} says {own:.6f} "
            f"for the first example, and its logits give {ours:.6f}. qpeft trains on and measures nothing else; train "
            "this model with its own trainer."
        )


def _never_called(
    model: PeftModel,
    loss_of: CausalLoss,
    batches: Iterable[Mapping[str, Tensor]],
    layers: Mapping[str, nn.Module],
) -> list[str]:
    """Return the names of layers that no forward pass of these batches enters."""
    called: set[str] = set()
    idle = list(layers)
    with evaluating(model), ExitStack() as hooks:
        for name, layer in layers.items():
            hook = layer.register_forward_hook(lambda *_, name=name: called.add(name))
            hooks.callback(hook.remove)
        for batch in batches:
            _loss(model, loss_of, batch)
            # Some methods wrap a layer inside one of theirs and read its weight there.
            idle = [name for name in layers if not any(name == one or name.startswith(f"{one}.") for one in called)]
            if not idle:
                break
    return idle


def _without_gradient(
    model: PeftModel,
    loss_of: CausalLoss,
    batches: Iterable[Mapping[str, Tensor]],
    layers: Mapping[str, nn.Module],
) -> list[str]:
    """Return the names of layers whose trained weights get no gradient from any of these batches."""

    def acts(layer: nn.Module) -> bool:
        gradients = [weight.grad for weight in layer.parameters() if weight.requires_grad and weight.grad is not None]
        # Of an embedding only the tokens that occur have one.
        is_embedding = isinstance(getattr(layer, "base_layer", getattr(layer, "original_module", None)), nn.Embedding)
        return any(is_embedding or gradient.count_nonzero() > 0 for gradient in gradients)

    modes = [(module, module.training) for module in model.modules()]
    idle = list(layers)
    try:
        model.train()
        with torch.random.fork_rng():  # dropout draws, and differently for each batch
            for batch in batches:
                if (loss := _loss(model, loss_of, batch)).requires_grad:
                    loss.backward()
                idle = [name for name in idle if not acts(layers[name])]
                if not idle:
                    break
    finally:
        model.zero_grad(set_to_none=True)
        for module, was_training in modes:
            module.training = was_training
    return idle


def _refuse(idle: Sequence[str], layers: Mapping[str, nn.Module], console: Console, what: str) -> None:
    """Raises: AdapterError, unless all are experts beside others that do act: a router sends few tokens to each."""

    def family(name: str) -> str:
        """Return what the experts of one layer share, "layers.0.experts.*.up_proj"; of others their own name."""
        if not re.search("expert|moe", name, re.IGNORECASE):
            return name
        return re.sub(r"((?:expert|moe).*)\.\d+", r"\1.*", name, flags=re.IGNORECASE)

    families: dict[str, set[str]] = defaultdict(set)
    for name in layers:
        families[family(name)].add(name)
    experts = [name for name in idle if not families[family(name)] <= set(idle)]
    if experts:
        console.print(
            f"note: {len(experts)} adapted experts, such as {experts[0]}, met no token of the {EXAMPLES} examples tried"
        )
    dead = [name for name in idle if name not in experts]
    if not dead:
        return
    # The shortest value of PEFT's `exclude_modules` that fits these and no others, if there is a simple one. An image
    # or audio tower has layers of the same names as the decoder, so that only its own name tells them apart.
    others, pattern = layers.keys() - set(dead), ""
    tower = posixpath.commonpath(name.rpartition(".")[0].replace(".", "/") for name in dead).replace("/", ".")
    names = {name.rpartition(".")[2] for name in dead}
    if len(dead) > 1 and tower and not any(name.startswith(f"{tower}.") for name in others):
        pattern = rf": '{tower}\..*'"
    elif names.isdisjoint(name.rpartition(".")[2] for name in others):
        pattern = f": [{', '.join(sorted(names))}]"
    shown = ", ".join(dead[:3]) + (", ..." if len(dead) > 3 else "")
    raise AdapterError(
        f"{len(dead)} of {len(layers)} adapted layers {what}: {shown}. Leave them out, by adapter.target_modules or "
        f"adapter.exclude_modules{pattern}."
    )
