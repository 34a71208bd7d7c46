"""What is on scratch stays whole and tidy, on a real cluster, with purges and full file systems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rvstate.workflows import prune
from rvstate.workflows.session import open_session
from tests import envkit
from tests.runkit import Laptop, repository, until

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
    waits = laptop.submit("echo begun && sleep 600", cwd=app)
    laptop.await_state(done["run_id"], "COMPLETED")
    # it has read what a test takes away
    until(lambda: laptop.run("logs", waits["run_id"], status=None).stdout == "begun\n")
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


def test_the_sites_own_list_stands_beside_ours(place: Any, cluster: Any) -> None:
    """A tool as sites have it is asked where the profile names it, and its files are counted."""
    laptop, known = place
    tool = "/usr/local/bin/check-scratch-for-purge"
    lines = f"{known['waits']['snapshot']}/train.py\n{SCRATCH}/mine.dat\n/scratch/other/x\n"
    cluster.exec(
        "sh", "-c", f"printf '#!/bin/sh\\ncat <<E\\n{lines}E\\n' >{tool}; chmod 755 {tool}"
    )
    try:
        found = laptop.document("keepalive", "status")["report"]
    finally:
        cluster.exec("rm", tool)
    victims = {entry["path"]: entry["victims"] for entry in found["places"]}
    assert (victims["rv-workspaces"], victims[".rv"]) == (1, 0)
    assert found["victims"] == 2


def test_a_damaged_environment_and_a_full_scratch(place: Any, cluster: Any, tmp_path: Path) -> None:
    """Without room it is found and said; with room it is mended, in its versions."""
    laptop, _ = place
    app = repository(
        tmp_path / "work/built",
        {
            "requirements.txt": "--no-index\n--find-links ./dist\ntiny\n",
            "train.py": "import tiny\n",
        },
    )
    envkit.wheel(app / "dist", "tiny")
    link = f"{SCRATCH}/.rv/envs/built/main"
    laptop.submit("train.py", cwd=app)
    module = f"{link}/lib/python3*/site-packages/tiny/__init__.py"
    cluster.run_as("abc1de", "sh", "-c", f"rm {module}")
    cluster.fault("fill", "/scratch", "0")
    try:
        found = json.loads(laptop.run("verify", "--json", status=1).stdout)
        (thing,) = (t for t in found["things"] if "/envs/" in t["path"])
        assert (thing["state"], thing["missing"]) == ("damaged", 1)
        laptop.run("usage")
        cluster.run_as("abc1de", "sh", "-c", f"echo '5 damaged' >{link}/.rvstate/verified || :")
    finally:
        cluster.heal()
    laptop.run("verify", status=None)
    assert "environments: 1 of 1 damaged: built/main" in laptop.run("doctor", status=None).stdout
    assert "it was built again" in laptop.run("converge", "-y").stdout
    assert cluster.run_as("abc1de", "sh", "-c", f"cat {module}").stdout == "VERSION = '1.0'\n"


def test_what_a_job_needs_by_now_stays_and_a_cut_removal_is_finished(
    place: Any, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitted while the list was read; the connection goes in the middle of the removal."""
    laptop, known = place
    for name, value in laptop.env.items():
        if name.startswith("RVSTATE_"):
            monkeypatch.setenv(name, value)
    done = laptop.submit("train.py", cwd=known["app"])
    laptop.await_state(done["run_id"], "COMPLETED")
    folder = str(Path(done["snapshot"]).parent)
    big = f"{folder}/rv-train-20240101-000000-00000001"
    fill = f"mkdir {big} && cd {big} && seq 1 3000 | xargs -n 2000 touch"
    cluster.run_as("abc1de", "sh", "-c", fill)
    account = open_session(interactive=False)
    found = prune.plan(account, known["app"], lambda _: None)
    assert {big, done["snapshot"]} <= {removal.path for removal in found.removals}
    words = ("sbatch", "-A", "mygroup", f"--comment=rvstate:{done['run_id']}", "--wrap=sleep 60")
    cluster.run_as("abc1de", *words)
    results = {r.removal.path: r for r in prune.remove(account, found, lambda _: None)}
    assert results[done["snapshot"]].word == "kept"
    assert results[done["snapshot"]].text == "a job needs it"
    assert results[big].word == "done"
    # a run goes first, and for the snapshot somebody's lock has to be waited for: there it is cut
    first, lock = f"{SCRATCH}/.rv/runs/20240101-000000-00000002", f"{Path(folder).parent}/lock"
    hold = f"{fill}; mkdir {first}; ln -s 'elsewhere boot 1 1' {lock}"
    cluster.run_as("abc1de", "sh", "-c", hold)
    config = (laptop.home / "config.toml").read_text()
    (laptop.home / "config.toml").write_text(config.replace("rv-login", "rv-far"))
    removing = laptop.start("prune", "-y", cwd=known["app"])
    while cluster.run_as("abc1de", "test", "-d", first, check=False).returncode == 0:
        assert removing.poll() is None
    cluster.fault("drop")
    assert "cut in the middle" in removing.communicate(timeout=180)[1]
    cluster.heal()
    (laptop.home / "config.toml").write_text(config)
    cluster.run_as("abc1de", "rm", lock)
    laptop.run("prune", "-y", cwd=known["app"])
    names = cluster.run_as("abc1de", "ls", "-A", folder).stdout
    assert ("gone" in names, Path(big).name in names) == (False, False)
    assert Path(done["snapshot"]).name in names


def test_originals_of_migrations_go_when_their_time_has_come(place: Any, cluster: Any) -> None:
    """A cache that was moved to scratch: verified once more, then removed; two at once agree."""
    laptop, known = place
    cluster.run_as(
        "abc1de", "sh", "-c", "mkdir -p ~/.cache/torch; echo model >~/.cache/torch/m.bin"
    )
    laptop.run("converge", "-y")
    laptop.env["RVSTATE_RETENTION_ORIGINALS"] = "0"
    both = [laptop.start("prune", "-y", cwd=known["app"]) for _ in range(2)]
    for process in both:
        out, errors = process.communicate(timeout=180)
        assert process.returncode == 0, (out, errors)
    names = cluster.run_as("abc1de", "sh", "-c", "ls ~/.cache; cat ~/.cache/torch/m.bin").stdout
    assert "original" not in names
    assert names.endswith("model\n")
