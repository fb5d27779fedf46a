"""QTHA layers that train with noise: the right noise, the same when repeated, and none where it was not asked for."""

import copy

import pytest
import torch
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import qpeft
from qpeft.circuits import ansatz
from qpeft.devices import LocalDevice
from qpeft.errors import AdapterError, ShotsError, SimulationError
from qpeft.simulation import expectations
from qpeft.simulation.noise import LinearNoise

LAYER = "layers.1.self_attn.v_proj"
NOISE = LinearNoise((0.8, 0.6), (0.05, -0.1))


@pytest.fixture
def model(adapt, shake):
    return shake(adapt(num_qubits=2)).train()


def bottleneck_of(model, layer=LAYER):
    return model.get_submodule(f"base_model.model.model.{layer}").qtha_branch["default"].middle


def some_h(rows=5):
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))


def exact_values(bottleneck, h):
    """Both two-qubit circuits side by side, by the simulator's public function."""
    angles = bottleneck.angles(h)
    parts = [expectations(bottleneck.circuit, angles[:, 2 * i : 2 * i + 2], bottleneck.weights[i]) for i in range(2)]
    return torch.cat(parts, dim=1)


def test_without_shots_values_are_stretched_and_shifted_per_qubit(model):
    qpeft.set_training_noise(model, NOISE, shots=None)
    bottleneck = bottleneck_of(model)
    h = some_h()
    slopes, offsets = torch.tensor(NOISE.slopes * 2), torch.tensor(NOISE.offsets * 2)
    assert_close(bottleneck(h), exact_values(bottleneck, h) * slopes + offsets)


def test_shot_noise_has_the_spread_of_the_shots_and_mean_zero(model):
    qpeft.set_training_noise(model, NOISE, shots=400, layers=[LAYER])
    bottleneck = bottleneck_of(model)
    h = some_h(1).expand(4000, 4)
    with torch.no_grad():
        mean = exact_values(bottleneck, h) * torch.tensor(NOISE.slopes * 2) + torch.tensor(NOISE.offsets * 2)
        errors = (bottleneck(h) - mean) / ((1 - mean**2) / 400).sqrt()
    assert (errors.mean(0) * 4000**0.5).abs().max() < 4
    assert_close(errors.std(0), torch.ones(4), rtol=0.05, atol=0)
    # Circuits side by side and qubits of one circuit are disturbed independently.
    assert (torch.corrcoef(errors.T) - torch.eye(4)).abs().max() < 0.07


def test_the_gradient_is_that_of_the_stretched_values(model):
    bottleneck = bottleneck_of(model)
    h = some_h().requires_grad_()
    grad = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    slopes = torch.tensor(NOISE.slopes * 2)
    wanted = torch.autograd.grad(exact_values(bottleneck, h), (h, bottleneck.weights), grad * slopes)
    qpeft.set_training_noise(model, NOISE, shots=10)
    found = torch.autograd.grad(bottleneck(h), (h, bottleneck.weights), grad)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other)


def test_noise_depends_on_seed_step_module_and_call_and_on_nothing_else(model):
    bottleneck, other = bottleneck_of(model), bottleneck_of(model, "layers.0.self_attn.v_proj")
    other.load_state_dict(bottleneck.state_dict())
    h = some_h()

    def values(*, seed=0, step=3, bottleneck=bottleneck, before=0):
        source = qpeft.set_training_noise(model, NOISE, shots=10, seed=seed)
        source.begin_step(step)
        for earlier in range(before):
            bottleneck(h + 1 + earlier)
        return bottleneck(h).detach()

    first = values()
    torch.manual_seed(5)
    assert torch.equal(first, values())
    for change in ({"seed": 1}, {"step": 4}, {"bottleneck": other}, {"before": 1}):
        assert not torch.equal(first, values(**change)), change


def test_a_repeated_call_of_a_step_meets_the_same_noise_and_the_next_step_other(model):
    source = qpeft.set_training_noise(model, NOISE, shots=10)
    bottleneck, h = bottleneck_of(model), some_h()
    first, changed, again = bottleneck(h), bottleneck(h + 1), bottleneck(h)
    assert torch.equal(first, again)
    assert not torch.equal(changed, first)
    source.begin_step(1)
    assert source.step == 1
    assert not torch.equal(bottleneck(h), first)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_values_and_gradients_of_the_first_pass(model, reentrant):
    bottleneck = bottleneck_of(model)

    def gradient(run):
        qpeft.set_training_noise(model, NOISE, shots=10)
        h = some_h().requires_grad_()
        values = run(h)
        values.pow(3).sum().backward()  # of a power, so that the gradient depends on the values
        return values.detach(), h.grad

    plain = gradient(bottleneck)
    repeated = gradient(lambda h: checkpoint(lambda x: bottleneck(x).pow(1), h, use_reentrant=reentrant))
    for one, other in zip(repeated, plain, strict=True):
        assert torch.equal(one, other)


def test_evaluation_is_exact_unless_asked_otherwise(model, tokens):
    with torch.no_grad():
        exact = model.eval()(tokens).logits
        qpeft.set_training_noise(model, NOISE, shots=100)
        assert torch.equal(model(tokens).logits, exact)
        assert not torch.allclose(model.train()(tokens).logits, exact)
        qpeft.set_training_noise(model, NOISE, shots=100, in_evaluation=True)
        assert not torch.allclose(model.eval()(tokens).logits, exact)


