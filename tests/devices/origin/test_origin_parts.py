"""What needs no cloud: addresses, keys, ids, replies, the calibration, and what the client's messages mean."""

import json
import math
import sys
import types

import numpy as np
import pytest

from qpeft.devices import JobState
from qpeft.devices.origin import DEFAULT_URL, OriginDevice
from qpeft.devices.origin.account import find_key
from qpeft.devices.origin.chip import chip_from, noise_model_of
from qpeft.devices.origin.outbox import Contents, split_id, suffix_of
from qpeft.devices.origin.replies import distributions_of, status_of, task_of
from qpeft.devices.origin.worker import kind_of
from qpeft.errors import CredentialsError, DeviceError, JobError
from qpeft.simulation.noise.channels import gate_noise
from qpeft_emulator.chip import wukong
from qpeft_emulator.messages import chip_info


@pytest.mark.parametrize("url", ["http://cloud.example", "http://10.0.0.1:80", "http://127.0.0.1.example:8080"])
def test_an_address_that_sends_the_key_in_the_clear_is_refused(url):
    with pytest.raises(DeviceError, match="in the clear"):
        OriginDevice(chip="72", url=url)


@pytest.mark.parametrize(
    "url", ["", "cloud.example", "ftp://cloud.example", "https://", "https://u:p@c.example", "https://[::1"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(DeviceError, match="url of the cloud"):
        OriginDevice(chip="72", url=url)


@pytest.mark.parametrize("url", [DEFAULT_URL, "http://127.0.0.1:8123", "http://localhost:1/", "http://[::1]:5"])
def test_encrypted_addresses_and_those_of_this_machine_are_taken(url):
    assert "key" not in repr(OriginDevice(chip="72", url=url))
    assert DEFAULT_URL.startswith("https://")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side_by_side": True}, "amend=False"),
        ({"side_by_side": -1, "amend": False}, "side_by_side is"),
        ({"mapping": False, "block": [1, 2]}, "block"),
        ({"chip": ""}, "chip is a name"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(DeviceError, match=message):
        OriginDevice(**{"chip": "72", **options})


def test_the_key_comes_from_the_environment_then_from_the_keyring_and_else_both_ways_are_named(monkeypatch):
    monkeypatch.delenv("QPEFT_ORIGIN_KEY", raising=False)
    keys = {("qpeft", "origin"): "from-the-ring"}
    ring = types.ModuleType("keyring")
    ring.get_password = lambda service, user: keys.get((service, user))
    ring.__spec__ = types.SimpleNamespace(name="keyring")
    monkeypatch.setitem(sys.modules, "keyring", ring)
    assert find_key(DEFAULT_URL).reveal() == "from-the-ring"
    monkeypatch.setenv("QPEFT_ORIGIN_KEY", "from-the-environment")
    key = find_key(DEFAULT_URL)
    assert key.reveal() == "from-the-environment"
    assert "from" not in f"{key} {key!r} {vars(key).keys()}"
    monkeypatch.delenv("QPEFT_ORIGIN_KEY")
    keys.clear()
    with pytest.raises(CredentialsError, match=r"QPEFT_ORIGIN_KEY.*keyring set qpeft origin"):
        find_key(DEFAULT_URL)


def test_a_key_goes_to_no_address_that_its_owner_did_not_name(monkeypatch):
    monkeypatch.setenv("QPEFT_ORIGIN_KEY", "real-key")
    other = "https://recipe.example"
    with pytest.raises(CredentialsError, match=r"recipe\.example.*QPEFT_ORIGIN_URL"):
        OriginDevice(chip="72", url=f"{other}/").capabilities()
    monkeypatch.setenv("QPEFT_ORIGIN_URL", f"{other}/")
    for url in (other, DEFAULT_URL, "http://127.0.0.1:1"):
        assert find_key(url).reveal() == "real-key"
    with pytest.raises(CredentialsError):
        find_key(f"{other}.test")


@pytest.mark.parametrize("key", ["two words", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(monkeypatch, key):
    monkeypatch.setenv("QPEFT_ORIGIN_KEY", key)
    with pytest.raises(CredentialsError) as error:
        find_key(DEFAULT_URL)
    assert key not in str(error.value)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ([(4, 1)] * 200, "@4x200"),
        ([(2, 1), (2, 1), (3, 1), (2, 1)], "@2x2,3x1,2x1"),
        ([(8, 5)] * 40 + [(8, 2)], "@8:5x40,8:2x1"),
    ],
)
def test_the_layout_of_a_job_is_read_back_from_its_id(sizes, text):
    programs = [Contents(*size) for size in sizes]
    assert suffix_of(programs) == text
    assert split_id("9A3F" + text) == ("9A3F", programs)
    assert split_id("9A3F") == ("9A3F", None)


@pytest.mark.parametrize("job_id", ["", "@4x1", "9A@", "9A@4", "9A@0x1", "9A@4x1,", "9A@4x-1", "9A@4:x1"])
def test_ids_that_are_none_are_refused(job_id):
    with pytest.raises(JobError, match="no job"):
        split_id(job_id)


def table(**shares):
    return json.dumps({"key": list(shares), "value": list(shares.values())})


def test_keys_are_read_hexadecimal_or_binary_and_turned_round():
    task = {"taskResult": [json.dumps({"key": ["0x1", "0x6"], "value": [0.25, 0.75]}), table(**{"001": 1.0})]}
    assert distributions_of(task, "job", [Contents(3), Contents(3)]) == [{"100": 0.25, "011": 0.75}, {"100": 1.0}]


def test_circuits_side_by_side_get_the_shares_of_their_own_bits():
    # Bits 0 and 1 are the first circuit's, 2 and 3 the second's: 0b0110 is 10 of the first and 01 of the second.
    shares = {"0x6": 0.5, "0x4": 0.25, "0x5": 0.25}
    task = {"taskResult": [json.dumps({"key": list(shares), "value": list(shares.values())})], "measureQubitSize": [4]}
    first, second = distributions_of(task, "job", [Contents(2, 2)])
    assert first == {"01": 0.5, "00": 0.25, "10": 0.25}
    assert second == {"10": 1.0}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"taskResult": [table(**{"0x0": 1.0})]}, "2 programs were sent and 1 results"),
        ({"taskResult": [table(**{"0x0": 1.0})] * 3}, "2 programs were sent and 3 results"),
        ({"taskResult": [table(**{"0x0": 1.0})] * 2, "measureQubitSize": [3, 2]}, "not of those that were sent"),
        ({"taskResult": [table(**{"0x0": 1.0})] * 2, "measureQubitSize": [2]}, "not of those that were sent"),
        ({"taskResult": [table(**{"0x4": 1.0}), table(**{"0x0": 1.0})]}, "more than the 2 bits"),
        ({"taskResult": [table(**{"0x1": 0.5, "01": 0.5}), table(**{"0x0": 1.0})]}, "twice"),
        ({"taskResult": [table(zero=1.0)] * 2}, "no bit string"),
        ({"taskResult": ["{", "{"]}, "no table"),
        ({"taskResult": None}, "no list of tables"),
    ],
)
def test_results_that_do_not_fit_what_was_sent_are_errors(task, message):
    with pytest.raises(DeviceError, match=message):
        distributions_of(task, "job", [Contents(2), Contents(3)])


