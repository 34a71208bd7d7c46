"""Working on the cluster as if it were here: one running job, and what looks at it or enters it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository

pytestmark = pytest.mark.cluster

SECRET = "hunter2 'q' \"d\" $HOME #x\nline two"


@pytest.fixture(scope="module")
def laptop(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """rvstate on a machine of its own, with one secret."""
    cluster.reset()
    found = Laptop(
        tmp_path_factory.mktemp("laptop"),
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )
    (found.home / "env.json").write_text(json.dumps({"vars": {"RV_TEST_SECRET": SECRET}}))
    yield found
    for port in [t["port"] for t in found.document("status").get("tunnels", [])]:
        found.run("forward", "--stop", str(port))


@pytest.fixture(scope="module")
def job(laptop: Laptop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job with two GPUs that waits to be ended."""
    app = repository(tmp_path_factory.mktemp("work") / "desk", {"mark": "snapshot\n"})
    words = ("-g", "2", "-t", "a100", "--time", "1h", "--name", "desk", "sleep", "900")
    found = laptop.submit(*words, cwd=app)
    laptop.await_state(found["run_id"], "RUNNING")
    return found


def test_status_is_one_remote_command(cluster: Any, laptop: Laptop, job: dict[str, Any]) -> None:
    """Account, storage, pending changes, jobs and free GPUs, as Slurm and the site tell them."""
    mark = cluster.logins()["mark"]
    found = laptop.document("status")
    assert sum(cluster.logins(mark)["sessions"].get("abc1de", {}).values()) == 1
    assert found["connection"] == {"ok": True, "account": "abc1de@rv-login", "node": "udc-ba33-1"}
    assert found["account"]["name"] == "mygroup"
    assert found["account"]["balances"][0]["available"] == 8742210
    assert [run["job_id"] for run in found["jobs"]] == [job["job_id"]]
    places = {place["path"]: place for place in found["storage"]}
    assert places["/home/abc1de"]["quota"]
    assert places["/scratch/abc1de"]["inodes_used"] > 0
    free = {gpu["kind"]: gpu["free"] for gpu in found["gpus"]}
    assert free["a100_80"] == 14
    # a run makes what jobs need; caches and the shell's block are converge's
    assert found["state"]["pending_changes"] > 0
    assert found["trouble"] == []
    shown = laptop.run("status").stdout
    assert len(shown.splitlines()) < 24
    assert "mygroup: 8,742,210 available" in shown


def test_status_of_an_account_that_is_not_reached_is_an_answer(
    cluster: Any, tmp_path: Path
) -> None:
    """For programs a document, with the exit code of the trouble."""
    config = (
        f'[connection]\nhost = "rv-nowhere"\nsite = "uva"\nssh_config = "{cluster.ssh_config}"\n'
    )
    done = Laptop(tmp_path / "lost", config).run("status", "--json", status=1)
    found = json.loads(done.stdout)
    assert found["connection"]["ok"] is False
    assert found["connection"]["reason"] == "UnreachableError"


def test_gpus_are_asked_inside_the_job(cluster: Any, laptop: Laptop, job: dict[str, Any]) -> None:
    """The job's own two on its node; the driver's words are the stand-in's."""
    cluster.exec("sh", "-c", "echo 42 2048 >/run/cluster/gpu-use")
    (run,) = laptop.document("gpu")["runs"]
    node = cluster.exec("squeue", "-h", "-j", job["job_id"], "-o", "%N").stdout.strip()
    seen = [(g["node"], g["index"], g["busy_percent"], g["memory_used_mib"]) for g in run["gpus"]]
    assert seen == [(node, 0, 42, 2048), (node, 1, 42, 2048)]
    assert "42%" in laptop.run("gpu", job["job_id"]).stdout
    assert "is called" in laptop.run("gpu", "nosuch", status=64).stderr


def test_costs_are_counted_from_accounting(laptop: Laptop, job: dict[str, Any]) -> None:
    """Two GPUs of that type, by the site's price; and a plan leaves the balance lessened by it."""
    found = laptop.document("cost", "--days", "1")
    (cost,) = [c for c in found["costs"] if c["kind"] == "a100_80"]
    assert cost["jobs"] >= 1
    assert cost["units"] == pytest.approx(cost["hours"] * 508.89)
    plan = laptop.document("cost", "-g", "2", "-t", "a100", "--time", "4h")
    assert plan["total"] == pytest.approx(8 * 508.89)
    assert plan["balance"]["available"] == 8742210
    assert "8,738,139 after this job" in laptop.run("cost", "-g2", "-ta100", "--time=4h").stdout
