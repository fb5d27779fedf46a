"""Small random language models, and equations of the adapter worked out with numpy."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn


@pytest.fixture
def make_model():
    """A function: a small Llama or Qwen2 with the same random weights every time."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}

    def make(kind="llama", **sizes):
        config_class, model_class = kinds[kind]
        shape = {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "attn_implementation": "eager",
        }
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return model_class(config_class(**(shape | sizes))).eval()

    return make


@pytest.fixture
def train():
    """A function: sixty steps of Adam on a model of 12 inputs and 10 outputs; the losses. The last gradients stay."""

    def run(model, *, learning_rate):
        generator = torch.Generator().manual_seed(0)
        x, wanted = torch.randn(40, 12, generator=generator), torch.randn(40, 10, generator=generator)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer, losses = torch.optim.Adam(weights, lr=learning_rate), []
        for _ in range(60):
            optimizer.zero_grad()
            loss = (model(x) - wanted).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return run


@pytest.fixture
def is_lora_of():
    """A function: whether PEFT's conversion of a model's layer to LoRA of a rank has the same matrix."""
    from peft import convert_to_lora

    def same(model, *, rank):
        delta = model.base_model.model.layer.get_delta_weight("default")
        _, weights = convert_to_lora(model, rank=rank)
        name = "base_model.model.layer.lora_{}.weight"
        product = weights[name.format("B")] @ weights[name.format("A")]
        return torch.allclose(product.double(), delta, atol=1e-5 * delta.abs().max().item())

    return same


