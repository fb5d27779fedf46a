"""The check that no example of a packed row sees another."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from qpeft.adapters.modes import evaluating
from qpeft.errors import RecipeError


def require_separate_examples(model: PreTrainedModel) -> None:
    """Raises: RecipeError if a token of a packed example depends on the example before it in its row."""
    # Two rows of two examples; the second row's first example differs from the first row's.
    first = torch.tensor([[1, 2, 3, 1], [2, 3, 1, 3]])
    tokens = torch.cat([first, torch.tensor([[2, 1, 3, 2]]).expand(2, -1)], dim=1).to(model.device)
    positions = torch.arange(4, device=model.device).repeat(2).expand(2, -1)
    with evaluating(model):
        logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[:, 4:].float()
    if (logits[0] - logits[1]).abs().max() > 1e-3 * logits.abs().max():
        attention = getattr(model.config, "_attn_implementation", "unknown")
        raise RecipeError(
            f"'training.packing': {model.config.model_type} with {attention} attention lets packed examples see each "
            "other, so their loss would be another one. Set training.packing: false."
        )
