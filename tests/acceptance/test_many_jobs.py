"""Long jobs and many jobs on a real Slurm: dependencies, arrays, restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rvstate
from tests.runkit import Laptop, repository, until, write

pytestmark = pytest.mark.cluster
ASSETS = Path(rvstate.__file__).parent


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
    _, err = follower.communicate(timeout=180)
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


SWEPT = """import os, sys, time
print(sys.argv[1:], os.environ["RV_SWEEP_SEED"], flush=True)
open(os.environ["RV_CHECKPOINT_DIR"] + "/seen", "a").write(os.environ["RV_ARRAY_INDEX"])
open(os.environ["RV_OUTPUT_DIR"] + "/result", "w").write(os.environ["RV_ARRAY_INDEX"])
if os.environ["RV_SWEEP_SEED"] == "1" and "bad" in sys.argv:
    sys.exit(3)
"""


def test_a_sweep_is_one_run(cluster: Any, laptop: Laptop, app: Path) -> None:
    """One snapshot; each element has its values, log and directories; what failed runs again."""
    write(app, {"swept.py": SWEPT})
    sweep = ("--sweep", "kind=good,bad", "--sweep", "seed=0,1", "--array", "%2")
    found = laptop.submit(*sweep, "swept.py", cwd=app)
    assert (found["jobs"], found["elements"]) == ([found["job_id"]], [0, 1, 2, 3])
    assert laptop.await_state(found["run_id"], "COMPLETED", "FAILED") == "FAILED"
    (run,) = laptop.document("ps", found["run_id"])["runs"]
    assert [e["state"] for e in run["elements"]] == ["COMPLETED"] * 3 + ["FAILED"]
    assert run["elements"][3]["parameters"] == {"kind": "bad", "seed": "1"}
    assert "1 FAILED, 3 COMPLETED" in laptop.run("ps", "-a").stdout
    logs = laptop.run("logs", found["job_id"] + "_3").stdout
    assert logs == "['--kind', 'bad', '--seed', '1'] 1\n"
    together = laptop.run("logs", found["run_id"]).stdout.splitlines()
    assert sorted(line[:4] for line in together) == ["[0] ", "[1] ", "[2] ", "[3] "]
    rv = "/scratch/abc1de/.rv"
    outputs = cluster.exec("sh", "-c", f"cat {rv}/outputs/rv-swept-{found['job_id']}/*/result")
    assert outputs.stdout == "0123"
    again = laptop.document("rerun", "--failed", "rv-swept", cwd=app)
    assert again["elements"] == [3]
    assert laptop.await_state(again["run_id"], "COMPLETED", "FAILED") == "FAILED"
    assert laptop.run("logs", again["job_id"] + "_3").stdout == logs
    seen = cluster.exec("cat", f"{rv}/checkpoints/rv-swept/3/seen").stdout
    assert seen == "33"
    snapshots = cluster.exec("ls", str(Path(found["snapshot"]).parent)).stdout.split()
    assert sum(found["run_id"] in name for name in snapshots) == 1


def test_a_long_array_is_several_jobs_and_one_run(cluster: Any, laptop: Laptop, app: Path) -> None:
    """Beyond the site's MaxArraySize; elements are stopped one by one or all at once."""
    (laptop.home / "sites").mkdir(exist_ok=True)
    profile = (ASSETS / "sites/uva.toml").read_text().replace('name = "uva"', 'name = "small"')
    text = "max_array_size = 3\n" + profile
    (laptop.home / "sites/small.toml").write_text(text)
    line = "until [ -e /scratch/abc1de/go ]; do sleep 0.1; done; echo at {index}; exit {index}"
    options = ("--site", "small", "--name", "long", "--array", "0-6%2")
    found = laptop.submit(*options, line, cwd=app)
    assert len(found["jobs"]) == 3
    waits = laptop.submit("--after", "long:any", "echo after", cwd=app)
    until(lambda: states(laptop, found)[:2] == ["RUNNING", "RUNNING"])
    laptop.run("stop", "-y", "long_1")
    laptop.run("stop", "-y", "long_6")
    until(lambda: states(laptop, found)[2] == "RUNNING")
    shown = states(laptop, found)
    assert shown == ["RUNNING", "CANCELLED", "RUNNING", *["PENDING"] * 3, "CANCELLED"]
    cluster.run_as("abc1de", "touch", "/scratch/abc1de/go")
    follower = laptop.run("logs", "-f", "long", status=2)
    assert sorted(follower.stdout.split("\n"))[1:] == [f"[{i}] at {i}" for i in (0, 2, 3, 4, 5)]
    assert laptop.await_state(waits["run_id"], "COMPLETED", "FAILED") == "COMPLETED"
    more = laptop.submit(*options[:4], "--array", "0-6", "sleep 60", cwd=app)
    laptop.run("stop", "-y", more["run_id"])
    assert laptop.await_state(more["run_id"], "CANCELLED", "COMPLETED", "FAILED") == "CANCELLED"
    assert cluster.exec("squeue", "--noheader").stdout == ""


def states(laptop: Laptop, found: dict[str, Any]) -> list[str]:
    """The state of each element."""
    (run,) = laptop.document("ps", found["run_id"])["runs"]
    return [element["state"] for element in run["elements"]]
