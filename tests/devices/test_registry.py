"""Devices by name."""

import re
from collections.abc import Sequence
from importlib import import_module

import pytest

from qpeft.devices import AbstractDevice, LocalDevice, load_device, registry
from qpeft.errors import DeviceError


class FakeEntry:
    def __init__(self, name, value):
        self.name, self.value = name, value


@pytest.fixture
def install(monkeypatch):
    """A function that makes entry points of the group appear, name to value."""

    def add(*pairs):
        entries = [FakeEntry(*pair) for pair in pairs]
        monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "qpeft.devices" else [])

    return add


@pytest.mark.parametrize("name", registry.DEVICES)
def test_every_row_leads_to_a_device_class(name):
    module, _, class_name = registry.DEVICES[name].partition(":")
    assert issubclass(getattr(import_module(module), class_name), AbstractDevice)


def test_options_reach_the_device():
    device = load_device("local", num_qubits=3, seed=9)
    assert isinstance(device, LocalDevice)
    assert device.capabilities().num_qubits == 3


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    with pytest.raises(DeviceError, match="no device 'locl'; did you mean 'local'"):
        load_device("locl")
    with pytest.raises(DeviceError, match=r"no device 'zzz'\. Known: .*local"):
        load_device("zzz")


def test_an_unknown_option_is_an_error_that_names_the_nearest():
    with pytest.raises(DeviceError, match="no option 'num_qubit'; did you mean 'num_qubits'"):
        load_device("local", num_qubit=3)


class NeedyDevice(LocalDevice):
    def __init__(self, *, chip: str, block: Sequence[int] = (), amend: bool = True):
        super().__init__()
        self.chip, self.block, self.amend = chip, block, amend


def test_a_missing_option_is_an_error(install):
    install(("needy", f"{__name__}:NeedyDevice"))
    with pytest.raises(DeviceError, match=r"'needy' needs the option 'chip'.*options\.chip="):
        load_device("needy")
    assert load_device("needy", chip="72").chip == "72"


def test_options_are_read_in_the_types_that_the_class_names(install):
    install(("needy", f"{__name__}:NeedyDevice"))
    device = load_device("needy", chip=72, amend="no")
    assert (device.chip, device.amend) == ("72", False)


@pytest.mark.parametrize("options", [{"block": "61"}, {"block": [1.5]}, {"block": 5}, {"amend": "perhaps"}])
def test_an_option_of_another_type_is_an_error_that_names_it(install, options):
    install(("needy", f"{__name__}:NeedyDevice"))
    [(name, value)] = options.items()
    with pytest.raises(DeviceError, match=f"Option '{name}' of device 'needy'.*got {re.escape(repr(value))}"):
        load_device("needy", chip="72", **options)


def test_other_packages_add_devices_by_entry_points(install):
    install(("elsewhere", "qpeft.devices.local:LocalDevice"))
    assert isinstance(load_device("elsewhere"), LocalDevice)


def test_a_name_that_two_packages_claim_is_an_error(install):
    install(("local", "other.package:Device"))
    with pytest.raises(DeviceError, match="Two packages have a device 'local'"):
        load_device("local")


@pytest.mark.parametrize("value", ["qpeft.devices.local:_Job", "qpeft.devices.local:Nothing"])
def test_an_entry_point_that_is_no_device_is_an_error(install, value):
    install(("wrong", value))
    with pytest.raises(DeviceError, match=f"{value}, but that is no class of AbstractDevice"):
        load_device("wrong")
