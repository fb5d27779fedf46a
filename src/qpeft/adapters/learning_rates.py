"""Peak learning rates of methods, for recipes that name none. `benchmarks/learning_rates.py` measures them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRate:
    """`value`: peak of the schedule, for AdamW. `source`: where it comes from, a part of a sentence."""

    value: float
    source: str

    def __str__(self) -> str:
        return f"{self.value:g} ({self.source})"


LEARNING_RATES = {
    "qtha": LearningRate(1e-2, "default of QTHA: best of single runs of 60 steps on word problems"),
    "lora": LearningRate(3e-3, "default of LoRA: best of single runs of 60 steps on word problems"),
    "dora": LearningRate(3e-3, "default of DoRA: best of single runs of 30 steps on word problems"),
    "loretta": LearningRate(3e-3, "default of LoRETTA: best of single runs of 30 steps on word problems"),
    "quanta": LearningRate(3e-3, "default of QuanTA: best of single runs of 30 steps on word problems"),
    "lokr": LearningRate(3e-2, "default of LoKr: best of single runs of 30 steps on word problems"),
    "tt_lora": LearningRate(1e-2, "default of TT-LoRA: best of single runs of 30 steps on word problems"),
    "qpa": LearningRate(3e-3, "default of QPA: best of single runs of 20 steps on word problems"),
    "quantum_peft": LearningRate(3e-2, "default of Quantum-PEFT: best of single runs of 20 steps on word problems"),
    "quantum_weighted": LearningRate(5e-3, "default at gain 4: better of two, 5e-3 and 1e-2, on word problems"),
    "c3a": LearningRate(0.3, "default of C3A: PEFT's method comparison"),
    "ia3": LearningRate(5e-3, "default of IA3: better of two in PEFT's method comparison"),
    "hira": LearningRate(4.5e-3, "default of HiRA: PEFT's method comparison"),
}
"""Peak learning rates by method, where one is known to be better than another."""


def default_learning_rate(method: str) -> LearningRate:
    """Peak learning rate where a recipe names none: that of `LEARNING_RATES`, or 1e-3, unmeasured."""
    return LEARNING_RATES.get(method, LearningRate(1e-3, f"default of all other methods; unmeasured for {method}"))
