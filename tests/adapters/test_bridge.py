"""The bridge into PEFT: our methods become members of its enum, once, everywhere."""

import copy
import pickle
import subprocess
import sys

import pytest
from peft import LoraConfig, PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from qpeft import QthaConfig, QthaModel
from qpeft.adapters import ADAPTERS, bridge

IN_A_NEW_PROCESS = """
import importlib, pickle, sys
import peft
assert "QTHA" not in peft.PeftType.__members__
config = pickle.loads(bytes.fromhex(sys.argv[1]))
assert "qpeft" in sys.modules
import qpeft.adapters
importlib.reload(qpeft.adapters)
assert peft.PeftType("QTHA") is config.peft_type
print(config.rank)
"""


def test_qtha_is_a_member_by_value_by_name_and_by_attribute():
    member = PeftType("QTHA")
    assert member is PeftType["QTHA"] is PeftType.QTHA is bridge.peft_type("QTHA")
    assert member == "QTHA"
    assert member.value == member.name == "QTHA"
    assert member in list(PeftType)
    assert "QTHA" in PeftType.__members__


def test_the_member_survives_copies_and_pickles():
    member = PeftType("QTHA")
    assert copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is member
    assert {member: 1}[PeftType("QTHA")] == 1


def test_adding_a_member_leaves_the_others():
    assert PeftType("LORA") is PeftType.LORA
    assert len({member.value for member in PeftType}) == len(list(PeftType))


def test_registering_twice_changes_nothing():
    before = [dict(table) for table in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING)]
    for name, (config_class, model_class) in ADAPTERS.items():
        bridge.register(name, config_class=config_class, model_class=model_class)
    assert [dict(table) for table in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING)] == before


def test_a_name_that_peft_uses_for_another_method_is_refused():
    with pytest.raises(KeyError, match=r"PEFT already has a method 'lora', of peft.tuners.lora"):
        bridge.register("lora", config_class=QthaConfig, model_class=QthaModel)
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.LORA] is LoraConfig


def test_a_second_model_for_a_known_config_is_refused():
    model_class = type("Other", (QthaModel,), {})
    with pytest.raises(KeyError, match="PEFT already has a method 'qtha'"):
        bridge.register("qtha", config_class=QthaConfig, model_class=model_class)
    assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.QTHA] is QthaModel


@pytest.mark.parametrize("name", ADAPTERS)
def test_prefixes_are_those_that_transformers_derives(name):
    config_class, model_class = ADAPTERS[name]
    member = PeftType(name.upper())
    assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == model_class.prefix == f"{member.value.lower()}_"
    assert issubclass(config_class, PeftConfig)
    assert all(
        attribute.startswith(model_class.prefix) for attribute in model_class.tuner_layer_cls.adapter_layer_names
    )


def test_config_classes_lists_ours_beside_those_of_peft():
    classes = bridge.config_classes()
    assert classes["qtha"] is QthaConfig
    assert classes["lora"] is LoraConfig


@pytest.mark.slow
def test_unpickling_a_config_registers_the_method_in_a_new_process_and_a_reload_does_no_harm():
    pickled = pickle.dumps(QthaConfig(rank=6)).hex()
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, pickled], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr
