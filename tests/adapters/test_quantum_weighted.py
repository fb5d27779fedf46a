"""Quantum-weighted adapters: their equations, how often circuits run, and what is refused."""

import copy
import math

import numpy as np
import pytest
import torch
from peft import PeftModel, TinyLoraConfig, get_peft_model
from torch.testing import assert_close

from qpeft import QuantumWeightedConfig
from qpeft.adapters import quantum_weighted
from qpeft.adapters.quantum_weighted.config import z_strings
from qpeft.adapters.quantum_weighted.layer import top_singular_vectors
from qpeft.errors import AdapterError

SMALL = {
    "rank": 3,
    "num_qubits": 3,
    "depth": 2,
    "start": "random",
    "init_seed": 5,
    "target_modules": ["q_proj", "v_proj"],
}
LAYER = "base_model.model.model.layers.{}.self_attn.{}_proj"


@pytest.fixture
def adapted(make_model):
    """A function from options to a small model with that adapter."""
    return lambda **options: get_peft_model(make_model(), QuantumWeightedConfig(**(SMALL | options)))


def bank_of(model):
    return model.get_submodule(LAYER.format(0, "q")).quantum_weighted_branch["default"].bank


def turn(model, size=0.3, seed=0):
    """Move every angle, as training does."""
    bank = bank_of(model)
    with torch.no_grad():
        bank.turns += size * torch.randn(bank.turns.shape, generator=torch.Generator().manual_seed(seed))
    return bank


def dense_values(angles, num_qubits, depth, strings):
    """Values of strings of Z after RY layers between rings of CZ, with dense matrices; qubit 0 most significant."""
    state = np.zeros(2**num_qubits)
    state[0] = 1.0
    bits = np.array([[index >> (num_qubits - 1 - q) & 1 for q in range(num_qubits)] for index in range(2**num_qubits)])
    ring = np.prod([(-1.0) ** (bits[:, q] * bits[:, (q + 1) % num_qubits]) for q in range(num_qubits)], axis=0)
    for layer in range(depth + 1):
        matrix = np.ones((1, 1))
        for angle in angles[layer * num_qubits : (layer + 1) * num_qubits]:
            c, s = math.cos(angle / 2), math.sin(angle / 2)
            matrix = np.kron(matrix, np.array([[c, -s], [s, c]]))
        state = matrix @ state
        if layer < depth:
            state = ring * state
    return np.array(
        [
            (state**2 * np.prod([(-1.0) ** bits[:, q] for q, z in enumerate(string) if z == "Z"], axis=0)).sum()
            for string in strings
        ]
    )


@pytest.mark.parametrize("reading", ["calibrated", "plain"])
@pytest.mark.parametrize("kind", ["q", "v"])
def test_the_update_is_u_s_r_v_transposed_with_r_from_the_circuit(adapted, reading, kind):
    model = adapted(reading=reading, gain=1.5, ridge=0.1)
    bank, layer = bank_of(model), model.get_submodule(LAYER.format(1, kind))
    start = bank.constants().start[1].double().numpy()
    turn(model)
    turned = start + bank.turns.detach().double().numpy()[1]
    strings = z_strings(3, 7)
    values = [dense_values(angles, 3, 2, strings) for angles in (turned, start)]
    y = values[0] - values[1]
    if reading == "calibrated":
        step = 1e-5
        slope = np.stack(
            [
                (dense_values(start + step * unit, 3, 2, strings) - dense_values(start - step * unit, 3, 2, strings))
                / (2 * step)
                for unit in np.eye(9)
            ],
            axis=1,
        )
        # The ridge regression that the damped inverse is.
        ridge = 0.1 * np.linalg.norm(slope, 2)
        y = np.linalg.solve(slope.T @ slope + ridge**2 * np.eye(9), slope.T @ y)
    mixers = bank.cores.mixers(f"model.layers.1.self_attn.{kind}_proj").double().numpy()
    u, s, vh = np.linalg.svd(layer.get_base_layer().weight.detach().double().numpy())
    signs = np.sign(vh[np.arange(3), np.abs(vh[:3]).argmax(1)])
    r = 1.5 * np.einsum("k,kij->ij", y, mixers)
    expected = (u[:, :3] * s[:3] * signs) @ r @ (signs[:, None] * vh[:3])
    assert_close(layer.get_delta_weight("default").double(), torch.from_numpy(expected), atol=2e-6, rtol=1e-4)
    assert np.abs(expected).max() > 1e-2  # or nothing would have been compared


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reading": "plain"},
        {"circuit": "free"},
        {"circuit": "linear"},
        {"circuit": "product"},
        {"mapping": "train", "bond_dimension": 2},
        {"mapping": "network", "hidden_size": 3},
    ],
)
def test_the_gradient_of_the_angles_is_that_of_finite_differences(options):
    # Linear layers alone: language models compute parts in float32, whatever they are in.
    torch.manual_seed(4)
    base = torch.nn.Sequential(torch.nn.Linear(7, 6), torch.nn.Tanh(), torch.nn.Linear(6, 5)).double()
    settings = SMALL | {"share": "module", "target_modules": ["0", "2"]} | options
    model = get_peft_model(base, QuantumWeightedConfig(**settings))
    bank = base[0].quantum_weighted_branch["default"].bank
    with torch.no_grad():
        bank.turns += 0.3 * torch.randn(bank.turns.shape)
    x, weights = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)

    def loss():
        return (weights * model(x)).sum()

    loss().backward()
    for place in [(0, 0), (1, 4)]:
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                bank.turns[place] += step
                values.append(loss().item())
                bank.turns[place] -= step
        assert bank.turns.grad[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6, abs=1e-9)
        assert abs(values[0] - values[1]) > 1e-7
    for core in bank.cores:
        place = (1, 0)[: core.ndim]
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                core[place] += step
                values.append(loss().item())
                core[place] -= step
        assert core.grad[place].flatten()[0] != 0
        # The step moved a whole slice, so its slopes add up.
        assert core.grad[place].sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6, abs=1e-9)


