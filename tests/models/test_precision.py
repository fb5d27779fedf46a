"""The type of base weights, by hardware or as the recipe says."""

import pytest
import torch

from qpeft.models import choose_precision


@pytest.fixture
def gpu(monkeypatch):
    """A function: pretend that there is a GPU which does or does not compute in bfloat16."""

    def pretend(bfloat16):
        from contextlib import nullcontext

        monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
        return torch.device("cuda")

    return pretend


def test_a_cpu_computes_in_float32_and_says_why():
    chosen = choose_precision("auto", torch.device("cpu"))
    assert chosen.dtype == "float32"
    assert "several times slower" in str(chosen)


@pytest.mark.parametrize(("bfloat16", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_bfloat16_if_it_can(gpu, bfloat16, dtype):
    assert choose_precision("auto", gpu(bfloat16)).dtype == dtype


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_what_the_recipe_says_is_obeyed_everywhere(gpu, wanted):
    for device in (torch.device("cpu"), gpu(True), gpu(False)):
        assert choose_precision(wanted, device).dtype == wanted
