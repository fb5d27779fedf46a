"""The six endpoints as the vendor's client uses them, by plain HTTP to a process of its own."""

import http.client
import json
import math
import signal
import socket
import sys
from urllib.parse import urlsplit

import pytest
from emulator_process import BELL, BLOCKS, CANCEL, CHIP, DETAIL, RESOURCES, SUBMIT, EmulatorProcess, submission, tables

from qpeft_cli.main import main


def test_the_chip_is_listed(emulator):
    assert emulator.ask("GET", RESOURCES) == (
        200,
        [{"machineType": 5, "onlineFlag": True, "sinanChipId": "perfect"}],
    )


def test_a_job_walks_its_states_and_brings_one_distribution_per_program(emulator):
    flip = "QINIT 2\nCREG 2\nX q[1]\nMEASURE q[0],c[0]\nMEASURE q[1],c[1]\n"
    detail, states = emulator.wait(emulator.submit([BELL, flip, BELL], shots=1000))
    assert [state for state in ("1", "5", "2", "3") if state in states] == states
    bell, one, again = tables(detail)
    assert one == {"0x2": 1000}
    assert set(bell) == set(again) == {"0x0", "0x3"}
    assert sum(bell.values()) == sum(again.values()) == 1000
    assert abs(bell["0x0"] - 500) < 5 * math.sqrt(250)
    assert bell != again, "equal programs of a job are sampled apart"
    assert tables(detail, "taskResult")[0] == {key: count / 1000 for key, count in bell.items()}
    assert detail["measureQubitSize"] == [2, 2, 2]


def test_before_it_is_finished_a_job_shows_no_results(start_emulator):
    slow = start_emulator(chip="perfect", seconds=60)
    detail = slow.detail(slow.submit([BELL]))
    assert (detail["taskState"], detail["taskResult"]) == ("1", [])


def test_a_cancelled_job_fails_and_a_finished_one_cannot_be_cancelled(start_emulator):
    slow = start_emulator(chip="perfect", seconds=60)
    job_id = slow.submit([BELL])
    assert slow.ask("POST", CANCEL, {"taskId": job_id})[1]["success"] is True
    detail, _ = slow.wait(job_id)
    assert (detail["taskState"], detail["errInfo"]) == ("4", "cancelled by the user")
    again = slow.ask("POST", CANCEL, {"taskId": job_id})[1]
    assert again["success"] is False
    assert "FAILED and cannot be cancelled" in again["message"]


def test_a_program_that_does_not_fit_fails_its_job_with_a_reason(emulator):
    apart = "QINIT 72\nCREG 1\nCZ q[0],q[71]\nMEASURE q[0],c[0]\n"
    detail, _ = emulator.wait(emulator.submit([BELL, apart]))
    assert (detail["taskState"], detail["taskResult"]) == ("4", [])
    assert detail["errInfo"].startswith("Program 1: CZ on qubits (0, 71) has no living coupler")


def test_chip_info_has_every_field_that_the_client_needs(start_emulator):
    wukong = start_emulator(seed=4)
    info = wukong.ask("POST", CHIP, {"ChipID": "72"})[1]["obj"]
    assert (info["ChipID"], info["QubitCount"], len(info["AvailableQubits"])) == ("72", 72, 66)
    assert {entry["qubitId"] for entry in info["QubitParams"]} == {str(qubit) for qubit in info["AvailableQubits"]}
    weights = {
        (int(first), entry["v"]): entry["w"] for first, entries in info["adjMatrix"].items() for entry in entries
    }
    assert len(weights) == 2 * 126
    assert all(weights[b, a] == weight for (a, b), weight in weights.items())
    dead = set(range(72)) - set(info["AvailableQubits"])
    assert all(weight == 0 for edge, weight in weights.items() if dead & set(edge))
    assert {clock["gateType"] for clock in info["QGateClock"]} == {"RPhi", "CZ"}
    assert info["CompensateAngle"] == {}


def test_best_blocks_are_as_many_and_as_large_as_asked(emulator):
    asked = {"chipId": "perfect", "qubitNum": 4, "label": 1, "qubitBlockNum": 3}
    obj = emulator.ask("POST", BLOCKS, asked)[1]["obj"]
    assert {len(block) for block in obj["QubitBlocks"]} == {4}
    assert (len(obj["QubitBlocks"]), obj["ChipID"], obj["QubitNum"]) == (3, "perfect", 4)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", RESOURCES), *(("POST", p) for p in (SUBMIT, DETAIL, CANCEL, CHIP))]
)
def test_a_wrong_key_is_refused_everywhere(emulator, method, path):
    before = emulator.stats()["jobs"]
    body = None if method == "GET" else submission([BELL]) | {"taskId": "x"}
    status, reply = emulator.ask(method, path, body, headers={"Authorization": "oqcs_auth=other"})
    assert (status, reply["success"], reply["message"]) == (200, False, "The API key is wrong.")
    assert emulator.stats()["jobs"] == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"QProg": ["QINIT 1\nCREG 1\nFOO q[0]"]}, "Program 0: Line 3 of the program, 'FOO q[0]'"),
        ({"QProg": [BELL] * 201}, "At most 200 programs a job; got 201"),
        ({"QProg": []}, "QProg has no program"),
        ({"ChipID": "WK_C180"}, "There is no chip 'WK_C180' here; there is 'perfect'"),
        ({"QMachineType": "0"}, "chips only"),
        ({"Configuration": {"shot": 0}}, "Shots are from 1 to 100,000; got 0"),
        ({"Configuration": {"shot": 10_000_000}}, "got 10,000,000"),
    ],
)
def test_what_the_cloud_does_not_take_is_refused_and_no_job_exists(emulator, change, says):
    before = emulator.stats()["jobs"]
    status, reply = emulator.ask("POST", SUBMIT, submission([BELL]) | change)
    assert (status, reply["success"]) == (200, False)
    assert says in reply["message"]
    assert emulator.stats()["jobs"] == before


