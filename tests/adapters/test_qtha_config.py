"""Options: what is refused and in which words, and that they survive files, copies and other processes."""

import copy
import dataclasses
import json
import multiprocessing
import pickle

import pytest
from peft import PeftConfig

from qpeft import QthaConfig
from qpeft.adapters.qtha.config import CHOICES
from qpeft.errors import AdapterError, UnknownOptionError

EVERYTHING = {
    "format_version": 1,
    "rank": 8,
    "alpha": 12.5,
    "dropout": 0.1,
    "target_modules": ["v_proj", "q_proj"],
    "exclude_modules": ["lm_head"],
    "layers_to_transform": [0, 2],
    "layers_pattern": "layers",
    "modules_to_save": ["lm_head"],
    "rank_pattern": {"v_proj": 4},
    "alpha_pattern": {"v_proj": 3.0},
    "down": "mpo",
    "up": "dense",
    "num_cores": 4,
    "inner_features": 16,
    "bond_dimension": 3,
    "parameter_share": 0.4,
    "factor_init": "kaiming",
    "bottleneck": "frozen_circuit",
    "mlp_layers": 2,
    "ansatz": "ring_cz",
    "num_qubits": 4,
    "depth": 2,
    "reupload": False,
    "input_scaling": "tanh",
    "encoding_offset": 0.25,
    "angle_init": "uniform",
    "classical_path": True,
    "fusion": "hadamard",
    "init_seed": 3,
    "init": "gradient",
    "init_batches": 3,
}


@pytest.mark.parametrize(
    ("option", "value", "nearest"),
    [
        ("bottleneck", "circiut", "circuit"),
        ("bottleneck", "frozen", "frozen_circuit"),
        ("down", "mps", "mpo"),
        ("up", "densee", "dense"),
        ("fusion", "hadamar", "hadamard"),
        ("input_scaling", "tan", "tanh"),
        ("angle_init", "near-zero", "near_zero"),
        ("factor_init", "orthonormal", "orthogonal"),
    ],
)
def test_an_unknown_choice_lists_the_known_and_names_the_nearest(option, value, nearest):
    with pytest.raises(AdapterError) as caught:
        QthaConfig(**{option: value})
    message = str(caught.value)
    assert message.startswith(f"{option} must be one of {', '.join(CHOICES[option])}; got '{value}'")
    assert message.endswith(f"did you mean '{nearest}'?")


def test_an_unknown_ansatz_names_the_nearest():
    with pytest.raises(AdapterError, match=r"no ansatz 'ring_crx'\. Did you mean 'ring_crz'"):
        QthaConfig(ansatz="ring_crx")


@pytest.mark.parametrize(("given", "ours"), [("r", "rank"), ("lora_alpha", "alpha"), ("bond_dim", "bond_dimension")])
def test_an_unknown_option_names_the_nearest(given, ours):
    with pytest.raises(UnknownOptionError, match=f"argument '{given}'; did you mean '{ours}'"):
        QthaConfig(**{given: 8})


@pytest.mark.parametrize("option", CHOICES)
@pytest.mark.parametrize("value", ["xyzzy", "", None, 1])
def test_a_choice_near_none_lists_the_known(option, value):
    with pytest.raises(AdapterError, match=f"{option} must be one of .*; got {value!r}"):
        _config(option, value)


