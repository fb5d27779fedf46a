"""Distributed data parallel training: two processes see half the batch each and step as one would."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
import torch.distributed as dist
import torch.multiprocessing as mp
from peft import get_peft_model
from qpeft import QthaConfig
from torch.nn.parallel import DistributedDataParallel

BOTTLENECKS = ("circuit", "frozen_circuit")  # parameters, and buffers that are broadcast


def model(bottleneck):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(12, 10), torch.nn.Tanh(), torch.nn.Linear(10, 6))
    return get_peft_model(base, QthaConfig(rank=4, bottleneck=bottleneck, target_modules=["0", "2"], init_seed=0))


def data():
    return torch.randn(8, 12, generator=torch.Generator().manual_seed(1))


def train(module, adapted, x):
    optimizer = torch.optim.AdamW([w for w in adapted.parameters() if w.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (module(x) - 1).square().mean().backward()
        optimizer.step()
    return {name: (w.detach(), w.grad) for name, w in adapted.named_parameters() if w.requires_grad}


def work(rank, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results = {}
    for bottleneck in BOTTLENECKS:
        adapted = model(bottleneck)
        results[bottleneck] = train(DistributedDataParallel(adapted), adapted, data().chunk(2)[rank])
    if rank == 0:
        torch.save(results, f"{store}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    store = sys.argv[1]
    mp.spawn(work, (store,), nprocs=2)
    together = torch.load(f"{store}.pt")
    for bottleneck in BOTTLENECKS:
        adapted = model(bottleneck)
        for name, (weight, grad) in train(adapted, adapted, data()).items():
            torch.testing.assert_close(together[bottleneck][name][0], weight, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(together[bottleneck][name][1], grad, atol=1e-6, rtol=1e-4)
    print("equal")
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr
