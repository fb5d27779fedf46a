"""What TRL's trainer makes of our tokens and labels."""

import pytest
import torch

from qpeft.data import encode_all, to_dataset


@pytest.mark.slow
def test_trl_trains_on_the_marked_tokens_and_no_others(with_template, dialogue, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = with_template("chatml")
    encoded = encode_all(tokenizer, [dialogue("Hi", "One"), dialogue("How are you?", "Fine", "Good", "And you?")])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            attn_implementation="eager",
        )
    ).eval()
    losses = torch.cat([_losses(model, one) for one in encoded])
    config = SFTConfig(
        str(tmp_path),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        per_device_eval_batch_size=2,
        use_cpu=True,
        report_to="none",
        bf16=False,
        gradient_checkpointing=None,  # TRL's default is a deprecated option of transformers
    )
    data = to_dataset(encoded)
    trainer = SFTTrainer(model, config, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses.mean().item(), rel=1e-4)


def _losses(model, encoded):
    """Cross entropy of the marked tokens of one example, each predicted from the tokens before it."""
    with torch.no_grad():
        logits = model(torch.tensor([encoded.input_ids])).logits[0, :-1]
    places = [i for i, label in enumerate(encoded.labels[1:]) if label != -100]
    targets = torch.tensor(encoded.input_ids[1:])[places]
    return -logits.log_softmax(-1)[places, :].gather(1, targets[:, None])[:, 0]
