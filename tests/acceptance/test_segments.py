"""Runs longer than a job may be, on a real Slurm: segments, warnings, failures, preemption."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from tests import runkit
from tests.runkit import Laptop, repository

pytestmark = pytest.mark.cluster

# Slurm looks for jobs past their limit twice a minute, and other clusters may run beside this one
until = functools.partial(runkit.until, seconds=240)

RV = "/scratch/abc1de/.rv"
# Counts until `finish` is there; saves and ends when it is warned, unless it is deaf.
PROGRAM = """import os, signal, sys, time
from pathlib import Path
place = Path(os.environ["RV_CHECKPOINT_DIR"])
saved = place / ("step" + os.environ.get("NODE_RANK", ""))
step = int(saved.read_text()) if saved.exists() else 0
names = ("RV_SEGMENT", "RV_SNAPSHOT", "TOKEN")
print("from", step, *(os.environ.get(name) for name in names), flush=True)
def save(*_):
    saved.write_text(str(step))
    print("saved", flush=True)
    sys.exit(0)
if "deaf" not in sys.argv:
    signal.signal(signal.SIGUSR1, save)
while not (place / "finish").exists():
    step = step + 1
    time.sleep(0.2)
"""
SEGMENTS = ("--time", "10m", "--total-time", "1h")


@pytest.fixture(scope="module")
def laptop(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A machine of this module's own, pointed at a clean cluster, with a secret."""
    cluster.reset()
    laptop = Laptop(
        tmp_path_factory.mktemp("segments") / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )
    laptop.run("env", "set", "TOKEN", "hush")
    return laptop


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without requirements."""
    return repository(tmp_path_factory.mktemp("work") / "long", {"train.py": PROGRAM})


@pytest.fixture(scope="module", autouse=True)
def real(laptop: Laptop, app: Path) -> dict[str, Any]:
    """A run that comes to a real limit, which takes a minute, while the other tests go on."""
    options = ("--time", "2m", "--signal", "USR1@60", "--total-time", "1h", "--name", "real")
    return laptop.submit(*options, "train.py", cwd=app)


@pytest.fixture(scope="module", autouse=True)
def deaf(laptop: Laptop, app: Path) -> dict[str, Any]:
    """A run whose program does not listen; being stopped takes it a while."""
    return laptop.submit(*SEGMENTS, "--name", "deaf", "train.py", "deaf", cwd=app)


@pytest.fixture(scope="module", autouse=True)
def failing(laptop: Laptop, app: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two runs whose program fails; one may try again, which takes Slurm some seconds."""
    line = "echo try; exit 4"
    once = laptop.submit(*SEGMENTS, "--name", "once", line, cwd=app)
    return once, laptop.submit(*SEGMENTS, "--retries", "1", "--name", "more", line, cwd=app)


def shown(laptop: Laptop, found: dict[str, Any]) -> dict[str, Any]:
    """What `ps` says of a run."""
    (run,) = laptop.document("ps", found["run_id"])["runs"]
    return dict(run)


def log(cluster: Any, found: dict[str, Any], kind: str = "log") -> list[str]:
    """What a run has written, read past rvstate."""
    return str(cluster.exec("cat", found[kind], check=False).stdout).splitlines()


def witness(cluster: Any, found: dict[str, Any]) -> object:
    """What is there of a run, for a test that waited in vain."""
    job = cluster.exec("scontrol", "show", "job", found.get("job_id", ""), check=False)
    said = cluster.exec("tail", "-n", "60", "/var/log/slurm/slurmctld.log").stdout
    logs = [log(cluster, found, kind) for kind in ("log", "error_log") if kind in found]
    return logs, job.stdout, said


def segments(cluster: Any, found: dict[str, Any]) -> int:
    """How many segments have begun."""
    return sum(line.startswith("from ") for line in log(cluster, found))


def begun(cluster: Any, found: dict[str, Any], count: int) -> None:
    """Wait until so many segments have begun."""
    until(lambda: segments(cluster, found) >= count, witness=lambda: witness(cluster, found))


def becomes(cluster: Any, laptop: Laptop, found: dict[str, Any], state: str) -> None:
    """Wait until `ps` says so of a run."""
    until(
        lambda: shown(laptop, found)["state"] == state,
        witness=lambda: (shown(laptop, found), witness(cluster, found)),
    )


def expire(cluster: Any, *jobs: str, seconds: int = 62) -> None:
    """Have Slurm find that the jobs are near their limit."""
    for job in jobs:
        end = f"EndTime=now+{seconds}seconds"
        cluster.run_as("abc1de", "scontrol", "update", f"jobid={job}", end)


def finish(cluster: Any, name: str) -> None:
    """Let the program end by itself."""
    cluster.run_as("abc1de", "touch", f"{RV}/checkpoints/{name}/finish")


