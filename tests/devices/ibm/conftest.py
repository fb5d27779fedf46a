"""The service's stand-in, and an account that it knows."""

import sys

import ibm_cloud
import pytest

from qpeft.devices import load_device


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    """No key in the environment, no keyring, and no account saved by Qiskit."""
    from qiskit_ibm_runtime.accounts import management

    monkeypatch.delenv("QPEFT_IBM_TOKEN", raising=False)
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_CHANNEL", "QISKIT_IBM_NAME"):
        monkeypatch.delenv(name, raising=False)
    saved = tmp_path / "qiskit-ibm.json"
    monkeypatch.setattr(management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(saved))
    monkeypatch.setitem(sys.modules, "keyring", None)
    return saved


@pytest.fixture
def cloud(monkeypatch, tmp_path, no_account):
    """The stand-in's class, its jobs in a folder of this test."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    ibm_cloud.install(monkeypatch.setattr, folder)
    return ibm_cloud.StandIn


@pytest.fixture
def device(cloud, monkeypatch):
    """A machine of the stand-in, opened with the right key."""
    monkeypatch.setenv("QPEFT_IBM_TOKEN", ibm_cloud.KEY)
    return load_device("ibm", backend=ibm_cloud.BACKEND)
