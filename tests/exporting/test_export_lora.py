"""Exported LoRAs, loaded as anybody loads them, against the adapters that they came from."""

import json
import math

import numpy as np
import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch.testing import assert_close

from qpeft import LorettaConfig, QthaConfig
from qpeft.errors import AdapterError, DataError, NotMergeableError, OutputError
from qpeft.exporting import export_lora
from qpeft.exporting.comparison import compare_logits
from qpeft.exporting.report import ENOUGH_TOKENS
from qpeft.exporting.updates import adapted_layers

TARGETS = ["q_proj", "v_proj"]
MATRICES = {
    "loretta": LorettaConfig(rank=4, bond_dimension=5, num_modes=2, target_modules=TARGETS),
    "qtha without a circuit": QthaConfig(rank=4, bottleneck="none", target_modules=TARGETS),
    "lora": LoraConfig(r=3, target_modules=TARGETS),
    "lora on all layers": LoraConfig(r=3, target_modules="all-linear"),
    "loha": LoHaConfig(r=2, target_modules=TARGETS),
    "vera": VeraConfig(r=3, target_modules=["k_proj", "v_proj"]),
    "lokr": LoKrConfig(r=2, target_modules=TARGETS),
}
WAVY = QthaConfig(rank=4, target_modules=TARGETS, depth=2)


def reload(base, folder):
    return PeftModel.from_pretrained(base(), folder)


def stored_config(folder):
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("config", MATRICES.values(), ids=MATRICES)
def test_a_matrix_of_small_rank_is_exported_exactly(trained, base, texts, logits, tmp_path, config):
    model = trained(config)
    before = logits(model, texts[0])
    next(model.parameters()).requires_grad_(True)
    trainable = [weight.requires_grad for weight in model.train().parameters()]
    report = export_lora(model, tmp_path / "lora", held_out=texts)
    assert model.training
    assert [weight.requires_grad for weight in model.parameters()] == trainable
    assert stored_config(tmp_path / "lora")["peft_type"] == "LORA"
    assert_close(logits(reload(base, tmp_path / "lora"), texts[0]), before, atol=1e-4, rtol=1e-4)
    assert report.calibration_tokens == 0
    assert report.logits.maximum < 1e-3
    assert report.kept == pytest.approx(1, abs=1e-4)
    assert torch.equal(logits(model, texts[0]), before)


def test_each_layer_is_cut_to_the_rank_and_the_error_is_that_of_numpy(trained, base, texts, tmp_path):
    model = trained(LoHaConfig(r=3, target_modules=TARGETS))
    deltas = {
        name: module.get_delta_weight("default").detach().numpy()
        for name, module in model.get_base_model().named_modules()
        if name.endswith(("q_proj", "v_proj"))
    }
    report = export_lora(model, tmp_path / "lora", held_out=texts, rank=2, tolerance=math.inf)
    exported = reload(base, tmp_path / "lora")
    for name, delta in deltas.items():
        left, values, right = np.linalg.svd(delta)
        nearest = (left[:, :2] * values[:2]) @ right[:2]
        assert report.layers[name].rank == 2
        assert report.layers[name].svd_error == pytest.approx(
            np.sqrt((values[2:] ** 2).sum() / (values**2).sum()), 1e-4
        )
        found = exported.get_base_model().get_submodule(name).get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(found, nearest, atol=1e-5)