@pytest.mark.parametrize(
    ("code", "message", "state"),
    [
        ("1", "", JobState.WAITING),
        ("5", "", JobState.WAITING),
        ("2", "", JobState.RUNNING),
        (3, "", JobState.FINISHED),
        ("4", "cooling failed", JobState.FAILED),
        ("4", "任务已取消", JobState.CANCELLED),
    ],
)
def test_states_are_those_of_the_cloud(code, message, state):
    status = status_of({"taskState": code, "errInfo": message}, "job", was_cancelled=False)
    assert (status.state, status.message) == (state, message)


def test_a_state_that_nobody_knows_is_an_error_and_no_failure():
    with pytest.raises(DeviceError, match="'12'"):
        status_of({"taskState": "12"}, "job", was_cancelled=False)


def test_a_refused_answer_about_a_job_is_about_the_key_or_the_job():
    with pytest.raises(CredentialsError):
        task_of({"success": False, "message": "API key is wrong"}, "job")
    with pytest.raises(JobError, match="no such task"):
        task_of({"success": False, "message": "no such task"}, "job")
    with pytest.raises(JobError, match="without saying"):
        task_of({"success": True, "obj": None}, "job")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Chip 72 is offline; try later.", "refused"),
        ("The API key is wrong.", "credentials"),
        ("query chip_info failed: apikey invalid", "credentials"),
        ("QCloud HTTP request failed with status 401: no", "credentials"),
        ("QCloud HTTP request failed with status 404: no", "rejected"),
        ("QCloud HTTP request failed with status 429: slow", "unclear"),
        ('QCloud HTTP request failed with status 503: {"success":false,"message":"refused"}', "unclear"),
        ("curl_easy_perform failed: Empty reply from server", "unclear"),
        ("curl_easy_perform failed: Operation timed out after 60004 milliseconds with 0 bytes received", "unclear"),
        ("curl_easy_perform failed: Could not resolve host: no.such.host.invalid", "unreachable"),
        (
            "curl_easy_perform failed: Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server",
            "unreachable",
        ),
        ("curl_easy_perform failed: SSL certificate problem: self-signed certificate", "unreachable"),
        ("Invalid value.", "unclear"),
        ("value is not object (which is 0)", "unclear"),
        ("unknown error.", "unclear"),
        ("", "unclear"),
        ("Shots are from 1 to 10: at most 10.", "refused"),
        ("余额不足", "refused"),
        ("job_id is null.", "unclear"),
        ("Missing a comma or } after an object member.", "unclear"),
        ("Missing a closing quotation mark in string.", "unclear"),
        ("Number too large in JSON.", "unclear"),
        ("words of a client or of a cloud that nobody has seen yet", "unclear"),
        ("The system is busy", "unclear"),
        ("Time limit exceeded while the task was created", "unclear"),
        ("context deadline exceeded", "unclear"),
        ("This task was submitted already; quota is left", "unclear"),
        ("Permission check: connection to the authentication server was lost", "unclear"),
        ("任务提交超时", "unclear"),
        ("Unexpected token < in a message", "unclear"),
    ],
)
def test_what_the_client_says_is_certain_or_not(words, kind):
    assert kind_of(RuntimeError(words)) == kind


