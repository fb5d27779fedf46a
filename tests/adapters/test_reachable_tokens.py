"""Tokens that cannot reach the loss are not sent, and neither loss nor gradients notice."""

import pytest
import torch
from torch.testing import assert_close

import qpeft
from qpeft.adapters.qtha.quantum_device import reachable_tokens
from qpeft.devices import LocalDevice, run_now
from qpeft.errors import AdapterError


class Recorder:
    """A runner that remembers numbers of circuits."""

    def __init__(self):
        self.sizes = []

    def __call__(self, device, circuits, shots, *, key):
        self.sizes.append(len(circuits))
        return run_now(device, circuits, shots, key=key)


@pytest.fixture
def model(adapt, shake):
    return shake(adapt(num_qubits=2))


@pytest.fixture
def tokens():
    """Four rows of eight tokens, all different, since equal circuits would be sent once."""
    return 1 + torch.randperm(63, generator=torch.Generator().manual_seed(2))[:32].reshape(4, 8)


def batch(tokens, case):
    """Inputs of a model, labels among them, and how many tokens can reach their loss."""
    labels, mask = tokens.clone(), torch.ones_like(tokens)
    expected = 4 * 7  # nothing comes after the last token
    if case == "prompt and nothing after it":
        labels[:, :3] = -100
    elif case == "answer in the bottleneck":
        labels[:, :2], labels[:, 5:] = -100, -100
        expected = 4 * 4
    elif case == "padded right":
        mask[0, 5:], mask[1, 2:] = 0, 0
        labels[mask == 0] = -100
        expected = 4 + 1 + 7 + 7
    elif case == "padded left":
        mask[0, :3], mask[1, :6] = 0, 0
        labels[mask == 0] = -100
        labels[0, 3], labels[1, 6] = -100, -100
        expected = 4 + 1 + 7 + 7
    elif case == "padded left, first token trained":
        mask[0, :3] = 0
        labels[mask == 0] = -100
        expected = 8 + 7 + 7 + 7
    elif case == "a row without labels":
        labels[2] = -100
        expected = 3 * 7
    return {"input_ids": tokens, "labels": labels, "attention_mask": mask}, expected


CASES = [
    "all trained",
    "prompt and nothing after it",
    "answer in the bottleneck",
    "padded right",
    "padded left",
    "padded left, first token trained",
    "a row without labels",
]


def loss_and_gradients(model, inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loss_and_gradients_are_those_of_all_tokens(make_model, adapt, shake, tokens, case, attention):
    model = shake(adapt(make_model(attn_implementation=attention), num_qubits=2))
    inputs, expected = batch(tokens, case)
    recorder = Recorder()
    # On every layer, so that zeros in the first are read by the second.
    evaluator = qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="simulated", runner=recorder)
    loss, gradients = loss_and_gradients(model, inputs)
    assert set(recorder.sizes) == {2 * tokens.numel()}
    recorder.sizes.clear()
    evaluator.tokens = reachable_tokens(inputs["attention_mask"], inputs["labels"])
    found, found_gradients = loss_and_gradients(model, inputs)
    assert set(recorder.sizes) == {2 * expected}
    assert_close(found, loss, atol=1e-6, rtol=0)
    assert gradients.keys() == found_gradients.keys()
    for name, gradient in gradients.items():
        assert_close(found_gradients[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_the_answer_is_the_same_as_by_changing_tokens_one_by_one(make_model, tokens):
    model = make_model()
    inputs, _ = batch(tokens, "padded left")
    inputs["labels"][3, 6:] = -100
    embeddings = model.get_input_embeddings()(tokens).detach().requires_grad_()
    model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"], labels=inputs["labels"]).loss.backward()
    found = reachable_tokens(inputs["attention_mask"], inputs["labels"])
    assert torch.equal(found, embeddings.grad.ne(0).any(-1))


def test_without_a_mask_only_the_labels_count():
    labels = torch.tensor([[-100, 5, -100, 7, -100], [-100] * 5, [3, -100, -100, -100, -100]])
    expected = torch.tensor([[True, True, True, False, False], [False] * 5, [False] * 5])
    assert torch.equal(reachable_tokens(None, labels), expected)


def test_values_outside_the_mask_are_zeros_and_have_no_gradient(model):
    evaluator = qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="simulated")
    bottleneck = model.get_submodule("base_model.model.model.layers.1.self_attn.v_proj").qtha_branch["default"].middle
    h = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    everything = bottleneck(h)
    evaluator.tokens = torch.tensor([[True, False, True], [False, False, True]])
    values = bottleneck(h)
    assert torch.equal(values[~evaluator.tokens], torch.zeros(3, 4))
    assert torch.equal(values[evaluator.tokens], everything[evaluator.tokens])
    values.square().sum().backward()
    assert torch.equal(h.grad.ne(0).any(-1), evaluator.tokens)


@pytest.mark.parametrize(
    "tokens_mask",
    [torch.ones(4, 7, dtype=torch.bool), torch.ones(32, dtype=torch.bool), torch.ones(4, 8, dtype=torch.long)],
)
def test_a_mask_that_does_not_fit_is_refused_before_anything_is_sent(model, tokens, tokens_mask):
    recorder = Recorder()
    evaluator = qpeft.set_quantum_device(model, LocalDevice(), shots=None, runner=recorder)
    evaluator.tokens = tokens_mask
    with pytest.raises(AdapterError, match=r"here \(4, 8\); got .*Set it for each forward pass, or None"):
        model(tokens)
    assert recorder.sizes == []


def test_generating_with_the_mask_of_a_training_step_is_refused_and_works_without(model, tokens):
    evaluator = qpeft.set_quantum_device(model, LocalDevice(), shots=None)
    expected = model.generate(input_ids=tokens[:, :4], max_new_tokens=3, do_sample=False)
    evaluator.tokens = reachable_tokens(None, tokens)
    with pytest.raises(AdapterError, match="as generating needs"):
        model.generate(input_ids=tokens[:, :4], max_new_tokens=3, do_sample=False)
    evaluator.tokens = None
    assert torch.equal(model.generate(input_ids=tokens[:, :4], max_new_tokens=3, do_sample=False), expected)


@pytest.mark.parametrize(
    ("mask", "labels"), [(torch.ones(2, 3), torch.zeros(2, 4).long()), (None, torch.zeros(2, 4, 1).long())]
)
def test_shapes_that_are_not_batch_and_sequence_are_refused(mask, labels):
    with pytest.raises((AdapterError, TypeError), match=r"both \(batch, sequence\)|labels"):
        reachable_tokens(mask, labels)
