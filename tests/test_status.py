"""Where things stand, and which GPUs nobody uses: what is not told stays unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvstate import config
from rvstate.model.job import RunRecord
from rvstate.sitetools.nvidia import Gpu
from rvstate.slurm import sinfo, squeue
from rvstate.slurm.states import JobState
from rvstate.workflows import status
from rvstate.workflows.gpu import LONG, Idle, Use

DATA = Path(__file__).parent / "data" / "slurm"
DF = (
    "/scratch/me\n"
    "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
    "a b 1000 250 750 25% /scratch me\n"
    "Filesystem Inodes IUsed IFree IUse% Mounted on\n"
    "a b {inodes} 0 - /scratch me\n"
)


def use(busy: int | None, used: int, elapsed: int) -> Use:
    """A job with one GPU."""
    run = RunRecord("r", "7", "train", JobState.RUNNING, elapsed=elapsed)
    return Use(run, (Gpu("n1", 0, "A100", busy, used, 81920),))


@pytest.mark.parametrize(
    ("busy", "used", "elapsed", "told"),
    [
        (0, 4, LONG, True),
        (0, 4, LONG - 1, False),
        (0, 9000, LONG, False),
        (1, 4, LONG, False),
        (None, 4, LONG, False),
    ],
)
def test_one_look_tells_of_a_gpu_that_holds_nothing(
    busy: int | None, used: int, elapsed: int, told: bool
) -> None:
    """A job that just started, or whose program keeps memory, is not accused by one sample."""
    assert bool(Idle().seen((use(busy, used, elapsed),), 0.0)) is told


def test_watching_tells_of_a_gpu_that_computes_nothing_for_long() -> None:
    """Every sample in between was zero; one that was not begins again."""
    idle = Idle()
    zero, some = (use(0, 9000, 99),), (use(5, 9000, 99),)
    assert idle.seen(zero, 0.0) == ()
    assert idle.seen(zero, LONG - 1.0) == ()
    assert "has computed nothing for 10 minutes" in idle.seen(zero, float(LONG))[0]
    assert idle.seen(some, LONG + 1.0) == ()
    assert idle.seen(zero, LONG + 2.0) == ()


def test_supply_is_counted_from_nodes_by_the_sites_names() -> None:
    """The sample has the mini-cluster's nodes; what the site does not name keeps Slurm's name."""
    nodes = sinfo.parse_nodes((DATA / "sinfo-nodes-22.05.txt").read_text())
    uva = status.supply(nodes, config.load_site("uva"), {"gpu-a6000": 3})
    generic = status.supply(nodes, config.load_site("generic"), {})
    assert {gpu.kind for gpu in uva} >= {"mig", "a6000", "a100_80"}
    assert {gpu.kind for gpu in generic} >= {"1g.10gb", "a6000", "a100"}
    assert all(0 <= gpu.free <= gpu.total for gpu in (*uva, *generic))
    assert next(gpu.waiting for gpu in uva if gpu.kind == "a6000") == 3
    assert all(gpu.waiting is None for gpu in generic)
    assert all(g.waiting is None for g in status.supply(nodes, config.load_site("uva"), None))


def test_a_job_waits_in_each_partition_that_it_may_go_to() -> None:
    """`uniq -c` in front of %P."""
    assert squeue.parse_waiting("      2 gpu\n     10 gpu,gpu-a6000\nnoise\n") == {
        "gpu": 12,
        "gpu-a6000": 10,
    }


@pytest.mark.parametrize(("inodes", "known"), [("100 40", (100, 40)), ("0 0", (None, None))])
def test_places_without_a_quota_are_the_file_systems(
    inodes: str, known: tuple[int | None, int | None]
) -> None:
    """And one without a fixed number of inodes has no such limit."""
    answers = {"scratch": (0, DF.format(inodes=inodes).encode()), "home": (1, b"")}
    (place,) = status.storage(answers)
    assert (place.path, place.size, place.used) == ("/scratch/me", 1024000, 256000)
    assert (place.inodes, place.inodes_used) == known
    assert not place.quota


def test_the_sites_own_figures_go_first() -> None:
    """The user's share counts, and the file system's inodes stand beside it."""
    quota = b"Scratch            /scratch/me   2.0 KB   1.0 KB   1.0 KB  50%\n"
    answers = {"scratch": (0, DF.format(inodes="100 40").encode()), "hdquota": (0, quota)}
    (place,) = status.storage(answers)
    assert (place.size, place.used, place.inodes, place.quota) == (2048, 1024, 100, True)
