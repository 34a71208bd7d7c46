"""Real DVC on the mini-cluster: experiments run as jobs, and come home."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fixture import required, start

from rvstate import assets
from rvstate.transport import Ssh
from tests import dvckit
from tests.runkit import Laptop, git, repository, until

pytestmark = pytest.mark.cluster

SCRATCH = "/scratch/abc1de"
WHEELS = f"{SCRATCH}/wheels"
REMOTE = f"{SCRATCH}/dvc-remote"


@dataclass
class Desk:
    """A machine with a project and DVC, and the cluster that it submits to."""

    laptop: Laptop
    root: Path
    site: Any
    bare: Path
    env: dict[str, str]

    def dvc(self, *words: str) -> str:
        """Run DVC here."""
        done = subprocess.run(
            ["dvc", *words], cwd=self.root, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, *words: str) -> dict[str, Any]:
        """`rvstate dvc run --json ...`."""
        done = self.laptop.run("dvc", "run", "--json", *words, cwd=self.root)
        found: dict[str, Any] = json.loads(done.stdout)
        return found | {"said": done.stderr}

    def off(self) -> None:
        """The laptop goes away: not a connection is left."""
        Ssh("rv-login", "abc1de", str(self.site.ssh_config)).disconnect()

    def ended(self, job: str) -> str:
        """Wait until a job is over, without asking from here; the node that it was on."""
        queue = ("squeue", "--noheader", "--states=all", "--format=%T %N", "--job", job)

        def asked() -> list[str]:
            words: list[str] = self.site.run_as("abc1de", *queue).stdout.split()
            return words

        until(lambda: asked()[0] in OVER, 300)
        return asked()[1]

    def read(self, path: str) -> str:
        """A file on the cluster, or nothing."""
        return str(self.site.exec("cat", path, check=False).stdout)

    def shown(self) -> dict[str, dict[str, Any]]:
        """The experiments that `dvc exp show` knows here, name to what it says."""
        found: dict[str, dict[str, Any]] = {}
        for row in json.loads(self.dvc("exp", "show", "--json", "--all-commits")):
            for experiment in row.get("experiments") or ():
                found[experiment["name"]] = experiment["revs"][0]["data"]
                found[experiment["name"]]["rev"] = experiment["revs"][0]["rev"]
        return found


OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A project with a Git remote and a DVC remote that nodes and this machine reach."""
    wheels = dvckit.wheels()
    if wheels is None:
        reason = "pip's configured sources do not have all of DVC"
        if required():
            pytest.fail(reason)
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("dvc")
    programs = dvckit.here(wheels)
    site = start("--python=debian", "--scratch-size=3g")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (f"--port={port}", "--listen=127.0.0.1", "--export-all", "--enable=receive-pack")
    daemon = subprocess.Popen(
        ["git", "daemon", "--reuseaddr", *words, f"--base-path={root}", str(root)]
    )
    try:
        pack = subprocess.Popen(["tar", "-cf", "-", "-C", str(wheels), "."], stdout=subprocess.PIPE)
        name = dvckit.digest(dvckit.SEED)
        seed = f"{REMOTE}/files/md5/{name[:2]}"
        put = f"mkdir -p {seed} && printf '%s' '{dvckit.SEED}' >{seed}/{name[2:]}"
        to = f"{put} && mkdir -p {WHEELS} && tar -xf - -C {WHEELS}"
        command = ["ssh", "-F", str(site.ssh_config), "-l", "abc1de", "rv-login", to]
        subprocess.run(command, stdin=pack.stdout, check=True, timeout=120)
        assert pack.wait() == 0
        laptop = Laptop(
            root / "laptop",
            '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
            f'ssh_config = "{site.ssh_config}"\n[defaults]\naccount = "mygroup"\ntime = "10m"\n'
            # the check of all that came with DVC is no matter of these tests
            '[environment]\nimports = ["dvc"]\n',
        )
        laptop.env["PATH"] = f"{programs}:{laptop.env['PATH']}"
        laptop.env |= {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_NOSYSTEM": "1"}
        bare = root / "app.git"
        git(root, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        config = f"[core]\n    remote = there\n['remote \"there\"']\n    url = {REMOTE}\n"
        needs = f"--no-index\n--find-links {WHEELS}\ndvc\n"
        app = repository(
            root / "app", {**dvckit.FILES, ".dvc/config": config, "requirements.txt": needs}
        )
        git(app, "remote", "add", "origin", f"git://127.0.0.1:{port}/app.git")
        git(app, "config", "user.name", "A")
        git(app, "config", "user.email", "a@example.org")
        git(app, "push", "--quiet", "--set-upstream", "origin", "main")
        # the same directory, as this machine sees it
        seen = f"/proc/{site.facts['pid']}/root{REMOTE}"
        (app / ".dvc" / "config.local").write_text(f"['remote \"there\"']\n    url = {seen}\n")
        yield Desk(laptop, app, site, bare, laptop.env)
    finally:
        daemon.terminate()
        daemon.wait()
        site.down()


def test_experiments_run_while_the_laptop_is_off(desk: Desk) -> None:
    """Changed, moved, failed, out of time: what was submitted ran, and nothing is lost."""
    train = desk.root / "train.py"
    committed = train.read_text()
    # what is not committed goes along, for it is sent with the first
    train.write_text(committed.replace("as it is committed", "as it lies here"))
    message = 'it\'s "$HOME" `id`\\n *'
    changed = desk.submit("-S", "model.lr=0.1", "-n", "changed", "-m", message)
    train.write_text(committed)
    # a clone of the pushed commit, which waits while its branch goes on
    words = ("--mode", "clone", "--begin", "now+1hour", "-S", "model.lr=0.3", "-n", "cloned")
    cloned = desk.submit(*words)
    train.write_text(committed.replace("as it is committed", "as the branch went on"))
    git(desk.root, "commit", "--quiet", "--all", "-m", "the branch moves")
    git(desk.root, "push", "--quiet")
    failing = desk.submit("-S", "rows=7", "-S", "fails=true")
    slow = desk.submit("-S", "rows=9", "-S", "seconds=300")
    desk.off()
    mark = desk.site.logins()["mark"]
    user = ("scontrol", "update", f"jobid={cloned['job_id']}", "StartTime=now")
    desk.site.run_as("abc1de", *user)
    until(lambda: "Running stage 'train'" in desk.read(slow["log"]), 300)
    # its time is up: Slurm warns it a minute ahead
    desk.site.exec("scontrol", "update", f"jobid={slow['job_id']}", "timelimit=1")
    # its node failed, as Slurm sees it, when its experiment was pushed: it is started again
    nodes = {desk.ended(changed["job_id"])}
    desk.site.run_as("abc1de", "scontrol", "requeue", changed["job_id"])
    nodes |= {desk.ended(job["job_id"]) for job in (changed, cloned, failing, slow)}
    assert "not run a second time" in desk.read(changed["error_log"])
    assert desk.read(changed["log"]).count("Running stage 'train'") == 1
    assert not desk.site.logins(since=mark)["accepted"]
    for rows in (7, 9):
        digest = dvckit.digest("data\n" * rows + dvckit.SEED)
        desk.site.exec("ls", f"{REMOTE}/files/md5/{digest[:2]}/{digest[2:]}")
    assert desk.site.exec("ls", f"{REMOTE}/runs").stdout.strip()
    for node in nodes:
        # of what a node has for itself nothing is left
        look = ("srun", "--account=mygroup", f"--nodelist={node}", "ls", "-A", "/tmp")
        assert "rvstate-dvc" not in desk.site.run_as("abc1de", *look).stdout
    runs = {run["run_id"]: run for run in desk.laptop.document("ps")["runs"]}
    said = [
        (runs[job["run_id"]]["state"], runs[job["run_id"]]["results"])
        for job in (changed, cloned, failing, slow)
    ]
    assert said == [
        ("COMPLETED", "pushed experiment changed"),
        ("COMPLETED", "pushed experiment cloned"),
        ("FAILED", "pushed the run cache"),
        ("FAILED", "pushed the run cache"),
    ]
    pulled = desk.laptop.document("dvc", "pull", cwd=desk.root)
    assert sorted(pulled["remote"]) == ["changed", "cloned"], pulled
    shown = desk.shown()
    assert shown["changed"]["metrics"]["metrics.json"]["data"] == {
        "loss": 0.2,
        "code": "as it lies here",
    }
    assert shown["cloned"]["metrics"]["metrics.json"]["data"] == {
        "loss": 0.6,
        "code": "as it is committed",
    }
    assert git(desk.root, "log", "-1", "--format=%B", shown["changed"]["rev"]).strip() == message
    # its files came, too: they are in the cache here
    digest = dvckit.digest("lr 0.1\n")
    assert (desk.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).is_file()


def test_where_nodes_reach_no_remote_the_login_node_pushes(desk: Desk) -> None:
    """It is told before submission; the commit comes by the login node, and results leave by it."""
    site = assets.site("uva")
    assert site is not None
    assert "compute_internet = true" in site
    offline = site.replace("compute_internet = true", "compute_internet = false")
    (desk.laptop.home / "sites").mkdir()
    (desk.laptop.home / "sites" / "far.toml").write_text(offline)
    # what earlier jobs have fetched is gone
    desk.site.exec("rm", "-rf", f"{SCRATCH}/.cache/dvc")
    words = ("--site", "far", "--mode", "clone", "-S", "model.lr=0.7", "-n", "offline")
    job = desk.submit(*words)
    assert "reach no remote" in job["said"]
    assert "did not fetch" not in job["said"]
    name = dvckit.digest(dvckit.SEED)
    desk.site.exec("ls", f"{SCRATCH}/.cache/dvc/files/md5/{name[:2]}/{name[2:]}")
    desk.ended(job["job_id"])
    run = next(r for r in desk.laptop.document("ps")["runs"] if r["run_id"] == job["run_id"])
    assert run["results"].startswith("kept experiment offline"), run
    assert "not pushed" in desk.laptop.run("ps").stdout
    # a DVC remote that jobs reach and this machine does not
    (local := desk.root / ".dvc" / "config.local").rename(local.with_suffix(".away"))
    pulled = desk.laptop.document("dvc", "pull", cwd=desk.root)
    local.with_suffix(".away").rename(local)
    assert pulled["pushed"] == ["experiment offline"], pulled
    assert pulled["remote"] == ["offline"], pulled
    digest = dvckit.digest("lr 0.7\n")
    assert (desk.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).is_file(), pulled
    assert desk.shown()["offline"]["metrics"]["metrics.json"]["data"]["loss"] == 1.4


def test_a_sweep_and_the_queue_here_are_arrays_whose_experiments_come_home(desk: Desk) -> None:
    """Each with its parameters, its name and its metrics; the queue here is empty then."""
    sweep = desk.submit("-S", "model.lr=0.01,0.02", "-n", "swept")
    desk.laptop.run("dvc", "run", "--queue", "-S", "model.lr=0.03", "-n", "q", cwd=desk.root)
    queued = desk.submit("--run-all")
    assert not git(desk.root, "for-each-ref", "refs/exps/celery/stash").strip()
    # somebody has pushed another result of that name
    base = git(desk.root, "rev-parse", "HEAD").strip()
    theirs = git(desk.root, "commit-tree", "-p", base, "-m", "theirs", f"{base}^{{tree}}").strip()
    taken = f"refs/exps/{base[:2]}/{base[2:]}/taken"
    git(desk.root, "push", "--quiet", "origin", f"{theirs}:{taken}")
    for job in (sweep, queued):
        desk.ended(job["job_id"])
    other = desk.submit("-S", "model.lr=0.9", "-n", "taken")
    desk.ended(other["job_id"])
    renamed = f"taken-{other['run_id'][16:]}"
    assert f"this one is named {renamed}" in desk.read(other["error_log"])
    found = {e["name"]: e for e in desk.laptop.document("dvc", "queue")["experiments"]}
    for name, index in (("swept-0", 0), ("swept-1", 1), ("q", 0)):
        row = found[name]
        assert (row["index"], row["state"], row["results"]) == (index, "COMPLETED", "pushed"), row
    assert found["swept-1"]["parameters"] == {"model.lr": "0.02"}
    desk.dvc("exp", "pull", "origin", "swept-0", "swept-1", "q", renamed)
    shown = desk.shown()
    losses = [
        shown[name]["metrics"]["metrics.json"]["data"]["loss"]
        for name in ("swept-0", "swept-1", "q", renamed)
    ]
    assert losses == [0.02, 0.04, 0.06, 1.8]
    assert found[renamed]["results"] == "pushed"
    assert git(desk.bare, "rev-parse", taken).strip() == theirs


def test_the_example_comes_to_what_its_page_shows(desk: Desk, tmp_path: Path) -> None:
    """Run by DVC on this machine, as nothing of it is about a cluster."""
    root = Path(__file__).parents[2]
    example = tmp_path / "solubility"
    shutil.copytree(root / "examples" / "dvc", example)
    git(example, "init", "--quiet")
    here = Desk(desk.laptop, example, desk.site, desk.bare, desk.env)
    here.dvc("init")
    git(example, "add", "--all")
    git(example, "-c", "user.name=A", "-c", "user.email=a@e.org", "commit", "--quiet", "-m", "one")
    here.dvc("exp", "run", "--set-param", "model.lr=0.05")
    rmse = json.loads((example / "metrics.json").read_text())["rmse"]
    rows = (root / "docs" / "dvc.md").read_text().splitlines()
    assert any(row.split()[-3:] == [str(rmse), "0.05", "200"] for row in rows), rmse
