"""What is on scratch stays whole and tidy, on a real cluster, with purges and full file systems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository

pytestmark = pytest.mark.cluster

SCRATCH = "/scratch/abc1de"


@pytest.fixture(scope="module")
def place(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """An account with a run that has ended and one that waits; reset afterwards."""
    cluster.reset()
    root = tmp_path_factory.mktemp("upkeep")
    laptop = Laptop(
        root / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )
    app = repository(root / "work/app", {"train.py": "print('one')\n", "data/x": "1\n"})
    done = laptop.submit("train.py", cwd=app)
    waits = laptop.submit("sleep", "600", cwd=app)
    laptop.await_state(done["run_id"], "COMPLETED")
    laptop.env |= {"RVSTATE_SNAPSHOT_KEEP_DAYS": "0", "RVSTATE_RETENTION_RUNS": "0"}
    yield laptop, {"app": app, "done": done, "waits": waits}
    cluster.reset()


@pytest.fixture
def witness(cluster: Any) -> Any:
    """The account through testinfra, which shares no code with rvstate."""
    import testinfra

    return testinfra.get_host("ssh://abc1de@rv-login", ssh_config=str(cluster.ssh_config))


def test_what_a_purge_took_is_named_and_mended(place: Any, cluster: Any, witness: Any) -> None:
    """Variables and scripts are written again from here; a snapshot is named with its remedy."""
    laptop, known = place
    snapshot = known["waits"]["snapshot"]
    laptop.run("verify")
    spoil = f"rm {snapshot}/data/x {SCRATCH}/.rv/lib/*/job.sh && : >{SCRATCH}/.rv/env/user.env"
    cluster.run_as("abc1de", "sh", "-c", spoil)
    found = json.loads(laptop.run("verify", "--json", status=1).stdout)
    damaged = {t["kind"]: t for t in found["things"] if t["state"] == "damaged"}
    assert set(damaged) == {"snapshot", "scripts"}
    assert damaged["snapshot"]["examples"] == [{"what": "missing", "path": "data/x"}]
    assert found["remote_commands"] == 1
    laptop.run("converge", "-y")
    (script,) = witness.check_output(f"ls {SCRATCH}/.rv/lib/*/job.sh").splitlines()
    assert witness.file(script).size > 0
    again = json.loads(laptop.run("verify", "--json", status=1).stdout)["things"]
    kinds = [t["kind"] for t in again if t["state"] == "damaged"]
    assert kinds == ["snapshot"]


def test_a_cut_connection_is_said(place: Any, cluster: Any) -> None:
    """Nothing is told of half a walk, nothing is removed."""
    laptop, known = place
    before = dict(laptop.env)
    config = (laptop.home / "config.toml").read_text()
    (laptop.home / "config.toml").write_text(config.replace("rv-login", "rv-far"))
    cluster.fault("drop")  # a connection that another test left, for it would go on
    cluster.fault("refuse")
    try:
        for words in (("verify",), ("usage",), ("prune", "-y")):
            done = laptop.run(*words, cwd=known["app"], status=None)
            assert done.returncode != 0
            assert done.stdout == ""
    finally:
        cluster.heal()
        (laptop.home / "config.toml").write_text(config)
    assert laptop.env == before


def test_without_an_inode_prune_makes_room(place: Any, cluster: Any, witness: Any) -> None:
    """It goes on where nothing can be written; what a job in the queue needs stays."""
    laptop, known = place
    cluster.fault("inodes", "/scratch", "0")
    try:
        laptop.run("usage")
        done = laptop.document("prune", "-y", cwd=known["app"])
    finally:
        cluster.heal()
    gone = {Path(r["path"]).name for r in done["removals"] if r["result"] == "done"}
    assert known["done"]["run_id"] in gone
    assert Path(known["done"]["snapshot"]).name in gone
    assert not witness.file(known["done"]["snapshot"]).exists
    assert witness.file(known["waits"]["snapshot"]).is_directory
    assert {k["reason"] for k in done["kept"] if k["path"] == known["waits"]["snapshot"]} == {
        "a job in the queue needs it"
    }


def test_the_sites_own_figures_are_shown(place: Any) -> None:
    """The quota tool's and the walk's, with one remote command."""
    laptop, _ = place
    found = laptop.document("usage")
    assert found["remote_commands"] == 1
    assert {s["path"] for s in found["storage"] if s["quota"]} >= {SCRATCH, "/home/abc1de"}
    assert ("code", "app/main") in {(p["kind"], p["name"]) for p in found["places"]}
