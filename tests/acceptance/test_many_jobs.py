"""Long jobs and many jobs on a real Slurm: dependencies, arrays, restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def laptop(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A machine of this module's own, pointed at a clean cluster."""
    cluster.reset()
    return Laptop(
        tmp_path_factory.mktemp("many") / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without requirements."""
    return repository(tmp_path_factory.mktemp("work") / "many", {"train.py": "print('one')\n"})


def test_runs_follow_other_runs(cluster: Any, laptop: Laptop, app: Path) -> None:
    """By name, job and run id; what can never start is cancelled, and that is said everywhere."""
    gate = "/scratch/abc1de/gate"
    held = f"until [ -e {gate} ]; do sleep 0.1; done; exit 3"
    first = laptop.submit("--name", "first", held, cwd=app)
    never = laptop.submit("--after", "first", "--name", "never", "echo never", cwd=app)
    mend = laptop.submit("--after", f"{first['run_id']}:failed", "echo mended", cwd=app)
    last = laptop.submit(
        *("--after", f"{first['job_id']}:any", "--after", mend["job_id"], "echo last"), cwd=app
    )
    waits = {run["run_id"]: run["reason"] for run in laptop.document("ps")["runs"]}
    assert waits[never["run_id"]].startswith(f"it waits for first ({first['job_id']})")
    follower = laptop.start("logs", "-f", "never")
    cluster.run_as("abc1de", "touch", gate)
    assert laptop.await_state(last["run_id"], "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert laptop.state(never["run_id"]) == "CANCELLED"
    why = f"it was to follow first ({first['job_id']}) only if that succeeds, and it is FAILED"
    _, err = follower.communicate(timeout=60)
    assert (follower.returncode, why in err) == (143, True), err
    assert why in laptop.run("ps", "-a").stdout
    assert why in laptop.run("logs", "never").stderr
    # known before anything is sent
    before = cluster.exec("squeue", "--states=all", "--noheader").stdout
    refused = laptop.run("run", "--after", "first", "echo never", cwd=app, status=3)
    assert "is FAILED" in refused.stderr
    assert cluster.exec("squeue", "--states=all", "--noheader").stdout == before
    again = laptop.submit("--after", last["job_id"] + ":ok", "echo x", cwd=app)
    assert laptop.await_state(again["run_id"], "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
