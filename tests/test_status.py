"""Where things stand, and which GPUs nobody uses: what is not told stays unknown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rvstate import config
from rvstate.model.job import RunRecord
from rvstate.model.plan import Action, Change, Plan
from rvstate.model.resources import Schedule
from rvstate.model.site import Gpu as SiteGpu
from rvstate.sitetools.nvidia import Gpu
from rvstate.slurm import sinfo, squeue
from rvstate.slurm.states import JobState
from rvstate.tunnel import Tunnel
from rvstate.views import status as view
from rvstate.workflows import questions, status
from rvstate.workflows.gpu import LONG, Idle, Use
from rvstate.workflows.questions import Said

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
    answers = {"scratch": Said(0, DF.format(inodes=inodes).encode()), "home": Said(1, b"")}
    (place,) = questions.storage(answers)
    assert (place.path, place.size, place.used) == ("/scratch/me", 1024000, 256000)
    assert (place.inodes, place.inodes_used) == known
    assert not place.quota


@pytest.mark.parametrize("tool", ["hdquota", "/opt/site/showquota --mine", ""])
def test_the_profile_names_the_tool(tool: str) -> None:
    """Its command line is what is asked; an empty one asks nothing."""
    site = dataclasses.replace(config.load_site("generic"), quota=tool)
    session = SimpleNamespace(config=SimpleNamespace(site=site))
    asked = questions.storage_questions(session)  # type: ignore[arg-type]
    assert (tool in asked.get("hdquota", "") and bool(tool)) is bool(tool)
    assert ("hdquota" in asked) is bool(tool)


def test_the_sites_own_figures_go_first() -> None:
    """The user's share counts, and the file system's inodes stand beside it."""
    quota = b"Scratch            /scratch/me   2.0 KB   1.0 KB   1.0 KB  50%\n"
    answers = {"scratch": Said(0, DF.format(inodes="100 40").encode()), "hdquota": Said(0, quota)}
    (place,) = questions.storage(answers)
    assert (place.size, place.used, place.inodes, place.quota) == (2048, 1024, 100, True)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Said(0, b"mygroup 1 0 1\n"), ()),
        (Said(0, b""), ()),
        (Said(127, b"", "sh: allocations: not found\n"), ()),
        (Said(124), ("allocations did not answer within 10 seconds.",)),
        (Said(3, b"", "one\nboom\n"), ("allocations failed: boom",)),
        (Said(3), ("allocations failed: exit code 3",)),
        (Said(0, b"nothing that we know\n"), ("allocations printed nothing that can be read.",)),
    ],
)
def test_a_tool_that_failed_is_not_one_that_tells_nothing(
    said: Said, told: tuple[str, ...]
) -> None:
    """A site that has no such tool is no trouble; one whose tool fails is, and says why."""
    assert questions.site_trouble({"allocations": said}) == told
    if told:
        assert not questions.balances({"allocations": said})


def test_a_place_of_which_nobody_could_tell_is_named() -> None:
    """It is not left out in silence."""
    answers = {"home": Said(124), "scratch": Said(0, b"x")}
    assert questions.storage_trouble(answers) == ("df of home did not answer within 10 seconds.",)


def test_types_of_one_name_are_told_apart_by_partition_and_others_are_summed() -> None:
    """Two sorts of a100 by where they are; two names of Slurm for one type of the site."""
    sorts = {
        "a100_40": SiteGpu(partition="gpu-40", gres="a100", per_node=4),
        "a100_80": SiteGpu(partition="gpu-80", gres="a100", per_node=4, aliases=("a100xl",)),
    }
    site = dataclasses.replace(config.load_site("generic"), gpus=sorts)

    def node(name: str, partition: str, kind: str) -> sinfo.Node:
        gres = (sinfo.Gres("gpu", kind, 4),)
        return sinfo.Node(name, (partition,), "idle", "", 8, 8, 100, 100, gres, (), ())

    nodes = (
        node("n1", "gpu-40", "a100"),
        node("n2", "gpu-80", "a100"),
        node("n3", "gpu-80", "a100xl"),
    )
    found = {gpu.kind: (gpu.free, gpu.total) for gpu in status.supply(nodes, site, {})}
    assert found == {"a100_40": (4, 4), "a100_80": (8, 8)}


@pytest.mark.parametrize(
    ("record", "pending", "last", "words"),
    [
        (None, False, "", "nothing is scheduled against it; it never ran"),
        (None, True, None, "a schedule is declared and not there yet"),
        ("scrontab 1", False, "5", "scrontab runs keepalive; last success "),
        ("scrontab 1", True, None, "scrontab runs keepalive, and converge would change that"),
    ],
)
def test_keepalive_is_told_as_it_is_not_as_it_is_wished(
    record: str | None, pending: bool, last: str | None, words: str
) -> None:
    """What is there, whether that is what was declared, and when it last did its work."""
    change = Change(Schedule(), Action.CREATE if pending else Action.NO_OP, "")
    looks = ({"record": record} if record else {}, {})
    view = SimpleNamespace(observed=SimpleNamespace(schedules=looks), plan=Plan((change,)))
    session: Any = SimpleNamespace(config=config.load(options={"connection": {"site": "uva"}}))
    told = status.keepalive_words(session, view, last)  # type: ignore[arg-type]
    assert f"after 90 days (atime); {words}" in told
    unknown = status.keepalive_words(session, None, None)
    assert unknown.endswith("what is scheduled against it is not known")


UNKNOWN = status.Status(
    label="me@there",
    node="",
    slurm=True,
    paying="group",
    balances=None,
    storage=(),
    converged=None,
    changes=None,
    refusals=None,
    keepalive="",
    runs=None,
    gpus=None,
    waiting=None,
    trouble=("squeue failed: no answer",),
    remote_commands=1,
)


def test_what_nobody_could_tell_is_shown_as_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither left out, nor zero, nor nobody."""
    view.show(UNKNOWN, ())
    shown = capsys.readouterr()
    rows = {line[:11].strip(): line[11:] for line in shown.out.splitlines()}
    assert rows["account"] == "group; its balance is not known"
    assert rows["rvstate"].endswith("what is pending is not known")
    assert rows["jobs"] == rows["GPUs"] == rows["queue"] == "not known"
    assert "squeue failed: no answer" in shown.err
    found = json.loads(view.document(UNKNOWN, ()))
    assert found["jobs"] is found["gpus"] is found["waiting"] is None
    assert found["account"]["balances"] is found["state"]["pending_changes"] is None


def test_it_is_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """However many jobs, queues and tunnels there are."""
    runs = tuple(
        RunRecord(f"r{n}", str(n), "train", JobState.RUNNING, nodes=("n1",)) for n in range(300)
    )
    tunnels = tuple(Tunnel(n, n, "n1", "7", "train", "me@there") for n in range(60))
    waiting = {f"p{n}": n for n in range(90)}
    gpus = tuple(status.GpuSupply(f"g{n}", "p", 8, 8, 0) for n in range(60))
    places = tuple(questions.Storage("s", f"/s{n}", 10, 1, None, None, True) for n in range(60))
    found = dataclasses.replace(
        UNKNOWN, runs=runs, waiting=waiting, gpus=gpus, storage=places, trouble=()
    )
    view.show(found, tunnels)
    assert len(capsys.readouterr().out.splitlines()) <= 42
