"""The vendor's own package, unmodified, against our OriginIR and our emulator."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import dense_oracle as dense
import numpy as np
import pytest
from emulator_process import BELL

from qpeft.circuits import GATES, Circuit, Operation, ansatz, bind
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft_emulator import parse_origin_ir
from qpeft_emulator.chip import wukong

# Looked up, not imported: its native modules stay out of this process.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pyqpanda3") is None, reason="needs the vendor's client: pip install pyqpanda3"
)
FLIP = "QINIT 2\nCREG 2\nX q[1]\nMEASURE q[0],c[0]\nMEASURE q[1],c[1]\n"


@pytest.fixture
def vendor(tmp_path):
    """A function: what an action of vendor_client.py answers; in a scratch folder, since it drops log files."""

    def ask(action, asked, url=""):
        command = [sys.executable, str(Path(__file__).with_name("vendor_client.py")), action, url]
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=90, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask


def circuits():
    """Every gate between turns that make it visible, and whole ansätze."""
    for name, gate in GATES.items():
        turns = [Operation("RY", (0,), 0.7), Operation("RX", (1,), -1.9)]
        own = Operation(name, (1, 0)[: gate.num_qubits], 2.3 if gate.is_parametrised else None)
        yield Circuit(2, (*turns, own, *turns))
    for family in ansatz.ANSATZE.values():
        circuit = family(3)
        numbers = np.linspace(-3, 3, circuit.num_inputs + circuit.num_weights)
        yield bind(circuit, numbers[: circuit.num_inputs], numbers[circuit.num_inputs :])


def unmeasured(text):
    return "\n".join(line for line in text.splitlines() if not line.startswith("MEASURE")) + "\n"


def final_state(circuit):
    return dense.final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1)


def test_the_vendor_reads_our_text_as_we_mean_it_and_we_read_the_vendors(vendor):
    bound = list(circuits())
    answers = vendor("unitaries", [unmeasured(to_origin_ir(circuit)) for circuit in bound])
    for circuit, answer in zip(bound, answers, strict=True):
        column = (np.array(answer["real"]) + 1j * np.array(answer["imag"]))[:, 0]
        # The vendor's qubit 0 is the least significant bit.
        state = column.reshape([2] * circuit.num_qubits).transpose().reshape(-1)
        assert abs(np.vdot(final_state(circuit), state)) == pytest.approx(1, abs=1e-9), circuit.operations
        read = parse_origin_ir(answer["text"]).circuit
        assert abs(np.vdot(final_state(read), state)) == pytest.approx(1, abs=1e-7), answer["text"]


def test_one_program_and_a_batch_come_back_in_order_with_bit_0_last(vendor, emulator):
    asked = {"chip": "perfect", "shots": 1000, "plain": True}
    single = vendor("run", {**asked, "programs": FLIP}, emulator.url)
    assert (single["last"], single["error"], single["probs"]) == ("FINISHED", "", [{"10": 1.0}])
    assert single["first"] in ("WAITING", "QUEUING", "COMPUTING", "FINISHED")
    batch = vendor("run", {**asked, "programs": [BELL, FLIP]}, emulator.url)
    assert batch["counts"][1] == {"10": 1000}
    assert set(batch["probs"][0]) == {"00", "11"}
    assert abs(batch["probs"][0]["00"] - 0.5) < 5 * math.sqrt(0.25 / 1000)
    assert batch["last_probs"] == batch["probs"][1]
    assert emulator.stats()["per_job"][batch["id"]]["circuits"] == 2


def test_the_clients_own_options_run_on_wukong(vendor, start_emulator):
    wukong_cloud = start_emulator()
    answer = vendor(
        "run", {"chip": "origin_wukong", "shots": 2000, "plain": False, "programs": [BELL]}, wukong_cloud.url
    )
    assert answer["last"] == "FINISHED"
    probs, counts = answer["probs"][0], answer["counts"][0]
    assert sum(probs.values()) == pytest.approx(1)
    # The cloud amends the shares, not the counts.
    assert probs["00"] + probs["11"] > (counts["00"] + counts["11"]) / 2000 + 0.02


def test_a_failed_job_and_a_short_reply_reach_the_client(vendor, emulator):
    asked = {"chip": "perfect", "shots": 10, "plain": True}
    apart = "QINIT 72\nCREG 1\nCZ q[0],q[71]\nMEASURE q[0],c[0]\n"
    failed = vendor("run", {**asked, "programs": apart}, emulator.url)
    assert failed["last"] == "FAILED"
    assert "no living coupler" in failed["error"]
    emulator.fault(kind="short", times=None)
    assert len(vendor("run", {**asked, "programs": [FLIP] * 3}, emulator.url)["probs"]) == 2


def test_a_job_can_be_cancelled(vendor, start_emulator):
    slow = start_emulator(chip="perfect", seconds=60)
    answer = vendor("cancel", {"chip": "perfect", "programs": [BELL]}, slow.url)
    assert (answer["cancelled"], answer["status"]) == (True, "FAILED")
    assert "cancelled by the user" in answer["error"]


def test_the_client_reads_the_whole_calibration(vendor, start_emulator):
    seen, chip = vendor("listing", {"chip": "origin_wukong"}, start_emulator(seed=3).url), wukong(3)
    assert seen["backends"]["72"] is True
    assert (seen["chip_id"], seen["num_qubits"], seen["available"]) == ("72", 72, sorted(chip.qubits))
    living = {edge for edge, fidelity in chip.edges.items() if fidelity > 0}
    assert {tuple(sorted(edge)) for edge in seen["topology"]} == living
    found = {(min(a, b), max(a, b)): fidelity for a, b, fidelity in seen["edges"]}
    assert {edge for edge in found if found[edge] > 0} == living
    assert all(found[edge] == pytest.approx(chip.edges[edge], abs=1e-4) for edge in living)
    for qubit_id, readout, gate, t1, t2 in seen["qubits"]:
        listed = chip.qubits[int(qubit_id)]
        expected = (listed.readout_fidelity, listed.gate_fidelity, listed.t1, listed.t2)
        assert (readout, gate, t1, t2) == pytest.approx(expected)
    assert seen["gates"] == ["RPhi", "CZ"]
    assert [len(block) for block in seen["blocks"]] == [8, 8, 8]
    assert f"{len(living)} edges" in seen["target"]


def test_a_wrong_key_is_told_in_words_by_all_but_the_listing(vendor, emulator):
    before = emulator.stats()["jobs"]
    said = vendor("wrong_key", {"chip": "perfect", "programs": [BELL]}, emulator.url)
    assert "array" in said.pop("backends")  # the client expects a list and reports what it got instead
    assert all("The API key is wrong" in words for words in said.values()), said
    assert emulator.stats()["jobs"] == before
