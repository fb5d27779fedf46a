"""`load_adapter` beyond what the contracts ask of every method: adapters of PEFT, and options of QTHA."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "embed_tokens"]])
def test_an_adapter_of_peft_loads_too(make_model, shake, tokens, tmp_path, targets):
    saved = shake(get_peft_model(make_model(), LoraConfig(r=2, target_modules=targets))).eval()
    saved.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_adapter(make_model(), tmp_path)(tokens).logits, saved(tokens).logits)


def test_an_option_of_qtha_with_an_unknown_choice_names_the_known_ones(make_model, adapt, tmp_path):
    adapt().save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bottleneck": "sine"}))
    with pytest.raises(AdapterError, match="bottleneck must be one of"):
        load_adapter(make_model(), tmp_path)
