"""A step of preference optimization through TRL."""

import pytest
import torch
from small_adapters import TARGETS


# TRL names options that transformers renames.
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.feature("dpo")
def test_a_step_of_dpo_moves_the_adapter_away_from_the_base_model(tiny_model, base, config, tmp_path):
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt": f"What is {n}?", "chosen": " one", "rejected": " two and user"} for n in range(4)]
    options = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "bf16": False}
    trainer = DPOTrainer(
        base(),
        args=DPOConfig(max_steps=2, per_device_train_batch_size=2, learning_rate=0.1, logging_steps=1, **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        peft_config=config(target_modules=TARGETS),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # The reference is the model without its adapter: at first both say the same.
    assert losses[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-4)
    assert losses[1] != losses[0]