@pytest.mark.parametrize("option", ["rank", "num_cores", "depth", "num_qubits", "inner_features", "bond_dimension"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_sizes_are_whole_numbers_of_at_least_one(option, value):
    with pytest.raises(AdapterError, match=f"{option} must be a whole number of at least 1; got {value!r}"):
        _config(option, value)


@pytest.mark.parametrize("option", ["rank", "num_cores", "depth"])
def test_sizes_that_follow_nothing_cannot_be_left_unset(option):
    with pytest.raises(AdapterError, match=f"{option} must be a whole number of at least 1; got None"):
        _config(option, None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1; got -0.1."),
        ({"dropout": float("nan")}, "dropout must be at least 0 and below 1; got nan."),
        ({"parameter_share": 0.0}, "parameter_share must be above 0 and at most 1; got 0.0."),
        ({"parameter_share": 1.5}, "parameter_share must be above 0 and at most 1; got 1.5."),
        ({"alpha": float("inf")}, "alpha must be a finite number; got inf."),
        ({"alpha": "16"}, "alpha must be a finite number; got '16'."),
        ({"encoding_offset": float("nan")}, "encoding_offset must be a finite number; got nan."),
        ({"alpha_pattern": {"q": None}}, "alpha_pattern['q'] must be a finite number; got None."),
        ({"rank_pattern": {"q": 0}}, "rank_pattern['q'] must be a whole number of at least 1; got 0."),
        ({"classical_path": "no"}, "classical_path must be true or false; got 'no'."),
        ({"reupload": 1}, "reupload must be true or false; got 1."),
        ({"mlp_layers": 1}, "mlp_layers must be a whole number of at least 2; got 1."),
        ({"mlp_layers": 2.5}, "mlp_layers must be a whole number of at least 2; got 2.5."),
        ({"init_seed": "one"}, "init_seed must be a whole number or left unset; got 'one'."),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_with_its_range(options, sentence):
    with pytest.raises(AdapterError) as caught:
        _config(*next(iter(options.items())))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("rank", "num_qubits", "qubits", "ranks"),
    [
        (10, 8, "5 or 10", "for 8 qubit(s): 8 or 16"),
        (8, 3, "2 or 4", "for 3 qubit(s): 6 or 9"),
        (6, 12, "3 or 6", "for 12 qubit(s): 12"),
        (32, 16, "4 or 8", "for 12 qubit(s): 24 or 36"),
    ],
)
def test_a_rank_that_does_not_split_names_the_nearest_pairs_that_do(rank, num_qubits, qubits, ranks):
    with pytest.raises(AdapterError) as caught:
        QthaConfig(rank=rank, num_qubits=num_qubits)
    message = str(caught.value)
    assert message.startswith(f"rank {rank} cannot be split into circuits of {num_qubits} qubit(s)")
    assert f"Nearest valid num_qubits for rank {rank}: {qubits}; " in message
    assert message.endswith(f"{ranks}.")
    for valid in qubits.split(" or "):
        QthaConfig(rank=rank, num_qubits=int(valid))
    for valid in ranks.split(": ")[1].split(" or "):
        QthaConfig(rank=int(valid), num_qubits=min(num_qubits, 12))


def test_without_a_number_of_qubits_it_is_the_largest_divisor_that_a_circuit_can_have():
    found = {
        rank: QthaConfig(rank=rank).qubits_per_circuit(rank) for rank in (1, 8, 11, 12, 14, 16, 24, 26, 32, 64, 128)
    }
    assert found == {1: 1, 8: 8, 11: 11, 12: 12, 14: 7, 16: 8, 24: 12, 26: 2, 32: 8, 64: 8, 128: 8}


@pytest.mark.parametrize(("rank", "near"), [(13, "12 or 14"), (31, "30 or 32"), (37, "36 or 38"), (169, "168 or 170")])
def test_a_rank_without_such_a_divisor_names_the_nearest_that_have_one(rank, near):
    with pytest.raises(
        AdapterError, match=rf"rank {rank} cannot be split .*Nearest ranks that can: {near}\. num_qubits"
    ):
        QthaConfig(rank=rank)
    for valid in near.split(" or "):
        QthaConfig(rank=int(valid))
    assert QthaConfig(rank=rank, num_qubits=1).qubits_per_circuit(rank) == 1
    assert QthaConfig(rank=rank, bottleneck="none").rank == rank


def test_a_rank_of_the_pattern_must_split_too():
    with pytest.raises(AdapterError, match="rank 17 cannot be split into circuits of 2 to 12"):
        QthaConfig(rank=16, rank_pattern={"v_proj": 17})
    with pytest.raises(AdapterError, match="rank 6 cannot be split into circuits of 4"):
        QthaConfig(rank=8, num_qubits=4, rank_pattern={"v_proj": 6})


@pytest.mark.parametrize("bottleneck", ["mlp", "hilbert", "none"])
def test_without_a_circuit_any_rank_goes(bottleneck):
    assert QthaConfig(rank=64, bottleneck=bottleneck).rank == 64


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"fusion": "hadamard", "classical_path": False},
            "multiplies two paths: it needs a bottleneck and",
        ),
        (
            {"fusion": "hadamard", "bottleneck": "none"},
            "multiplies two paths: it needs a bottleneck and",
        ),
        ({"down": "dense", "up": "dense", "inner_features": 8}, "belong to 'mpo'; with dense factors leave them unset"),
        ({"down": "dense", "up": "dense", "bond_dimension": 8}, "belong to 'mpo'; with dense factors leave them unset"),
        ({"down": "bare_mpo", "up": "dense", "inner_features": 8}, "the inner width of a 'bare_mpo' is the rank"),
        ({"mlp_layers": 3}, "mlp_layers belongs to bottleneck='mlp'; with 'circuit' leave it at 2"),
        ({"bottleneck": "classical_form"}, "ansatz='ring_cz' of depth=1 alone; got 'ring_crz' of depth 1"),
        (
            {"bottleneck": "classical_form", "ansatz": "ring_cz", "depth": 2},
            "alone; got 'ring_cz' of depth 2. Choose those",
        ),
        ({"bottleneck": "hilbert", "rank": 2}, "needs a rank of at least 3; got 2"),
        ({"bottleneck": "hilbert", "rank_pattern": {"v_proj": 1}}, "needs a rank of at least 3; got 1"),
        ({"bottleneck": "sinusoid", "rank": 17}, "rank 17 cannot be split into circuits of 2 to 12 qubits"),
        ({"target_modules": ".*q", "layers_to_transform": 1}, "need target_modules as a list, not as a string"),
        ({"target_modules": ["q"], "layers_pattern": "h"}, "set layers_to_transform too"),
    ],
    ids=str,
)
def test_options_at_odds_with_each_other_are_refused(options, sentence):
    with pytest.raises(AdapterError, match=sentence):
        QthaConfig(**options)


