"""GPUs without a type, against a real Slurm whose GPUs others hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository, until

pytestmark = pytest.mark.cluster

FULL = (("gpu-a6000", 1), ("gpu-a100-80", 2), ("gpu-h200", 1))


@pytest.fixture
def laptop(cluster: Any, tmp_path: Path) -> Iterator[Laptop]:
    """rvstate on a machine whose clock face is hours behind the cluster's."""
    cluster.reset()
    found = Laptop(
        tmp_path / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n'
        '[defaults]\naccount = "mygroup"\ntime = "1h"\n[environment]\nkind = "none"\n',
    )
    found.env["TZ"] = "America/New_York"
    yield found
    cluster.reset()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A project that appends what it runs on to a file of its account."""
    text = 'echo "$SLURM_JOB_ID $SLURM_JOB_PARTITION" >>"$HOME/ran"\nsleep "${1:-0}"\n'
    return repository(tmp_path / "app", {"work.sh": text})


def fill(cluster: Any, *partitions: str) -> list[str]:
    """Somebody else's jobs hold every GPU of these; their numbers, in that order."""
    jobs = []
    for partition in partitions:
        for _ in range(dict(FULL)[partition]):
            words = ("-A", "mygroup", "-p", partition, "--gres=gpu:8", "--time=2:00:00")
            done = cluster.run_as("xyz9uv", "sbatch", "--parsable", *words, "--wrap=sleep 3000")
            jobs.append(done.stdout.strip())
    running = ("squeue", "-h", "-t", "R", "-u", "xyz9uv")
    until(lambda: cluster.exec(*running).stdout.count("\n") == len(jobs))
    return jobs


def ours(cluster: Any) -> dict[str, str]:
    """Number and state of our jobs in the queue."""
    rows = cluster.exec("squeue", "-h", "-u", "abc1de", "-o", "%A %T").stdout.splitlines()
    return dict(row.split() for row in rows)


def ran(cluster: Any) -> list[str]:
    """What the program wrote, a line each time that it ran."""
    return str(cluster.run_as("abc1de", "sh", "-c", "cat ran 2>/dev/null || :").stdout).splitlines()


def test_the_cheapest_that_starts_now_is_asked_for_alone(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """Estimates of all types in one remote command, whatever zone the laptop is in."""
    fill(cluster, "gpu-a6000")
    words = ("-g", "1", "--gpu-mem", "40G")
    found = laptop.submit(*words, "--dry-run", "work.sh", cwd=app)
    types = {t["type"]: t for t in found["allocation"]["types"]}
    now = found["allocation"]["now"]
    assert abs(now - time.time()) < 60
    assert found["allocation"]["picked"] == ["a100_80"]
    assert types["a100_80"]["start"] - now < 60
    assert 6000 < types["a6000"]["start"] - now < 7300
    assert types["a6000"]["units"] == pytest.approx(142.73)
    assert types["a40"]["refusal"]
    assert found["allocation"]["left_out"]["rtx3090"] == "it has 24 GiB"
    assert "#SBATCH --gres=gpu:a100:1" in found["script"]
    run = laptop.submit("-f", *words, "work.sh", cwd=app)
    assert run["exit_code"] == 0
    assert ran(cluster) == [f"{run['job_id']} gpu-a100-80"]


def test_of_several_jobs_the_first_to_start_runs_alone_without_the_laptop(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """Nothing starts now: three jobs of one run; those that lose are cancelled on the cluster."""
    blockers = fill(cluster, *dict(FULL))
    run = laptop.submit("-g", "1", "work.sh", "4", cwd=app)
    assert len(run["jobs"]) == 3
    assert ours(cluster) == dict.fromkeys(run["jobs"], "PENDING")
    (known,) = laptop.document("ps")["runs"]
    assert known["state"] == "PENDING"
    assert f"One of jobs {', '.join(run['jobs'])} is to run" in known["reason"]
    refused = laptop.run("run", "--after", run["job_id"], "work.sh", cwd=app, status=3).stderr
    assert "is not known yet" in refused
    # two become free at the same moment; nobody asks from here meanwhile
    cluster.exec("scancel", *blockers[1:])
    until(lambda: len(ours(cluster)) == 1)
    ((winner, state),) = ours(cluster).items()
    assert state == "RUNNING"
    followed = laptop.run("logs", "-f", run["job_id"])
    assert f"({winner}): COMPLETED" in followed.stderr
    assert [line.split()[0] for line in ran(cluster)] == [winner]
    (known,) = laptop.document("ps")["runs"]
    assert (known["job_id"], known["state"]) == (winner, "COMPLETED")


def test_jobs_that_start_together_run_once(cluster: Any, laptop: Laptop, app: Path) -> None:
    """Where nothing cancels the losers they end by themselves; `stop` ends all that wait."""
    blockers = fill(cluster, *dict(FULL))
    run = laptop.submit("-g", "1", "work.sh", cwd=app)
    # as on a site whose compute nodes have no Slurm commands
    folder = f"/scratch/abc1de/.rv/runs/{run['run_id']}"
    cluster.run_as("abc1de", "sh", "-c", f"echo {run['job_id']} >{folder}/copies")
    cluster.exec("scancel", *blockers)
    until(lambda: not ours(cluster))
    assert len(ran(cluster)) == 1
    fill(cluster, *dict(FULL))
    other = laptop.submit("-g", "1", "work.sh", cwd=app)
    assert len(ours(cluster)) == 3
    # the look, the estimates of all types, the submission of all three
    assert other["remote_commands"] == 3
    laptop.run("stop", "-y", other["jobs"][2])
    until(lambda: not ours(cluster))
    assert laptop.state(other["run_id"]) == "CANCELLED"


def test_one_job_for_several_partitions_where_slurm_can_say_so(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """No feature tells these types apart: one job, which no claim has to keep alone."""
    blockers = fill(cluster, "gpu-a6000", "gpu-h200")
    run = laptop.submit("-t", "a6000,h200", "work.sh", cwd=app)
    assert ours(cluster) == {run["job_id"]: "PENDING"}
    asked = cluster.exec("squeue", "-h", "-j", run["job_id"], "-o", "%P %b").stdout.split()
    assert sorted(asked[0].split(",")) == ["gpu-a6000", "gpu-h200"]
    assert asked[1] == "gres:gpu:1"
    cluster.exec("scancel", blockers[1])
    until(lambda: ran(cluster))
    assert ran(cluster) == [f"{run['job_id']} gpu-h200"]