@pytest.fixture
def tokens():
    """Four rows of eight tokens."""
    return torch.randint(1, 64, (4, 8), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def adapt(make_model):
    """A function from the options of a config to a small model with that adapter on q and v."""
    from peft import get_peft_model

    from qpeft import QthaConfig

    def adapted(model=None, **options):
        settings = {"rank": 4, "target_modules": ["q_proj", "v_proj"], "init_seed": 0, "task_type": "CAUSAL_LM"}
        return get_peft_model(model or make_model(), QthaConfig(**(settings | options)))

    return adapted


@pytest.fixture
def shake():
    """A function that gives every adapter weight of a model a random value, as training would."""

    def randomize(model, seed=3, std=0.5):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "qtha_" in name:
                    weight.copy_(std * torch.randn(weight.shape, generator=generator))
        return model

    return randomize


@pytest.fixture
def equations():
    """The update of a `QthaBranch`, from its weights, by dense matrices in float64."""
    return update_by_equations


def update_by_equations(branch, config, x):
    """The published equations, with our options: rows of x (tokens, in) to updates (tokens, out)."""
    h = x @ dense_factor(branch.down).T
    paths = []
    if config.bottleneck != "none":
        paths.append(middle_by_equations(branch.middle, config, h) @ numbers(branch.middle_weight).T)
    if config.classical_path:
        paths.append(h @ numbers(branch.classical_weight).T)
    if not paths:
        z = h
    else:
        z = paths[0] if len(paths) == 1 else paths[0] * paths[1] if config.fusion == "hadamard" else sum(paths)
    return z @ dense_factor(branch.up)


def middle_by_equations(bottleneck, config, h):
    """Features of rows of h (tokens, rank)."""
    if config.bottleneck == "mlp":
        *before, last = [numbers(matrix) for matrix in (bottleneck.first, *bottleneck.inner, bottleneck.second)]
        for matrix in before:
            h = h @ matrix.T
            h = h / (1 + np.exp(-h))
        return h @ last.T
    if config.bottleneck == "constant":
        return np.broadcast_to(numbers(bottleneck.weights), h.shape)
    if config.bottleneck == "hilbert":
        analytic = scipy.signal.hilbert(h, axis=-1)
        # The floor under the amplitude, 0.01, also shortens the cosine.
        amplitude = np.hypot(np.abs(analytic), 0.01)
        return np.concatenate([amplitude, np.cos(np.angle(analytic)) * np.abs(analytic) / amplitude], axis=1)
    if config.bottleneck in ("sinusoid", "tanh"):
        return units_by_equations(
            numbers(bottleneck.weights), getattr(np, {"sinusoid": "sin"}.get(config.bottleneck, "tanh")), h
        )
    angles = (np.pi / 2 * np.tanh(h) if config.input_scaling == "tanh" else h) + config.encoding_offset
    size = config.num_qubits or h.shape[1]
    values = [
        z_of_every_qubit(config.ansatz, config.depth, config.reupload, angles[:, i * size : (i + 1) * size], weights)
        for i, weights in enumerate(numbers(bottleneck.weights))
    ]
    return np.concatenate(values, axis=1)


def units_by_equations(weights, function, h):
    """Sums of a f(b h + c) + d, channel by channel, from the trained ones of c, b, a, d of unit after unit."""
    num_units = -(-len(weights) // 4)
    values = np.zeros_like(h)
    for channel in range(h.shape[1]):
        left = list(weights[:, channel])
        for unit in range(1, num_units + 1):
            c, b, a, d = (left.pop(0) if left else start for start in (0, unit, 1 / num_units, 0))
            values[:, channel] += a * function(b * h[:, channel] + c) + d
    return values


def dense_factor(factor):
    """A factor as a dense (rank, width) matrix, its operator contracted by einsum."""
    if hasattr(factor, "matrix"):
        return numbers(factor.matrix)
    narrow, wide = factor.operator.narrow, factor.operator.wide
    full = np.ones((1, 1, 1))  # narrow index, wide index, open bond
    for core in factor.operator.cores:
        full = np.einsum("nwl,lijr->niwjr", full, numbers(core))
        full = full.reshape(full.shape[0] * full.shape[1], full.shape[2] * full.shape[3], -1)
    operator = full[: narrow.width, : wide.width, 0]
    return numbers(factor.bottleneck) @ operator if hasattr(factor, "bottleneck") else operator


def z_of_every_qubit(ansatz, depth, reupload, angles, weights):
    """Expectation values from state vectors, for each row of angles; every gate is a dense 2^n matrix."""
    n, left = angles.shape[1], list(weights)
    ring = [(q, (q + 1) % n) for q in range(n)] if n > 1 else []
    back = [(q, (q - 1) % n) for q in range(n)] if n > 1 else []
    values = []
    for row in angles:
        state, left = np.eye(2**n)[0].astype(complex), list(weights)
        for layer in range(depth):
            if layer == 0 or reupload:
                state = _each(n, row, _ry) @ state
            if ansatz == "ring_crz":
                for pairs in (ring, back):
                    for control, target in pairs:
                        state = _controlled(n, control, target, _rz(left.pop(0))) @ state
                    state = _each(n, [left.pop(0) for _ in range(n)], _ry) @ state
            else:
                state = _each(n, [left.pop(0) for _ in range(n)], _ry) @ state
                if ansatz == "ring_cz":
                    for control, target in ring[:1] if n == 2 else ring:
                        state = _controlled(n, control, target, np.diag([1, -1])) @ state
                    state = _each(n, [left.pop(0) for _ in range(n)], _ry) @ state
                else:
                    state = _each(n, [left.pop(0) for _ in range(n)], _rz) @ state
                    for control, target in ring:
                        state = _controlled(n, control, target, np.array([[0, 1], [1, 0]])) @ state
        if ansatz == "ring_cnot":
            state = _each(n, [left.pop(0) for _ in range(n)], _ry) @ state
        signs = 1 - 2 * ((np.arange(2**n)[None] >> (n - 1 - np.arange(n)[:, None])) & 1)
        values.append(signs @ np.abs(state) ** 2)
    assert not left
    return np.array(values)


def numbers(tensor):
    return tensor.detach().double().numpy()


def _ry(angle):
    cos, sin = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([[cos, -sin], [sin, cos]])


def _rz(angle):
    return np.diag([np.exp(-0.5j * angle), np.exp(0.5j * angle)])


def _each(n, angles, gate):
    full = np.eye(1)
    for angle in angles:
        full = np.kron(full, gate(angle))
    assert len(full) == 2**n
    return full


def _controlled(n, control, target, matrix):
    """`matrix` on `target` where `control` is 1; qubit 0 is the leftmost factor."""
    idle = [np.diag([1, 0]) if q == control else np.eye(2) for q in range(n)]
    acting = [np.diag([0, 1]) if q == control else matrix if q == target else np.eye(2) for q in range(n)]
    return _product(idle) + _product(acting)


def _product(factors):
    full = np.eye(1)
    for factor in factors:
        full = np.kron(full, factor)
    return full


class OneLinear(nn.Module):
    """A model that is nothing but one linear layer, called `layer`."""

    def __init__(self, in_features=12, out_features=10):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.layer(x)


@pytest.fixture
def one_linear():
    """The class `OneLinear`."""
    return OneLinear
