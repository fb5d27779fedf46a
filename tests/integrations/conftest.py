"""Tests with lm-eval run where it is installed, and everywhere that QPEFT_ALL_DEVICES asks for all that is optional."""

import importlib.util
import os


def pytest_collection_modifyitems(config, items):
    if os.environ.get("QPEFT_ALL_DEVICES") or importlib.util.find_spec("lm_eval"):
        return
    without = [item for item in items if item.path.name == "test_lm_eval.py"]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