def test_none_ends_the_noise(model, tokens):
    with torch.no_grad():
        exact = model(tokens).logits
        qpeft.set_training_noise(model, NOISE)
        assert not torch.equal(model(tokens).logits, exact)
        assert qpeft.set_training_noise(model, None) is None
        assert torch.equal(model(tokens).logits, exact)


def test_copies_have_no_noise(model, tokens):
    with torch.no_grad():
        exact = model(tokens).logits
        qpeft.set_training_noise(model, NOISE)
        assert torch.equal(copy.deepcopy(model)(tokens).logits, exact)


def is_noisy(model, layer):
    bottleneck = bottleneck_of(model, layer)
    with torch.no_grad():
        return not torch.allclose(bottleneck(some_h()), exact_values(bottleneck, some_h()))


LAYERS = [f"layers.{number}.self_attn.{name}" for number in (0, 1) for name in ("q_proj", "v_proj")]


@pytest.mark.parametrize(
    ("arguments", "noisy"),
    [
        ({"noise": NOISE}, set(LAYERS)),
        ({"noise": NOISE, "layers": ["v_proj"]}, {LAYERS[1], LAYERS[3]}),
        ({"noise": {LAYERS[0]: NOISE, "1.self_attn.v_proj": NOISE}}, {LAYERS[0], LAYERS[3]}),
    ],
)
def test_only_the_chosen_layers_are_noisy(model, arguments, noisy):
    qpeft.set_training_noise(model, LinearNoise((0.1, 0.1), (0.0, 0.0)))  # replaced by the next choice
    qpeft.set_training_noise(model, **arguments)
    assert {layer for layer in LAYERS if is_noisy(model, layer)} == noisy


def test_each_layer_gets_the_noise_under_its_name(model):
    other = LinearNoise((0.5, 0.4), (0.0, 0.2))
    qpeft.set_training_noise(model, {"v_proj": NOISE, "q_proj": other}, shots=None)
    for layer, noise in zip(LAYERS, (other, NOISE) * 2, strict=True):
        bottleneck = bottleneck_of(model, layer)
        expected = exact_values(bottleneck, some_h()) * torch.tensor(noise.slopes * 2) + torch.tensor(noise.offsets * 2)
        assert_close(bottleneck(some_h()), expected)


def test_noise_and_device_replace_each_other(model):
    qpeft.set_training_noise(model, NOISE)
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, layers=["v_proj"])
    assert not any(is_noisy(model, layer) for layer in LAYERS)
    qpeft.set_training_noise(model, NOISE, layers=["q_proj"])
    assert {layer for layer in LAYERS if is_noisy(model, layer)} == {LAYERS[0], LAYERS[2]}


def test_a_loss_falls_under_noise(model, tokens):
    source = qpeft.set_training_noise(model, LinearNoise((0.7, 0.7), (0.05, 0.05)), shots=100)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    losses = []
    for step in range(25):
        source.begin_step(step)
        optimizer.zero_grad()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"noise": LinearNoise((1.0,) * 4, (0.0,) * 4)}, AdapterError, "have 2 observables; the noise is for 4"),
        ({"noise": {"v_prj": NOISE}}, AdapterError, "did you mean 'v_proj'"),
        ({"noise": {}}, AdapterError, "names no layer"),
        ({"noise": {"v_proj": NOISE, LAYER: NOISE}}, AdapterError, "another name of the noise both fit layer"),
        ({"noise": {"v_proj": NOISE}, "layers": ["v_proj"]}, AdapterError, "names its layers already"),
        ({"noise": NOISE, "layers": "v_proj"}, AdapterError, "layers is a list"),
        ({"noise": NOISE, "shots": 0}, ShotsError, "shots=None"),
        ({"noise": NOISE, "seed": -1}, SimulationError, "seed must be a whole number from 0"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(model, arguments, error, message):
    qpeft.set_training_noise(model, NOISE, layers=["q_proj"])
    with pytest.raises(error, match=message):
        qpeft.set_training_noise(model, **arguments)
    assert {layer for layer in LAYERS if is_noisy(model, layer)} == {LAYERS[0], LAYERS[2]}


def test_layers_without_a_circuit_are_refused(adapt):
    with pytest.raises(AdapterError, match="has no circuit"):
        qpeft.set_training_noise(adapt(bottleneck="mlp"), NOISE)
    with pytest.raises(AdapterError, match="no QTHA layer"):
        qpeft.set_training_noise(torch.nn.Linear(2, 2), None)


def test_the_noise_of_a_fitted_machine_fits_a_layer_of_that_circuit(adapt, shake, tokens):
    model = shake(adapt(num_qubits=4, ansatz="ring_cz")).train()
    circuit = ansatz.ring_cz(4)
    exact = expectations(circuit, torch.randn(50, 4), torch.randn(circuit.num_weights))
    noise = LinearNoise.fit(exact, 0.9 * exact + 0.02)
    qpeft.set_training_noise(model, noise)
    assert torch.isfinite(model(tokens).logits).all()
