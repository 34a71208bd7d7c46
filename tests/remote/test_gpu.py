"""Asking nodes for their GPUs: each job tells its own trouble, and keeps no other waiting."""

from __future__ import annotations

import pytest
from harness import Account

from rvstate.model.job import RunRecord
from rvstate.script import Answer
from rvstate.slurm.states import JobState
from rvstate.workflows.gpu import read

# Stands for srun: goes on with what is to be run on the node, which is this machine.
SRUN = """#!/bin/sh
for word; do case $word in --jobid=*) job=${word#--jobid=} ;; esac; done
while [ "$1" != sh ]; do shift; done
case $job in
    9) echo "srun: error: Invalid job id 9" >&2; exit 1 ;;
esac
SLURM_JOB_ID=$job exec "$@"
"""
SMI = """#!/bin/sh
case $SLURM_JOB_ID in
    1) echo '0, NVIDIA A100, 42 %, 10 MiB, 81920 MiB' ;;
    2) echo '0, NVIDIA A100, 1 %, 10 MiB, 81920 MiB'; echo 'GPU 1 is lost'; exit 15 ;;
    3) echo 'no driver here'; exit 9 ;;
    4) exit 127 ;;
    5) sleep 60 ;;
    6) echo 'No devices were found' ;;
esac
"""


@pytest.fixture
def answer(account: Account) -> Answer:
    """What seven jobs answer, whose nodes are in all sorts of states."""
    bin_ = account.root / "bin"
    bin_.mkdir()
    # for srun it waits as long as it takes, for nvidia-smi a second
    patient = '#!/bin/sh\nif [ "$1" = -k ]; then shift 3; exec "$@"; fi\nshift\n'
    patient += 'exec /usr/bin/timeout 1 "$@"\n'
    for name, text in {"srun": SRUN, "nvidia-smi": SMI, "timeout": patient}.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    words = [word for job in (*range(1, 7), 9) for word in (str(job), "1")]
    return account.run("gpu", "nvidia-smi -q", *words, PATH=f"{bin_}:{account.path}")


def test_each_job_tells_of_itself(answer: Answer) -> None:
    """What is known stands, and what is not has its own reason and no other job's."""
    runs = tuple(
        RunRecord("r", str(job), "x", JobState.RUNNING, elapsed=1) for job in (*range(1, 7), 9)
    )
    uses = read(runs, answer)
    assert [[gpu.busy for gpu in use.gpus] for use in uses] == [[42], [1], [], [], [], [], []]
    why = [use.error.partition(": ")[2] for use in uses]
    assert why == [
        "",
        "GPU 1 is lost",
        "no driver here",
        "there is no nvidia-smi",
        "nvidia-smi does not answer",
        "No devices were found",
        "error: Invalid job id 9",
    ]