@pytest.mark.parametrize(
    ("method", "path", "raw", "status", "says"),
    [
        ("POST", SUBMIT, b"{", 400, "The body is not JSON"),
        ("POST", SUBMIT, b"[1]", 400, "must be a JSON object; got a list"),
        ("POST", SUBMIT, b"\xff\xfe", 400, "The body is not JSON"),
        ("POST", SUBMIT, b"[" * 100_000, 400, "The body is not JSON"),
        ("POST", SUBMIT, b'{"QProg": 3}', 400, "QProg: Input should be a valid list"),
        ("POST", SUBMIT, b"", 400, "The body is not JSON"),
        ("POST", DETAIL, b'{"taskId": 3}', 400, "taskId: Input should be a valid string; got '3'"),
        ("POST", DETAIL, b'{"taskId": "\\ud800"}', 400, "unable to parse raw data as a unicode string"),
        (
            "POST",
            SUBMIT,
            b'{"QProg": ["// \\ud800"], "QMachineType": "5", "ChipID": "perfect", "Configuration": {"shot": 1}}',
            200,
            "has no QINIT",
        ),
        ("POST", DETAIL, b'{"taskId": "no such"}', 200, "There is no job 'no such'"),
        ("POST", BLOCKS, b'{"chipId": "perfect", "qubitNum": 0}', 400, "qubitNum: Input should be greater than"),
        ("POST", BLOCKS, b'{"chipId": "perfect", "qubitNum": 73}', 200, "No block of 73"),
        ("POST", "/oqcs/other.json", b"{}", 404, "There is no '/oqcs/other.json' here"),
        ("GET", SUBMIT, None, 405, "takes POST; got GET"),
        ("POST", "/emulator/faults", b'{"kind": "meteor"}', 400, "kind: Input should be 'status'"),
        ("POST", "/emulator/faults", b'{"kind": "drop", "tmies": 1}', 400, "tmies: Extra inputs"),
    ],
)
def test_malformed_requests_get_an_error_and_never_a_traceback(emulator, method, path, raw, status, says):
    found, reply = emulator.ask(method, path, raw=raw)
    assert (found, reply["success"]) == (status, False)
    assert says in reply["message"]
    assert "Traceback" not in json.dumps(reply)


@pytest.mark.parametrize("length", ["-1", "x", str(2**40)])
def test_a_body_of_no_sensible_length_is_refused(emulator, length):
    connection = http.client.HTTPConnection(urlsplit(emulator.url).netloc, timeout=10)
    connection.putrequest("POST", SUBMIT)
    connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_nonsense_on_the_socket_leaves_the_emulator_standing(emulator):
    address = urlsplit(emulator.url)
    for nonsense in (
        b"\x00\x01\x02\r\n\r\n",
        b"POST " + SUBMIT.encode() + b" HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(nonsense)
    assert emulator.ask("GET", RESOURCES)[0] == 200


def test_stats_count_what_was_accepted(emulator):
    before = emulator.stats()
    job_id = emulator.submit([BELL, BELL, BELL + "\n"], shots=7)
    after = emulator.stats()
    assert after["jobs"] - before["jobs"] == 1
    assert after["circuits"] - before["circuits"] == 3
    assert after["shots"] - before["shots"] == 21
    job = after["per_job"][job_id]
    assert (job["number"], job["circuits"], job["shots"]) == (before["jobs"], 3, 7)
    assert len(set(job["programs"])) == 2


def test_ctrl_c_in_mid_job_stops_it_cleanly():
    with EmulatorProcess("--chip", "clean", "--api-key", "emulator") as emulator:
        emulator.submit([BELL] * 200, chip="clean", shots=10_000)
        emulator.process.send_signal(signal.SIGINT)
        out, err = emulator.process.communicate(timeout=20)
        assert (emulator.process.returncode, out, err) == (0, "stopped\n", "")


def test_a_port_in_use_a_bad_store_and_a_bad_fault_are_clear_errors(emulator, tmp_path, monkeypatch, capsys):
    port = str(urlsplit(emulator.url).port)
    garbage = tmp_path / "store"
    garbage.write_text("no database" * 100)
    cases = {
        ("--port", port): f"error: Cannot listen on port {port}",
        ("--store", str(garbage)): "file is not a database",
        ("--fault", '{"kind": "x"}'): "kind: Input should be",
    }
    for options, says in cases.items():
        monkeypatch.setattr(sys, "argv", ["qpeft", "devices", "emulator", *options])
        with pytest.raises(SystemExit, match="2"):
            main()
        captured = capsys.readouterr()
        assert captured.out == ""
        assert says in captured.err
