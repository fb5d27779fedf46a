"""The demo: fine-tune a 135M-parameter model through a quantum circuit, next to LoRA, and see what it learned.

    python examples/demo/run.py [--section.key value ...]

Takes about five minutes on two cores. Results go to a new folder: runs/demo, runs/demo-2 and so on. What can be
set in a recipe can be set here for all runs: --model.name HuggingFaceTB/SmolLM2-360M-Instruct --training.steps 100.
"""

from __future__ import annotations

import sys
import time
import warnings

START = time.monotonic()

if __name__ == "__main__":
    # Said before torch and transformers are imported, which takes seconds in which nothing would be seen.
    print("qpeft demo, about five minutes on two cores: loading torch and transformers ...", flush=True)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    from demo import main

    from qpeft import QpeftError

    try:
        main(sys.argv[1:], START)
    except QpeftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