@pytest.mark.parametrize("constant", ["absorb", "keep", "drop"])
@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed but the targeted layer")
def test_the_report_of_a_circuit_is_that_of_its_files(trained, base, texts, logits, tmp_path, constant):
    model = trained(WAVY)
    held_out = texts[:6]
    report = export_lora(
        model, tmp_path / "lora", calibration=texts, held_out=held_out, constant=constant, tolerance=math.inf
    )
    assert report.calibration_tokens == sum(len(one.input_ids) for one in texts)
    exported = reload(base, tmp_path / "lora")
    pairs = [(logits(model, one), logits(exported, one)) for one in held_out]
    assert report.logits.maximum == pytest.approx(max(float((a - b).abs().max()) for a, b in pairs), rel=1e-3)
    divergences = [
        torch.nn.functional.kl_div(other.log_softmax(-1), true.log_softmax(-1), log_target=True, reduction="sum")
        for true, other in pairs
    ]
    assert report.logits.divergence == pytest.approx(float(sum(divergences)) / report.logits.tokens, rel=1e-3)
    labels = [torch.tensor(one.labels[1:]) for one in held_out]
    losses = [
        torch.nn.functional.cross_entropy(other[:-1], label, reduction="sum")
        for (_, other), label in zip(pairs, labels, strict=True)
    ]
    assert report.losses.export == pytest.approx(float(sum(losses)) / report.losses.tokens, rel=1e-4)
    assert stored_config(tmp_path / "lora")["lora_bias"] == (constant == "keep")
    written = json.loads((tmp_path / "lora" / "export_report.json").read_text())
    assert written["layers"].keys() == report.layers.keys()
    assert written["logits"]["maximum"] == report.logits.maximum
    assert written["environment"]["versions"]["torch"] == torch.__version__


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed but the targeted layer")
def test_keeping_the_constant_comes_nearest_and_dropping_it_is_worst(trained, texts, tmp_path):
    missed = {}
    for constant in ("keep", "absorb", "drop"):
        report = export_lora(
            trained(WAVY), tmp_path / constant, calibration=texts, constant=constant, tolerance=math.inf
        )
        missed[constant] = [layer.missed for layer in report.layers.values()]
    assert all(keep < absorb < drop for keep, absorb, drop in zip(*missed.values(), strict=True))


def test_the_adapter_reads_each_text_of_the_probe_once(trained, texts):
    model, seen = trained(WAVY), []
    layers = adapted_layers(model)
    for layer in layers.values():
        layer.branch("default").register_forward_pre_hook(lambda *_: seen.append(None))
    compare_logits(model, layers, {}, texts[:3])
    # Without updates, what is exported is the adapter itself.
    assert len(seen) == 2 * 3 * len(layers)