def test_trained_matrices_are_a_tensor_train_of_the_variance_of_random_ones(adapted):
    bank = bank_of(adapted(mapping="train", bond_dimension=5, share="module", target_modules="all-linear"))
    layers, numbers, rows, columns = (core.detach().double().numpy() for core in bank.cores)
    entry = layers[3] @ numbers[:, 2] @ rows[:, 1] @ columns[:, 0]
    only_one = torch.zeros(14, 9)
    only_one[:, 2] = 1.0
    made = bank.cores.matrices(only_one, list(bank.cores))
    assert made[3].reshape(3, 3)[1, 0].item() == pytest.approx(entry, rel=1e-4)
    entries = []
    for seed in range(20):
        cores = [bank.cores._core(f"{place} {seed}", *core.shape) for place, core in enumerate(bank.cores)]
        entries.append(bank.cores.matrices(only_one, cores))
    assert torch.stack(entries).square().mean().item() == pytest.approx(bank.cores.scale**2, rel=0.4)
    assert sum(weight.numel() for weight in bank.parameters()) == 14 * 9 + 14 * 5 + 5 * 9 * 5 + 5 * 3 * 5 + 5 * 3


def test_the_network_reads_the_code_of_layer_and_number_and_the_number(adapted):
    bank = turn(adapted(mapping="network", hidden_size=5, share="module"))
    numbers = torch.randn(4, 9, generator=torch.Generator().manual_seed(2))
    made = bank.cores.matrices(numbers, list(bank.cores)).detach().double().numpy()
    inner, bias, outer = (weight.detach().double().numpy() for weight in bank.cores)
    code = {
        name: np.sign(bank.cores.normals(f"code of {name}", 16).numpy())
        for name in [*bank.layers, *(f"number {k}" for k in range(9))]
    }

    def network(layer, k, value):
        return outer @ np.tanh(inner @ np.concatenate([code[layer], code[f"number {k}"], [value]]) + bias)

    for place, layer in enumerate(bank.layers):
        expected = sum(network(layer, k, numbers[place, k].item()) - network(layer, k, 0.0) for k in range(9))
        np.testing.assert_allclose(made[place], expected, atol=1e-5)
    assert np.abs(made).max() > 0.1
    assert sum(weight.numel() for weight in bank.cores) == 5 * (16 + 16 + 1) + 5 + 9 * 5


def test_free_numbers_are_peft_s_tinylora_for_equal_matrices(adapted, make_model, tokens):
    model = adapted(circuit="free", share="model", gain=1.0)
    bank = turn(model)
    theirs = get_peft_model(
        make_model(), TinyLoraConfig(r=3, u=9, weight_tying=1.0, target_modules=["q_proj", "v_proj"], init_weights=True)
    )
    for layer in range(2):
        for kind in "qv":
            name = LAYER.format(layer, kind)
            other = theirs.get_submodule(name)
            mixers = bank.cores.mixers(name.removeprefix("base_model.model.")).float()
            # Their singular vectors may have other signs: P is turned so that U S P V^T is the same.
            down, up = model.get_submodule(name).quantum_weighted_branch["default"].factors(torch.device("cpu"))
            a, b = other.tinylora_A["default"], other.tinylora_B["default"]
            other.tinylora_P["default"] = torch.linalg.pinv(b) @ (up.T @ mixers @ down) @ torch.linalg.pinv(a)
    with torch.no_grad():
        for v in theirs.base_model.tinylora_v["default"].values():
            v.copy_(bank.turns[0])
    assert_close(model(tokens).logits, theirs(tokens).logits, atol=1e-5, rtol=0)
    assert not torch.equal(model(tokens).logits, make_model()(tokens).logits)


