"""Quantum devices by name: ours, and those that other packages add by an entry point of the group `qpeft.devices`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from qpeft.devices.protocol import AbstractDevice
from qpeft.errors import DeviceError

DEVICES: dict[str, str] = {
    "ibm": "qpeft.devices.ibm:IbmDevice",
    "local": "qpeft.devices.local:LocalDevice",
    "origin": "qpeft.devices.origin:OriginDevice",
    "pennylane": "qpeft.devices.pennylane:PennyLaneDevice",
}
"""Name in a recipe to "module:Class". Modules are imported when a device of theirs is asked for."""
GROUP = "qpeft.devices"


def load_device(name: str, **options: Any) -> AbstractDevice:
    """Return the device called `name`, made with `options`, the keywords of its class.

    Raises: DeviceError for an unknown name or option, naming the nearest, for a name that two packages claim, or for a
        row that leads to no device; and whatever the device's class raises.
    """
    devices = known_devices()
    if name not in devices:
        raise DeviceError(f"There is no device {name!r}{_nearest(name, devices)}")
    module, _, class_name = devices[name].partition(":")
    device_class = getattr(import_module(module), class_name, None)
    if not (isinstance(device_class, type) and issubclass(device_class, AbstractDevice)):
        raise DeviceError(f"Device {name!r} should be {devices[name]}, but that is no class of AbstractDevice.")

    # Options are checked before the class is called: its own TypeError would name no nearest one.
    signature = inspect.signature(device_class)
    for option in options:
        if option not in signature.parameters:
            raise DeviceError(f"Device {name!r} has no option {option!r}{_nearest(option, signature.parameters)}")
    needed = [key for key, one in signature.parameters.items() if one.default is one.empty and key not in options]
    if needed:
        raise DeviceError(
            f"Device {name!r} needs the option {needed[0]!r}; in a recipe it stands under device.options, and after a "
            f"command as --device.options.{needed[0]} or --device-option options.{needed[0]}=..."
        )

    # A number becomes a name where the class wants one: chip 72 in YAML.
    lenient = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
    types = get_type_hints(device_class.__init__)
    checked = {}
    for option, value in options.items():
        wanted = types.get(option, Any)
        # pydantic would take true, which YAML reads from yes and on, for 1.
        if isinstance(value, bool) and {int, float} & {wanted, *get_args(wanted)} and bool not in get_args(wanted):
            raise DeviceError(f"Option {option!r} of device {name!r}: a number is needed; got {value!r}.")
        try:
            checked[option] = TypeAdapter(wanted, config=lenient).validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise DeviceError(f"Option {option!r} of device {name!r}: {problem['msg']}; got {value!r}.") from error
    return device_class(**checked)


def known_devices() -> dict[str, str]:
    """Return name to "module:Class" of every installed device. Raises: DeviceError if a name comes twice."""
    found = dict(DEVICES)
    for entry in entry_points(group=GROUP):
        if found.get(entry.name, entry.value) != entry.value:
            raise DeviceError(
                f"Two packages have a device {entry.name!r}: {found[entry.name]} and {entry.value}. Uninstall one."
            )
        found[entry.name] = entry.value
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f". Known: {', '.join(names) or 'none'}."