def test_a_refusal_says_that_few_tokens_decide_nothing(trained, texts, tmp_path):
    options = {"calibration": texts, "rank": 1, "tolerance": 0.0, "held_out": texts[:4]}
    tokens = sum(label != -100 for one in texts[:4] for label in one.labels[1:])
    with pytest.raises(OutputError, match=f"The export would keep .* chance decides on so few as the {tokens} tokens"):
        export_lora(trained(WAVY), tmp_path / "lora", **options)
    many = texts * (ENOUGH_TOKENS // 24 + 1)
    with pytest.raises(OutputError) as caught:
        export_lora(trained(WAVY), tmp_path / "lora", **(options | {"held_out": many}))
    assert "chance" not in str(caught.value)


def test_ranks_that_differ_stand_in_patterns(trained, base, texts, logits, tmp_path):
    name = "model.layers.1.self_attn.v_proj"
    model = trained(QthaConfig(rank=4, bottleneck="none", target_modules=TARGETS, rank_pattern={name: 2}))
    export_lora(model, tmp_path / "lora", held_out=texts)
    config = stored_config(tmp_path / "lora")
    assert (config["r"], config["lora_alpha"]) == (4, 4)
    assert config["rank_pattern"] == config["alpha_pattern"] == {name: 2}
    assert_close(logits(reload(base, tmp_path / "lora"), texts[0]), logits(model, texts[0]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "targets"),
    [({}, TARGETS), ({"layers_to_transform": [1]}, [f"model.layers.1.self_attn.{name}" for name in TARGETS])],
    ids=["all", "one layer"],
)
def test_targets_are_named_briefly_where_that_names_no_other(trained, base, texts, logits, tmp_path, options, targets):
    model = trained(QthaConfig(rank=4, bottleneck="none", target_modules=TARGETS, **options))
    export_lora(model, tmp_path / "lora", held_out=texts)
    assert stored_config(tmp_path / "lora")["target_modules"] == targets
    assert_close(logits(reload(base, tmp_path / "lora"), texts[0]), logits(model, texts[0]), atol=1e-4, rtol=1e-4)


def test_modules_trained_in_full_go_along(trained, base, texts, logits, tmp_path):
    model = trained(LorettaConfig(rank=4, bond_dimension=5, target_modules=TARGETS, modules_to_save=["lm_head"]))
    report = export_lora(model, tmp_path / "lora", held_out=texts)
    assert report.logits.maximum < 1e-3
    assert_close(logits(reload(base, tmp_path / "lora"), texts[0]), logits(model, texts[0]), atol=1e-4, rtol=1e-4)


def test_the_card_carries_base_notice_and_figures(trained, texts, tmp_path):
    report = export_lora(
        trained(MATRICES["lora"]), tmp_path / "lora", held_out=texts, base_name="owner/model", notice="No therapist."
    )
    card = (tmp_path / "lora" / "README.md").read_text()
    assert 'from_pretrained("owner/model")' in card
    assert "> **No therapist.**" in card
    assert f"{report.losses.export:.4f}" in card
    assert card.count("| model.layers.") == 4
    assert stored_config(tmp_path / "lora")["base_model_name_or_path"] == "owner/model"


def test_what_loses_more_than_the_tolerance_is_not_written(trained, texts, tmp_path):
    model = trained(LoHaConfig(r=3, target_modules=TARGETS))
    with pytest.raises(OutputError, match=r"would keep .*% of .* must keep 100.0%. Nothing was written. Raise --rank"):
        export_lora(model, tmp_path / "lora", held_out=texts, rank=1, tolerance=0)
    assert list(tmp_path.iterdir()) == []


def test_without_held_out_text_divergence_decides(trained, texts, tmp_path):
    report = export_lora(trained(WAVY), tmp_path / "lora", calibration=texts, tolerance=math.inf)
    assert report.losses is None
    assert "divergence" in report.criterion
    assert report.kept == 1 - report.logits.divergence / report.base_logits.divergence
    probe = texts[-3:]
    assert report.logits.tokens == sum(len(one.input_ids) for one in probe)
    assert report.calibration_tokens == sum(len(one.input_ids) for one in texts[:-3])


def test_an_untrained_adapter_is_refused(base, texts, tmp_path):
    for config in (WAVY, MATRICES["loretta"], MATRICES["lora"]):
        model = get_peft_model(base(), config)
        with pytest.raises(AdapterError, match=r"changes nothing.*Train it first"):
            export_lora(model, tmp_path / "lora", calibration=texts, held_out=texts)
    assert list(tmp_path.iterdir()) == []


def test_several_active_adapters_are_refused(trained, texts, tmp_path):
    model = trained(MATRICES["lora"])
    model.add_adapter("second", LoraConfig(r=2, target_modules=TARGETS))
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(AdapterError, match=r"2 adapters are active \(default, second\)"):
        export_lora(model, tmp_path / "lora", held_out=texts)


def test_one_adapter_of_several_is_exported_alone(trained, base, texts, logits, tmp_path):
    model = trained(MATRICES["lora"])
    expected = logits(model, texts[0])
    model.add_adapter("second", LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False))
    model.set_adapter("default")
    export_lora(model, tmp_path / "lora", held_out=texts)
    assert_close(logits(reload(base, tmp_path / "lora"), texts[0]), expected, atol=1e-4, rtol=1e-4)


def test_weights_that_are_not_finite_are_refused(trained, texts, tmp_path):
    model = trained(MATRICES["loretta"])
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.requires_grad).fill_(math.nan)
    with pytest.raises(AdapterError, match="have overflowed or hold NaN; take an earlier checkpoint"):
        export_lora(model, tmp_path / "lora", held_out=texts, tolerance=math.inf)


