"""A model of Qwen2.5-1.5B's exact shape trains on a laptop."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks/scale.py"


@pytest.mark.slow
def test_three_steps_of_a_billion_and_a_half_parameters_fit_into_ten_gigabytes():
    pytest.importorskip("resource", reason="tells the peak of memory")
    command = [sys.executable, str(BENCHMARK), "--threads", "2", "--tokens", "128", "--steps", "3", "--worker", "QTHA"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["base_parameters"] == 1_543_714_304  # as published, embeddings once
    assert found["parameters"] == 225_568
    # Above the weights in float32, or what was measured is not that.
    assert 6.17 < found["peak_gb"] < 10
    first, *_, last = found["losses"]
    assert math.isfinite(last)
    assert last < first