def test_every_option_is_described():
    ours = {field.name: field for field in dataclasses.fields(QthaConfig)}
    inherited = {field.name for field in dataclasses.fields(PeftConfig)}
    for name in ours.keys() - inherited:
        assert ours[name].metadata["help"].endswith((".", "]")), name


def test_all_options_return_from_a_file(tmp_path):
    assert EVERYTHING.keys() == {f.name for f in dataclasses.fields(QthaConfig)} - {
        f.name for f in dataclasses.fields(PeftConfig)
    }
    config = QthaConfig(**EVERYTHING)
    config.save_pretrained(tmp_path)
    for config_class in (QthaConfig, PeftConfig):
        again = config_class.from_pretrained(tmp_path)
        assert type(again) is QthaConfig
        assert dataclasses.asdict(again) == dataclasses.asdict(config)


def test_the_file_is_json_with_lists_and_names(tmp_path):
    QthaConfig(**EVERYTHING).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert stored["peft_type"] == "QTHA"
    assert sorted(stored["target_modules"]) == ["q_proj", "v_proj"]
    assert stored["encoding_offset"] == 0.25


def test_a_file_with_an_unknown_choice_is_refused_by_its_name(tmp_path):
    QthaConfig().save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bottleneck": "sine"}))
    with pytest.raises(AdapterError, match=r"bottleneck must be one of .*; got 'sine'"):
        PeftConfig.from_pretrained(tmp_path)


def test_copies_and_pickles_are_equal():
    config = QthaConfig(**EVERYTHING)
    for twin in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert twin == config
        assert twin.peft_type is config.peft_type


def test_the_paper_preset_takes_overrides():
    config = QthaConfig.paper(rank=6, depth=6, target_modules=["k_proj"], alpha=1.0)
    assert (config.rank, config.depth, config.alpha, config.num_cores) == (6, 6, 1.0, 4)
    assert config.target_modules == {"k_proj"}
    assert QthaConfig.paper(rank=6).alpha == 12


@pytest.mark.slow
def test_a_config_reaches_a_spawned_process_that_has_imported_nothing():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # The function is not ours, so the child imports qpeft only by unpickling its argument.
        assert pool.apply(copy.copy, (QthaConfig(**EVERYTHING),)) == QthaConfig(**EVERYTHING)


def _config(option, value):
    """A config checked as outside of tests, where no type checker stands before the constructor."""
    config = QthaConfig()
    setattr(config, option, value)
    config.__post_init__()
    return config
