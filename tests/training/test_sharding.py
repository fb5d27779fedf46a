"""Adapted models sharded over two processes: weights are split, and the model computes and trains as a whole one."""

import subprocess
import sys

import pytest

from qpeft.errors import LaunchError

PROGRAM = """
import sys, torch
import torch.distributed as dist
import torch.multiprocessing as mp
from peft import PeftModel, get_peft_model
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from qpeft import QthaConfig
from qpeft.models import load_model
from qpeft.training.processes import shard, whole_weights

FOLDER, STORE, DTYPE = sys.argv[1:]
TOKENS = torch.randint(0, 250, (4, 12), generator=torch.Generator().manual_seed(1))


def model():
    config = QthaConfig(rank=4, target_modules=["q_proj", "v_proj"], init_seed=0)
    return get_peft_model(load_model(FOLDER, dtype=DTYPE), config).train()


def trained(adapted):
    return [weight for weight in adapted.parameters() if weight.requires_grad]


def train(adapted, tokens):
    optimizer, losses = torch.optim.AdamW(trained(adapted), lr=1e-2), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = adapted(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@torch.no_grad()
def logits(adapted):
    return adapted.eval()(input_ids=TOKENS).logits


@torch.no_grad()
def answers(adapted):
    inputs = {"input_ids": TOKENS[:, :4], "attention_mask": torch.ones(4, 4)}
    return adapted.eval().generate(**inputs, max_new_tokens=3, do_sample=False)


@torch.no_grad()
def grow(adapted):
    for weight in trained(adapted):
        weight.mul_(3)


def work(rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{STORE}", rank=rank, world_size=2)
    adapted = model()
    shard(adapted)
    layers = adapted.get_base_model().model.layers
    assert all(isinstance(layer, FSDPModule) for layer in layers)
    for name, weight in adapted.named_parameters():
        assert isinstance(weight, DTensor), name
        # Half of the rows, rounded up, and the others.
        assert len(weight.to_local()) == ((len(weight) + 1) // 2, len(weight) // 2)[rank], name
    found = {"losses": train(adapted, TOKENS.chunk(2)[rank])}
    dist.all_reduce(found["losses"])
    found |= {"logits": logits(adapted), "answers": answers(adapted)}
    weights = whole_weights(adapted)
    if rank == 0:
        assert len(weights) == len(trained(adapted))
        adapted.save_pretrained(f"{STORE}.adapter", state_dict=weights)
    grow(adapted)
    found["grown"] = logits(adapted)
    if rank == 0:
        torch.save(found, f"{STORE}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(work, nprocs=2)
    found, adapted = torch.load(f"{STORE}.pt"), model()
    same_loss, same_logits = (1e-5, 1e-4) if DTYPE == "float32" else (1e-3, 0.1)
    torch.testing.assert_close(found["losses"] / 2, train(adapted, TOKENS), rtol=same_loss, atol=0)
    loaded = PeftModel.from_pretrained(load_model(FOLDER, dtype=DTYPE), f"{STORE}.adapter")
    for one in (adapted, loaded):
        torch.testing.assert_close(found["logits"], logits(one), rtol=same_logits, atol=same_logits)
    assert found["answers"].equal(answers(loaded))
    grow(adapted)
    torch.testing.assert_close(found["grown"], logits(adapted), rtol=same_logits, atol=same_logits)
    print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sharded_model_trains_answers_and_saves_as_a_whole_one(tiny_model, tmp_path, dtype):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tiny_model), str(tmp_path / "store"), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


def test_sharding_without_processes_says_what_to_start():
    import torch
    from peft import get_peft_model

    from qpeft import QthaConfig
    from qpeft.training.processes import shard

    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), QthaConfig(rank=4, target_modules=["0"]))
    with pytest.raises(LaunchError, match="init_process_group"):
        shard(model)
