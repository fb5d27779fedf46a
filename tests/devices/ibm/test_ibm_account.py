"""Whose account it is, what is said if there is none, and that its key is never said."""

import json
import sys
import traceback
from types import ModuleType

import pytest
from ibm_cloud import BACKEND, KEY

from qpeft.devices import load_device
from qpeft.devices.ibm.service import find_token
from qpeft.errors import CredentialsError, DeviceError

WRONG = "a-wr0ng-k3y-that-nobody-may-see"


@pytest.fixture
def keyring(monkeypatch, no_account):
    """A function: a keyring that holds a key, or raises an error of its own by name."""

    def make(key=None, error=None):
        module, errors = ModuleType("keyring"), ModuleType("keyring.errors")
        errors.KeyringError = type("KeyringError", (Exception,), {})
        errors.NoKeyringError = type("NoKeyringError", (errors.KeyringError, RuntimeError), {})

        def get_password(service, user):
            if error is not None:
                raise getattr(errors, error)("locked")
            return key if (service, user) == ("qpeft", "ibm") else None

        module.get_password, module.errors = get_password, errors
        monkeypatch.setitem(sys.modules, "keyring", module)
        monkeypatch.setitem(sys.modules, "keyring.errors", errors)

    return make


def test_without_an_account_it_is_said_how_to_get_one(cloud):
    with pytest.raises(CredentialsError, match=r"There is no IBM account.*QPEFT_IBM_TOKEN.*keyring set.*save_account"):
        load_device("ibm", backend=BACKEND)


def test_the_environment_comes_before_the_keyring(keyring, monkeypatch):
    keyring("from-the-keyring")
    assert find_token() == "from-the-keyring"
    monkeypatch.setenv("QPEFT_IBM_TOKEN", " from-the-environment\n")
    assert find_token() == "from-the-environment"


@pytest.mark.parametrize("state", [{"key": None}, {"key": ""}, {"error": "NoKeyringError"}])
def test_a_keyring_without_a_key_leaves_it_to_the_saved_account(keyring, state):
    keyring(**state)
    assert find_token() is None


def test_a_keyring_that_cannot_be_read_is_an_error(keyring):
    keyring(error="KeyringError")
    with pytest.raises(CredentialsError, match=r"keyring cannot be read: locked.*QPEFT_IBM_TOKEN"):
        find_token()


def test_a_key_of_the_keyring_opens_the_service(cloud, keyring):
    keyring(KEY)
    assert load_device("ibm", backend=BACKEND).capabilities().is_remote


def test_the_account_that_qiskit_has_saved_opens_the_service(cloud, no_account):
    account = {"channel": "ibm_quantum_platform", "token": KEY, "is_default_account": True}
    no_account.write_text(json.dumps({"mine": account}))
    device = load_device("ibm", backend=BACKEND)
    assert device.capabilities().num_qubits == 5
    assert KEY in device._secrets  # which later messages are held against


def test_a_refused_key_is_in_no_message_and_no_traceback(cloud, monkeypatch):
    monkeypatch.setenv("QPEFT_IBM_TOKEN", WRONG)
    with pytest.raises(
        CredentialsError, match=r"refused the account.*401: \.\.\. is no key.*QPEFT_IBM_TOKEN"
    ) as caught:
        load_device("ibm", backend=BACKEND)
    assert WRONG not in "".join(traceback.format_exception(caught.value))


def test_a_service_out_of_reach_is_no_matter_of_keys(cloud, monkeypatch):
    from qiskit_ibm_runtime.api.exceptions import RequestsApiError

    def offline(_self, _params):
        try:
            raise ConnectionError("no route to host")
        except ConnectionError as error:
            raise RequestsApiError("no route to host") from error

    monkeypatch.setenv("QPEFT_IBM_TOKEN", KEY)
    monkeypatch.setattr(cloud, "__init__", offline)
    with pytest.raises(DeviceError, match=r"cannot be reached.*no route to host") as caught:
        load_device("ibm", backend=BACKEND)
    assert not isinstance(caught.value, CredentialsError)


def test_an_unknown_backend_is_an_error_that_names_the_nearest(cloud, monkeypatch):
    monkeypatch.setenv("QPEFT_IBM_TOKEN", KEY)
    with pytest.raises(DeviceError, match="no backend 'ibm_stand_inn'; did you mean 'ibm_stand_in'"):
        load_device("ibm", backend="ibm_stand_inn")
    with pytest.raises(DeviceError, match=r"no backend 'zzz'\. Known: ibm_stand_in"):
        load_device("ibm", backend="zzz")


def test_without_qiskit_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    with pytest.raises(DeviceError, match=r"qiskit_aer.*pip install 'qpeft\[ibm\]'"):
        load_device("ibm", backend="aer")