def test_a_run_goes_on_where_it_saved(
    cluster: Any, laptop: Laptop, app: Path, deaf: dict[str, Any]
) -> None:
    """Same job, snapshot and secrets; one run in ps; one log; also on two nodes, also an array."""
    one = laptop.submit(*SEGMENTS, "--name", "one", "train.py", cwd=app)
    two = laptop.submit(*SEGMENTS, *("--name", "two", "--nodes", "2", "-p", "parallel"),
                        *("--start", "node", "train.py"), cwd=app)  # fmt: skip
    many = laptop.submit(*SEGMENTS, *("--name", "many", "--array", "0-1", "train.py"), cwd=app)
    line = laptop.submit(*SEGMENTS, *("--name", "line", "cd . && python train.py"), cwd=app)
    follower = laptop.start("logs", "-f", one["job_id"])
    node = {"log": two["log"].replace(".out", ".node1.out")}
    element = {"log": many["log"].replace("*", "1")}
    for each in (one, node, element, line, deaf):
        begun(cluster, each, 1)
    jobs = (one["job_id"], two["job_id"], many["job_id"] + "_1", line["job_id"])
    # up to half a minute goes before Slurm looks; then it is left alone a while, and ended in time
    expire(cluster, deaf["job_id"], seconds=112)
    expire(cluster, *jobs)
    becomes(cluster, laptop, one, "RESUBMITTED")
    finish(cluster, "many/0")
    # each when it is there: Slurm may look between two of them, and a second segment is short
    for each, name in ((one, "one"), (node, "two"), (element, "many/1"), (line, "line")):
        begun(cluster, each, 2)
        finish(cluster, name)
    out, err = follower.communicate(timeout=300)
    assert (follower.returncode, "COMPLETED" in err) == (0, True), err
    first, saved, second = out.splitlines()
    assert (first.split()[1:3], saved, second.split()[2]) == (["0", "1"], "saved", "2")
    assert int(second.split()[1]) > 5
    assert first.split()[3:] == second.split()[3:] == [one["snapshot"], "hush"]
    run = shown(laptop, one)
    assert (run["state"], run["segment"], run["total_seconds"]) == ("COMPLETED", 2, 3600)
    assert run["elapsed_seconds"] > 5
    for each in (two, many, line):
        becomes(cluster, laptop, each, "COMPLETED")
    assert [x.split()[2] for x in log(cluster, node) if x != "saved"] == ["1", "2"]
    assert [x.split()[2] for x in log(cluster, element) if x != "saved"] == ["1", "2"]
    assert len(log(cluster, {"log": many["log"].replace("*", "0")})) == 1
    assert [x.split()[2] for x in log(cluster, line) if x != "saved"] == ["1", "2"]


def test_a_failure_is_a_failure(
    laptop: Laptop, failing: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """It ends the run at once, or after as many more attempts as were allowed."""
    once, more = failing
    assert laptop.run("logs", "-f", "once", status=4).stdout == "try\n"
    assert laptop.run("logs", "-f", "more", status=4).stdout == "try\ntry\n"
    assert shown(laptop, once)["segment"] == 1
    assert shown(laptop, more)["segment"] == 2


def test_preemption_and_node_failure_begin_a_segment(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """What Slurm interrupts is begun again by Slurm, and by us where the site would cancel it."""
    # a node that no job of the other tests is on
    node = "udc-an25-1"
    where = ("-p", "preempt", "--sbatch", f"nodelist={node}")
    found = laptop.submit(*SEGMENTS, *where, "--name", "pre", "train.py", cwd=app)
    begun(cluster, found, 1)
    crowd_out(cluster, node)
    begun(cluster, found, 2)
    update = ("scontrol", "update", "partitionname=preempt")
    cluster.exec(*update, "PreemptMode=CANCEL")
    try:
        crowd_out(cluster, node)
        begun(cluster, found, 3)
    finally:
        cluster.exec(*update, "PreemptMode=REQUEUE")
    cluster.fault("down", node)
    becomes(cluster, laptop, found, "RESUBMITTED")
    cluster.heal()
    begun(cluster, found, 4)
    finish(cluster, "pre")
    becomes(cluster, laptop, found, "COMPLETED")
    assert shown(laptop, found)["segment"] == 4


def crowd_out(cluster: Any, node: str) -> None:
    """Have another job take the place of those in partition preempt."""
    words = ("sbatch", "-A", "mygroup", "-p", "interactive", "-w", node, "--exclusive", "--time=1")
    cluster.run_as("abc1de", *words, "--output=/dev/null", "--wrap=sleep 2")


def test_a_real_limit(cluster: Any, laptop: Laptop, real: dict[str, Any]) -> None:
    """Slurm's own clock: warned a minute ahead, saved, and begun again."""
    begun(cluster, real, 2)
    finish(cluster, "real")
    becomes(cluster, laptop, real, "COMPLETED")
    assert [x.split()[0] for x in log(cluster, real)][:3] == ["from", "saved", "from"]
    past = cluster.exec("sacct", "-X", "-D", "-n", "-j", real["job_id"], "--format=State").stdout
    *before, last = past.split()
    assert ("REQUEUED" in before, last) == (True, "COMPLETED")


def test_who_does_not_listen_is_stopped_and_stop_ends_all_of_it(
    cluster: Any, laptop: Laptop, app: Path, deaf: dict[str, Any]
) -> None:
    """In time for the next segment; stopped between two of them nothing of it runs again."""
    begun(cluster, deaf, 2)
    assert any("is ended now" in x for x in log(cluster, deaf, "error_log"))
    cluster.run_as("abc1de", "scontrol", "requeue", deaf["job_id"])
    becomes(cluster, laptop, deaf, "RESUBMITTED")
    laptop.run("stop", "-y", "deaf")
    assert shown(laptop, deaf)["state"] == "CANCELLED"
    # even where somebody puts it back: the run is given up
    again = laptop.submit(*SEGMENTS, "--name", "marked", "train.py", cwd=app)
    begun(cluster, again, 1)
    cluster.run_as("abc1de", "touch", f"{RV}/runs/{again['run_id']}/cancelled")
    cluster.run_as("abc1de", "scontrol", "requeue", again["job_id"])
    becomes(cluster, laptop, again, "FAILED")
    assert any("was cancelled" in x for x in log(cluster, again, "error_log"))
    assert (len(log(cluster, deaf)), len(log(cluster, again))) == (2, 1)
