"""QPA: its equations, sizes and start, and that every part of a generator learns."""

import math

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close

from qpeft import QpaConfig
from qpeft.adapters.build import count_layers, lora_parameters
from qpeft.adapters.qpa import QpaBranch
from qpeft.errors import AdapterError


@pytest.mark.parametrize(("in_features", "out_features"), [(24, 30), (7, 6), (5, 64)])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 5, "hidden_size": 3, "depth": 2}, {"chunk_size": 1}])
def test_the_update_is_the_product_of_two_generated_matrices(in_features, out_features, options):
    config = QpaConfig(rank=3, alpha=6.0, **options)
    branch = _random(QpaBranch(config, in_features, out_features, rank=3, scaling=2.0))
    down = generated(branch.down, 3, in_features, config)
    expected = 6.0 / 3 * generated(branch.up, 3, out_features, config).T @ down
    assert_close(branch.matrix(), torch.from_numpy(expected), atol=1e-10, rtol=1e-10)
    x = torch.randn(5, in_features, dtype=torch.float64)
    assert_close(branch(x), x @ torch.from_numpy(expected).T, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("widths", "options", "parameters"),
    [
        # 8 * 576 entries make 144 chunks of 32, so 8 qubits; 8 * 192 make 48, so 6 qubits.
        ((576, 192), {}, 8 * 8 + 16 * 10 + 17 * 32 + 6 * 8 + 16 * 8 + 17 * 32),
        ((576, 576), {"depth": 3, "hidden_size": 5, "chunk_size": 64}, 2 * (7 * 3 + 5 * 9 + 6 * 64)),
        ((16, 16), {"rank": 2}, 2 * (1 * 8 + 16 * 3 + 17 * 32)),  # one chunk still takes one qubit
        ((16, 12), {"rank": 1}, 2 * (8 + 16 * 3) + 17 * 16 + 17 * 12),  # a matrix below a chunk is its own chunk
        ((16, 17), {"rank": 4, "chunk_size": 32}, (8 + 16 * 3 + 17 * 32) + (2 * 8 + 16 * 4 + 17 * 32)),
    ],
)
def test_a_generator_has_the_parameters_of_its_formula(one_linear, widths, options, parameters):
    with torch.device("meta"):
        model = one_linear(*widths)
    (kind,) = count_layers(model, QpaConfig(target_modules=["layer"], **options))
    assert kind.parameters == parameters


@pytest.mark.parametrize("widths", [(576, 576), (576, 192), (896, 128), (3584, 512), (4096, 14336)])
def test_defaults_are_smaller_than_lora_at_the_widths_of_language_models(one_linear, widths):
    with torch.device("meta"):
        model = one_linear(*widths)
    (kind,) = count_layers(model, QpaConfig(target_modules=["layer"]))
    assert kind.parameters < lora_parameters(kind, rank=8)


def test_the_start_is_that_of_lora():
    branch = QpaBranch(QpaConfig(), 768, 512, rank=8, scaling=2.0)
    branch.initialize(torch.Generator().manual_seed(0))
    down, up = branch.effective_factors()
    assert down.square().mean().item() == pytest.approx(1 / (3 * 768), rel=1e-4)
    assert torch.linalg.matrix_rank(down) == 8
    assert torch.count_nonzero(up) == 0


def test_every_part_learns_once_the_last_layer_has_moved(one_linear, train):
    config = QpaConfig(rank=2, chunk_size=4, hidden_size=6, depth=3, target_modules=["layer"], init_seed=0)
    model = get_peft_model(one_linear(), config)
    losses = train(model, learning_rate=0.02)
    assert losses[-1] < 0.8 * losses[0]
    trained = {name.split(".default.")[1]: w for name, w in model.named_parameters() if w.requires_grad}
    parts = ("angles", "hidden.weight", "hidden.bias", "output.weight", "output.bias")
    assert trained.keys() == {f"{side}.{part}" for side in ("down", "up") for part in parts}
    assert all(weight.grad.abs().max() > 0 for weight in trained.values())


def test_a_lora_of_its_rank_is_exact_and_of_less_is_not(one_linear, is_lora_of):
    model = _random(get_peft_model(one_linear(), QpaConfig(rank=4, chunk_size=4, target_modules=["layer"])))
    assert is_lora_of(model, rank=4)
    assert not is_lora_of(model, rank=3)


def test_ranks_and_alphas_follow_their_patterns(make_model):
    config = QpaConfig(target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 3.0})
    model = get_peft_model(make_model(), config)
    attention = model.base_model.model.model.layers[1].self_attn
    for projection, rank, scaling in ((attention.q_proj, 8, 2.0), (attention.v_proj, 2, 1.5)):
        branch = projection.branch("default")
        assert branch.effective_factors()[0].shape == (rank, 32)
        assert branch.scaling == scaling


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"hidden_size": -2}, {"depth": True}, {"rank": 0}])
def test_values_out_of_range_are_refused_by_name(options):
    with pytest.raises(AdapterError, match=next(iter(options))):
        QpaConfig(**options)


def generated(factor, rank, width, config):
    """A generated matrix, chunk by chunk: the circuit gate by gate, on a state with one axis a qubit."""
    angles, (first, shift), (second, offset) = _numbers(factor.angles), _layer(factor.hidden), _layer(factor.output)
    num_chunks = math.ceil(rank * width / config.chunk_size)
    n = max(1, math.ceil(math.log2(num_chunks)))
    state = np.zeros([2] * n)
    state[(0,) * n] = 1
    for layer in angles.reshape(config.depth, n):
        for qubit, angle in enumerate(layer):
            cos, sin = np.cos(angle / 2), np.sin(angle / 2)
            turned = np.tensordot([[cos, -sin], [sin, cos]], state, axes=([1], [qubit]))
            state = np.moveaxis(turned, 0, qubit)
        for control in range(n - 1):
            where = (slice(None),) * control + (1,)
            state[where] = np.flip(state[where], axis=control).copy()  # the target's axis, once the control's is gone
    chunks = []
    for index in range(num_chunks):
        bits = [int(letter) for letter in f"{index:0{n}b}"]
        features = [2 * bit - 1 for bit in bits] + [2**n * state[tuple(bits)] ** 2 - 1]
        chunks.append(second @ np.tanh(first @ features + shift) + offset)
    return np.concatenate(chunks)[: rank * width].reshape(rank, width)


def _layer(linear):
    return _numbers(linear.weight), _numbers(linear.bias)


def _numbers(tensor):
    return tensor.detach().double().numpy()


def _random(module):
    torch.manual_seed(4)
    module.double().eval()
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.5)
    return module
