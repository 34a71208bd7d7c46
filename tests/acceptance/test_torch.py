"""The real torchrun and accelerate on two nodes, over gloo on CPUs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fixture import start

from tests import torchkit
from tests.runkit import Laptop, repository

pytestmark = pytest.mark.cluster

# a launcher's programs share a log, where print() of two would tear each other's lines
WHEELS = "/scratch/abc1de/wheels"
ALL_REDUCE = """import os, sys
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
found = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(found)
said = ("rank", dist.get_rank(), os.environ["LOCAL_RANK"], dist.get_world_size(), found.item())
sys.stdout.write(" ".join(map(str, said)) + "\\n")
dist.destroy_process_group()
"""
REDUCE = """import sys
import torch
from accelerate import Accelerator

its = Accelerator(cpu=True)
found = its.reduce(torch.tensor([float(its.process_index + 1)]), "sum")
said = ("rank", its.process_index, its.local_process_index, its.num_processes, found.item())
sys.stdout.write(" ".join(map(str, said)) + "\\n")
its.end_training()
"""
# 1 + 2 + 3 + 4
SUMS = {f"[node{n // 2}] rank {n} {n % 2} 4 10.0" for n in range(4)}


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    """One more cluster: its Python is the one that the wheel is for, its scratch holds it."""
    wheel = torchkit.wheel()
    if wheel is None:
        pytest.skip((torchkit.cache() / "source").read_text().strip())
    found = start("--python=debian", "--scratch-size=3g")
    try:
        to = f"mkdir -p {WHEELS} && cat >{WHEELS}/{wheel.name}"
        with wheel.open("rb") as file:
            command = ["ssh", "-F", str(found.ssh_config), "-l", "abc1de", "rv-login", to]
            subprocess.run(command, stdin=file, check=True, timeout=120)
        yield found
    finally:
        found.down()


@pytest.fixture(scope="module")
def app(site: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Laptop, Path]:
    """A project that needs torch, and a machine that submits it."""
    root = tmp_path_factory.mktemp("torch")
    wheel = torchkit.wheel()
    assert wheel is not None
    needs = [f"torch @ file://{WHEELS}/{quote(wheel.name)}"]
    if torchkit.versions("accelerate"):
        needs.append("accelerate")
    files = {
        "requirements.txt": "\n".join((*needs, "")),
        "sum.py": ALL_REDUCE,
        "x/reduce.py": REDUCE,
    }
    laptop = Laptop(
        root / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{site.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )
    return laptop, repository(root / "app", files)


def printed(app: tuple[Laptop, Path], *words: str) -> set[str]:
    """The lines of ranks that a job on two nodes has printed."""
    laptop, project = app
    done = laptop.run(
        "run", "-f", "--nodes", "2", "-g", "0", "--cpus", "2", *words, cwd=project, status=None
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {line for line in done.stdout.splitlines() if "] rank " in line}


def test_an_all_reduce_over_two_nodes_has_the_right_sum(app: tuple[Laptop, Path]) -> None:
    """torchrun finds its nodes by what the job tells it; every rank is there once."""
    assert printed(app, "torchrun", "--nproc_per_node=2", "sum.py") == SUMS


def test_accelerate_in_a_line_of_shell_reduces_over_two_nodes(app: tuple[Laptop, Path]) -> None:
    """It is told of the nodes by the options that come in front of the user's."""
    if "accelerate" not in (app[1] / "requirements.txt").read_text():
        pytest.skip("pip's configured sources have no accelerate")
    line = "cd x && A=1 accelerate launch --num_processes 4 reduce.py --num_processes 1"
    assert printed(app, line) == SUMS