def test_a_merged_adapter_is_refused(trained, texts, tmp_path):
    model = trained(MATRICES["loretta"])
    model.merge_adapter()
    with pytest.raises(AdapterError, match=r"merged into .*unmerge_adapter"):
        export_lora(model, tmp_path / "lora", held_out=texts)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (IA3Config(target_modules=TARGETS, feedforward_modules=[]), "adds no matrix to its layer"),
        (LoraConfig(r=2, target_modules=TARGETS, use_dora=True), "adds no matrix to its layer"),
        (MissConfig(r=2, target_modules=TARGETS), "save_as_lora"),
    ],
    ids=["ia3", "dora", "miss"],
)
def test_methods_whose_matrix_cannot_be_had_are_refused(trained, texts, tmp_path, config, message):
    with pytest.raises(NotMergeableError, match=message):
        export_lora(trained(config), tmp_path / "lora", held_out=texts)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rank": 0}, AdapterError, "rank must be a whole number of at least 1; got 0"),
        ({"tolerance": -0.1}, OutputError, "tolerance is the share that may be lost"),
        ({"calibration": []}, DataError, "there is no calibration text"),
        ({"calibration": [], "held_out": []}, DataError, "compared with the adapter on text, and there is none"),
    ],
    ids=["rank", "tolerance", "no calibration text", "no text"],
)
def test_bad_requests_are_refused_and_nothing_is_written(trained, texts, tmp_path, options, error, message):
    given = {"calibration": texts, "held_out": texts[:2]} | options
    with pytest.raises(error, match=message):
        export_lora(trained(WAVY), tmp_path / "lora", **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_output_that_is_there_stays_as_it_was(trained, texts, tmp_path, kind):
    output = tmp_path / "lora"
    kept = output if kind == "file" else output / "kept.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(OutputError, match="is a file" if kind == "file" else "is not empty"):
        export_lora(trained(MATRICES["lora"]), output, held_out=texts)
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": "all"}, "was trained with bias, which changes more"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changes the base weights"),
    ],
    ids=["bias", "pissa"],
)
def test_a_lora_that_changes_more_than_it_adds_is_refused(trained, texts, tmp_path, options, message):
    with pytest.raises(AdapterError, match=message):
        export_lora(trained(LoraConfig(r=2, target_modules=TARGETS, **options)), tmp_path / "lora", held_out=texts)


def adapter_weights(folder):
    return load_file(folder / "adapter_model.safetensors")


