"""Small options for every method of ours, and what the contracts do to models."""

import torch
from torch import nn

SMALL = {
    "qtha": {"rank": 4},
    "loretta": {"rank": 4, "bond_dimension": 5, "num_modes": 2},
    "quanta": {"num_axes": 3},
    "tt_lora": {"rank": 4, "num_modes": 2},
    "qpa": {"rank": 4, "chunk_size": 8, "hidden_size": 3, "depth": 2},
    "quantum_peft": {"rank": 4, "depth": 2},
    "quantum_weighted": {"rank": 4, "num_qubits": 4, "depth": 1},
    "cayley": {"num_qubits": 2},
}
"""Options of a small adapter. A new method adds its row here, and all contracts run for it."""

MATRICES = {"loretta", "quanta", "tt_lora", "qpa", "quantum_peft", "quantum_weighted", "cayley"}
"""Methods whose update is a matrix: they merge and convert to LoRA; the others refuse both."""

WITHOUT_RANDOM_NUMBERS = {"cayley"}
"""Methods whose first weights are all zero, whatever the seed."""

TARGETS = ["q_proj", "v_proj"]


def shake(model, seed=3):
    """Give every adapter weight of a model a random value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_branch." in name:
                weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
    return model


@torch.no_grad()
def logits(model, tokens, **options):
    """Logits in evaluation mode."""
    return model.eval()(tokens, **options).logits


class OneLinear(nn.Module):
    """A model that is nothing but one linear layer, called `layer`."""

    def __init__(self, in_features=12, out_features=10):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.layer(x)