def test_errors_that_are_not_the_clients_own_are_never_certain():
    assert kind_of(MemoryError("refused")) == "unclear"


def listed(seed):
    """As the worker lists the emulator's Wukong, dead parts and both directions of every coupler included."""
    info = chip_info(wukong(seed))
    return {
        "name": info["ChipID"],
        "num_qubits": info["QubitCount"],
        "available": info["AvailableQubits"],
        "gate_times": [30, 40],
        "edges": [[int(a), edge["v"], edge["w"]] for a, edges in info["adjMatrix"].items() for edge in edges],
        "qubits": [
            [int(one["qubitId"]), one["ReadoutFidelity"], one["SingleGateFidelity"], one["T1"], one["T2"]]
            for one in info["QubitParams"]
        ],
    }


def channel_fidelity(channel):
    """Average gate fidelity from a Pauli transfer matrix."""
    dimension = math.isqrt(len(channel))
    return (np.trace(channel) / dimension + 1) / (dimension + 1)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_calibration_is_of_what_lives_and_has_the_listed_fidelities(seed):
    truth, model = wukong(seed), noise_model_of(chip_from(listed(seed)))
    living = {edge: round(fidelity, 4) for edge, fidelity in truth.edges.items() if fidelity > 0}
    assert dict(model.qubits).keys() == truth.qubits.keys()
    assert dict(model.edges).keys() == living.keys()
    assert len(living) < 126 - 6
    for number, facts in truth.qubits.items():
        noise = model.qubit(number)
        assert channel_fidelity(gate_noise(model, (number,))) == pytest.approx(facts.gate_fidelity, abs=1e-9)
        assert noise.damping.amplitude == pytest.approx(1 - math.exp(-0.03 / facts.t1))
        assert noise.readout.p1_given_0 == noise.readout.p0_given_1 == pytest.approx(1 - facts.readout_fidelity)
        # Listed T2 alone would cost more than the listed error, so all that T1 leaves is dephasing.
        assert 0 < noise.damping.phase < 1 - math.exp(-2 * 0.03 / facts.t2)
    for edge, fidelity in living.items():
        assert channel_fidelity(gate_noise(model, edge)) == pytest.approx(fidelity, abs=1e-9)


def test_what_long_t2_leaves_of_an_error_is_depolarising():
    long_lived = listed(0)
    long_lived["qubits"] = [[*one[:3], 1000.0, 1000.0] for one in long_lived["qubits"]]
    model = noise_model_of(chip_from(long_lived))
    number, facts = next(iter(wukong(0).qubits.items()))
    assert model.qubit(number).depolarising == pytest.approx(2 * (1 - facts.gate_fidelity), rel=0.02)
    assert channel_fidelity(gate_noise(model, (number,))) == pytest.approx(facts.gate_fidelity, abs=1e-9)


def test_a_fidelity_in_percent_is_an_error():
    broken = listed(0)
    broken["qubits"][0][1] = 97.3
    with pytest.raises(DeviceError, match=r"97\.3"):
        chip_from(broken)
