"""Adapters of every method leave the lab: as a LoRA that plain PEFT reads, and merged into the base weights."""

import math

import pytest
from peft import PeftModel
from small_adapters import MATRICES, logits
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from qpeft.data import Encoded
from qpeft.exporting import export_lora, merge_adapter
from qpeft.models import load_tokenizer


@pytest.fixture
def texts(tokens):
    """The rows of tokens as examples of which every token is trained on."""
    return [Encoded(row, row, 0, (), "test") for row in tokens.tolist()]


def test_it_is_exported_as_a_lora(base, trained, texts, tokens, tmp_path, method):
    model = trained()
    report = export_lora(model, tmp_path / "lora", calibration=texts, held_out=texts, tolerance=math.inf)
    exported = PeftModel.from_pretrained(base(), tmp_path / "lora")
    assert exported.peft_config["default"].peft_type == "LORA"
    if method in MATRICES:
        assert_close(logits(exported, tokens), logits(model, tokens), atol=1e-4, rtol=1e-4)
        assert report.calibration_tokens == 0
    else:
        assert report.calibration_tokens == tokens.numel()


def test_it_is_merged_into_full_weights(trained, texts, tokens, tiny_model, tmp_path, method):
    model = trained()
    before = logits(model, tokens)
    tokenizer = load_tokenizer(str(tiny_model))
    report = merge_adapter(model, tokenizer, tmp_path / "merged", calibration=texts, held_out=texts, tolerance=math.inf)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    found = logits(merged, tokens)
    if method in MATRICES:
        assert_close(found, before, atol=1e-5, rtol=1e-5)
    assert report.reloaded.maximum == pytest.approx(float((found - before).abs().max()), rel=0.01, abs=1e-4)