def test_near_the_start_calibrated_numbers_are_the_turns_themselves(adapted):
    model = adapted(ridge=0.0, gain=1.0, num_qubits=4, depth=1)  # 15 strings for 8 angles
    bank = bank_of(model)
    away = 1e-3 * torch.randn(bank.turns.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        bank.turns += away
    reading = bank.constants().reading
    assert_close(reading.numbers(bank.values(bank.turns.detach())), away, atol=2e-5, rtol=0)


@pytest.fixture
def evaluations(monkeypatch):
    """The shapes of angles that circuits were evaluated with."""
    shapes, evaluate = [], quantum_weighted.bank.expectations

    def counting(circuit, angles, weights):
        shapes.append(tuple(angles.shape))
        return evaluate(circuit, angles, weights)

    monkeypatch.setattr(quantum_weighted.bank, "expectations", counting)
    return shapes


@pytest.mark.parametrize("share", ["model", "layer", "kind", "module"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_circuits_run_once_per_step_and_backward_pass_whatever_layers_share_them(
    adapted, tokens, evaluations, share, checkpointing
):
    model = adapted(share=share).train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    optimizer = torch.optim.AdamW(bank_of(model).parameters(), lr=1e-2, fused=True)
    model(input_ids=tokens, labels=tokens).loss.backward()  # finds the slopes
    optimizer.step()
    groups = {"model": 1, "layer": 2, "kind": 2, "module": 4}[share]
    evaluations.clear()
    losses = []
    for _ in range(2):  # two micro-batches of one step
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        losses.append(loss.item())
    optimizer.step()
    losses.append(model(input_ids=tokens, labels=tokens).loss.item())
    # Forward; twice for the gradient; forward with the new angles.
    assert evaluations == [(groups, 9)] * 4
    assert losses[0] == losses[1] != losses[2]


def test_checkpointing_and_micro_batches_do_not_change_gradients(adapted, tokens):
    gradients = []
    for checkpointing, parts in [(False, 1), (True, 1), (False, 2), (True, 2)]:
        model = adapted(share="model").train()
        turn(model)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        for part in tokens.chunk(parts):
            (model(input_ids=part, labels=part).loss / parts).backward()
        gradients.append(bank_of(model).turns.grad)
    for gradient in gradients[1:]:
        assert_close(gradient, gradients[0], atol=1e-6, rtol=1e-5)
    assert gradients[0].abs().max() > 1e-4


def test_a_fresh_adapter_changes_nothing_in_half_precision_too(make_model, tokens):
    for dtype in (torch.float32, torch.bfloat16):
        base = make_model().to(dtype)
        before = base(tokens).logits
        assert torch.equal(get_peft_model(base, QuantumWeightedConfig(**SMALL))(tokens).logits, before)


def test_a_half_precision_base_keeps_fingerprints_and_final_values_exact(make_model, tokens, tmp_path):
    import qpeft
    from qpeft.devices import LocalDevice

    options = SMALL | {"start": "clifford", "num_qubits": 4, "depth": 1}
    model = get_peft_model(make_model().to(torch.bfloat16), QuantumWeightedConfig(**options))
    turn(model)
    bank = bank_of(model)
    assert (bank.turns.dtype, bank.fingerprint.dtype) == (torch.float32, torch.float32)
    qpeft.finalize(model, LocalDevice(seed=1), shots=1000)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model().to(torch.bfloat16), tmp_path)
    assert torch.equal(bank_of(loaded).final_values, bank.final_values)
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_a_copy_shares_nothing_with_its_original(adapted, tokens):
    model = adapted()
    model(tokens)
    twin = copy.deepcopy(model)
    turn(twin)
    assert not torch.equal(twin(tokens).logits, model(tokens).logits)
    assert twin.get_submodule(LAYER.format(1, "v")).quantum_weighted_branch["default"].bank is bank_of(twin)


def test_a_file_holds_angles_and_fingerprints_and_nothing_else(adapted, tmp_path):
    from safetensors.torch import load_file

    adapted().save_pretrained(tmp_path)
    assert {
        name.rpartition(".")[2]: tuple(tensor.shape)
        for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items()
    } == {
        "turns": (2, 9),
        "fingerprint": (4,),
    }


def test_an_adapter_beside_other_weights_is_refused_and_saved_factors_go_anywhere(
    adapted, make_model, tokens, tmp_path
):
    def other():
        model = make_model()
        with torch.no_grad():
            model.model.layers[1].self_attn.v_proj.weight += 0.05
        return model

    for save_factors in (False, True):
        model = adapted(save_factors=save_factors)
        turn(model)
        model.save_pretrained(tmp_path / str(save_factors))
    with pytest.raises(AdapterError, match=r"trained beside other weights: at 'model.layers.1.self_attn.v_proj'"):
        PeftModel.from_pretrained(other(), tmp_path / "False")
    loaded = PeftModel.from_pretrained(other(), tmp_path / "True")
    name = LAYER.format(1, "v")
    delta = [found.get_submodule(name).get_delta_weight("default") for found in (loaded, model)]
    assert torch.equal(*delta)


def test_singular_vectors_are_those_of_numpy_up_to_signs_that_are_fixed():
    for shape in [(9, 30), (30, 9), (12, 12)]:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        down, up = top_singular_vectors(weight, 4)
        u, s, vh = np.linalg.svd(weight.double().numpy(), full_matrices=False)
        assert_close(up.T @ down, torch.from_numpy((u[:, :4] * s[:4]) @ vh[:4]), atol=1e-10, rtol=0)
        assert_close(torch.linalg.vector_norm(up, dim=1), torch.from_numpy(s[:4].copy()), atol=1e-10, rtol=0)
        assert (down.gather(1, down.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize(("num_qubits", "depth"), [(4, 1), (6, 2), (7, 2), (8, 1), (8, 2), (8, 3), (10, 2)])
def test_at_a_clifford_start_every_angle_moves_one_string_of_its_own(adapted, num_qubits, depth):
    bank = bank_of(adapted(start="clifford", num_qubits=num_qubits, depth=depth, target_modules=["q_proj"]))
    count = num_qubits * (depth + 1)
    assert tuple(bank.circuit.observables) != ()
    strings, angles = bank.circuit.observables, bank.constants().start[0].double().numpy()
    assert len(strings) == count
    assert set(np.round(angles / (math.pi / 2), 6)) <= {0.0, 1.0}
    step = 1e-4
    slope = np.stack(
        [
            (
                dense_values(angles + step * unit, num_qubits, depth, strings)
                - dense_values(angles - step * unit, num_qubits, depth, strings)
            )
            / (2 * step)
            for unit in np.eye(count)
        ],
        axis=1,
    )
    # A signed permutation, so the inverse multiplies no noise.
    assert_close(
        torch.from_numpy(np.sort(np.abs(slope), 0)[-1]), torch.ones(count, dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert_close(torch.from_numpy(slope.T @ slope), torch.eye(count, dtype=torch.float64), atol=1e-6, rtol=0)


def test_strings_come_by_weight_then_place():
    assert z_strings(3, 7) == ["ZII", "IZI", "IIZ", "ZZI", "ZIZ", "IZZ", "ZZZ"]
    assert len(z_strings(10, 255)) == 255
    assert len(set(z_strings(10, 255))) == 255


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_strings": 8}, "3 qubits have 7 strings of Z; got num_strings 8"),
        ({"rank": 17}, "rank 17 is above what 'model.layers.0.self_attn.v_proj' has: 32 features in and 16 out"),
        ({"reading": "exact"}, "reading must be one of calibrated, plain; got 'exact'"),
        ({"circuit": "none"}, "circuit must be one of trained, free, product, linear"),
        ({"share": "head"}, "share must be one of model, kind, layer, block, module"),
        ({"ansatz": "ring_crz"}, "ansatz must be one of cz_ring, cnot_chain, two_design"),
        ({"ridge": -0.1}, "ridge must be 0 or more"),
        ({"gain": math.nan}, "gain must be a finite number"),
        ({"start": "clifford"}, "No Clifford start is known for cz_ring of 3 qubits and depth 2 with 7 strings"),
        ({"start": "zero"}, "start must be one of clifford, random"),
        ({"depth": 0}, "depth must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(adapted, options, sentence):
    with pytest.raises(AdapterError, match=sentence):
        adapted(**options)


def test_without_a_seed_one_is_drawn_from_torch_and_kept_with_the_adapter(adapted, tokens, tmp_path, make_model):
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(adapted(init_seed=None))
        turn(models[-1])
    logits = [model(tokens).logits for model in models]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    models[2].save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(make_model(), tmp_path)(tokens).logits, logits[2])