LORAS = {
    "plain": {"r": 8, "lora_alpha": 16},
    "rank and alpha patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"layers.0.self_attn.q_proj": 7},
        "alpha_pattern": {"v_proj": 3},
    },
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},  # 6 / sqrt(4) * 4 is 12: a whole lora_alpha
    "one layer": {"r": 3, "layers_to_transform": [1]},
    "with a head in full": {"r": 3, "modules_to_save": ["lm_head"]},
    "started gaussian": {"r": 3, "init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("options", LORAS.values(), ids=LORAS)
def test_a_lora_is_exported_as_itself_without_any_text(trained, base, texts, logits, tmp_path, options):
    model = trained(LoraConfig(target_modules=TARGETS, **options))
    report = export_lora(model, tmp_path / "lora")
    stored = adapter_weights(tmp_path / "lora")
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert stored.keys() == own.keys()
    assert all(torch.equal(stored[name], weight) for name, weight in own.items())
    config = stored_config(tmp_path / "lora")
    assert not config["use_rslora"]
    assert isinstance(config["lora_alpha"], int)
    again = reload(base, tmp_path / "lora")
    scalings = {name: layer.scaling["default"] for name, layer in adapted_layers(model).items()}
    assert {name: layer.scaling["default"] for name, layer in adapted_layers(again).items()} == scalings
    assert torch.equal(logits(again, texts[0]), logits(model, texts[0]))
    assert (report.kept, report.logits, report.losses) == (1.0, None, None)
    assert "copied as they are" in (tmp_path / "lora" / "README.md").read_text()


def test_the_scaling_of_rslora_goes_into_the_weights_where_no_whole_alpha_says_it(
    trained, base, texts, logits, tmp_path
):
    model = trained(LoraConfig(r=8, lora_alpha=16, use_rslora=True, target_modules=TARGETS))
    export_lora(model, tmp_path / "lora")
    stored, config = adapter_weights(tmp_path / "lora"), stored_config(tmp_path / "lora")
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (8, 8, False)
    for name, weight in get_peft_model_state_dict(model).items():
        if "lora_A" in name:
            assert torch.equal(stored[name], weight)
        else:
            assert_close(stored[name], 16 / math.sqrt(8) * weight, rtol=1e-6, atol=0)
    assert_close(logits(reload(base, tmp_path / "lora"), texts[0]), logits(model, texts[0]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_lora_in_half_precision_keeps_its_rank_and_its_weights(trained, texts, tmp_path, dtype):
    model = trained(LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS))
    own = {name: weight.to(dtype) for name, weight in get_peft_model_state_dict(model).items()}
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.to(dtype)
    export_lora(model, tmp_path / "lora")
    assert (stored_config(tmp_path / "lora")["r"], stored_config(tmp_path / "lora")["rank_pattern"]) == (8, {})
    stored = adapter_weights(tmp_path / "lora")
    assert all(torch.equal(stored[name], weight) for name, weight in own.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_method_that_gives_its_matrix_in_half_precision_keeps_its_rank(trained, texts, tmp_path, dtype):
    model = trained(LoHaConfig(r=2, target_modules=TARGETS))
    for name, weight in model.named_parameters():
        if "hada_" in name:
            weight.data = weight.data.to(dtype)
    report = export_lora(model, tmp_path / "lora", calibration=texts)
    # Two matrices of rank 2, multiplied entry by entry.
    assert {layer.rank for layer in report.layers.values()} == {4}


def test_a_lora_that_is_cut_loses_what_numpy_says(trained, texts, tmp_path):
    model = trained(LoraConfig(r=6, lora_alpha=12, target_modules=TARGETS))
    deltas = {name: layer.get_delta_weight("default").detach().numpy() for name, layer in adapted_layers(model).items()}
    report = export_lora(model, tmp_path / "lora", held_out=texts, rank=2, tolerance=math.inf)
    for name, delta in deltas.items():
        values = np.linalg.svd(delta, compute_uv=False)
        assert report.layers[name].rank == 2
        assert report.layers[name].svd_error == pytest.approx(np.linalg.norm(values[2:]) / np.linalg.norm(values))
    with pytest.raises(DataError, match="compared with the adapter on text, and there is none"):
        export_lora(model, tmp_path / "other", rank=2)


def test_a_head_may_be_among_the_layers_that_are_measured(trained, base, texts, logits, tmp_path):
    model = trained(LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    report = export_lora(model, tmp_path / "lora", held_out=texts)
    assert report.losses.export == pytest.approx(report.losses.adapter, abs=1e-5)
    assert torch.equal(logits(reload(base, tmp_path / "lora"), texts[0]), logits(model, texts[0]))


@pytest.mark.parametrize(
    "options",
    [{"use_dora": True}, {"bias": "lora_only"}, {"trainable_token_indices": [1, 2]}],
    ids=["dora", "bias", "tokens"],
)
def test_a_lora_that_is_more_than_its_matrices_is_refused_with_the_way_out(trained, texts, tmp_path, options):
    model = trained(LoraConfig(r=2, target_modules=TARGETS, **options))
    with pytest.raises((AdapterError, NotMergeableError), match=r"PEFT loads (its|their) folder as it is"):
        export_lora(model, tmp_path / "lora", held_out=texts)
    assert list(tmp_path.iterdir()) == []


def test_all_that_takes_long_says_how_far_it_is(trained, texts, tmp_path):
    told = []
    export_lora(
        trained(WAVY), tmp_path / "lora", calibration=texts, held_out=texts, tolerance=math.inf,
        on_progress=lambda what, done, total: told.append((what, done, total)),
    )  # fmt: skip
    stages = list(dict.fromkeys(what for what, _, _ in told))
    assert stages[:3] == ["calibration text", "linear maps", "logits"]
    assert stages[3:] == ["held-out loss of adapter, base and export", "writing"]
    for stage in stages[:4]:
        done, totals = [row[1] for row in told if row[0] == stage], {row[2] for row in told if row[0] == stage}
        assert done == sorted(done)
        assert totals == {done[-1]}
