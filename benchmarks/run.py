"""run against a user's own two commands, `rsync -a` and `ssh` with `cp -al` and `sbatch`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import HERE, Bench
from benchmarks.table import line
from rvstate import assets

sys.path.insert(0, str(HERE.parent / "tests"))
from accountkit import path_with_rsync

_RTT = 50
_FILES = 20_000
_ROUNDS = 11


def rows(bench: Bench) -> Iterator[str]:
    """An unchanged project, one file changed in a large tree, a large snapshot; at 50 ms."""
    folder = bench.home / "bin"
    folder.mkdir()
    path = path_with_rsync(folder)
    if path is None:
        raise SystemExit("There is no rsync here, and none can be had.")
    bench.path = path
    bench.cluster.latency(_RTT)
    yield f"run: by rvstate, and by rsync, cp and sbatch, {_RTT} ms round trip"
    yield "  an unchanged project of 40 files"
    yield from _unchanged(bench, _project(bench.home / "small", 40))
    large = _project(bench.home / "large", _FILES)
    yield f"  one file changed in a tree of {_FILES:,}"
    yield from _one_file(bench, large)
    yield f"  a snapshot of {_FILES:,} files, on the cluster itself"
    yield from _snapshot(bench, large)
    bench.cluster.latency(0)


def _unchanged(bench: Bench, project: Path) -> Iterator[str]:
    _place(bench, project)
    # by turns, so that what else the machine does hurts all alike
    bare, peer, ours = _by_turns(
        lambda: bench.run(*bench.ssh_argv(bench.user), "rv-far", "true"),
        lambda: _two_commands(bench, project),
        lambda: _run(bench, project),
    )
    mark = bench.cluster.logins()["mark"]
    before = _manifest_date(bench, project)
    found = _run(bench, project)
    sessions = bench.cluster.logins(mark)["sessions"][bench.user]["command"]
    if _manifest_date(bench, project) != before:
        raise SystemExit("an unchanged project was transferred")
    yield line("bare `ssh host true`, warm", bare)
    yield line("rsync -a; ssh with cp -al and sbatch", peer)
    yield line("rvstate run", ours)
    yield line("remote commands", found["remote_commands"], "at most 3", most=3)
    yield line("sessions, as sshd counts them", sessions, "at most 3", most=3)
    yield line("times the two commands", ours / peer, "at most 1.5", most=1.5)
    yield line("times a bare ssh", ours / bare, "at most 6", most=6)


def _one_file(bench: Bench, project: Path) -> Iterator[str]:
    _place(bench, project)
    _run(bench, project)
    _rsync(bench, project)
    ours, theirs = [], []
    for number in range(_ROUNDS):
        (project / "d000" / "f0.py").write_text(f"change = {number}\n")
        theirs.append(_seconds(lambda: _rsync(bench, project)))
        argv = (sys.executable, "-m", "benchmarks.transfer")
        ours.append(float(bench.run(*argv, cwd=project, PYTHONPATH=str(HERE.parent))))
    mine, peer = statistics.median(ours), statistics.median(theirs)
    yield line("rsync -a of the tree", peer)
    yield line("rvstate's transfer step", mine)
    yield line("times rsync -a", mine / peer, "at most 0.33", most=1 / 3)


def _snapshot(bench: Bench, project: Path) -> Iterator[str]:
    _run(bench, project)
    own = (HERE / "snapshot.sh").read_text()
    scripts = map(assets.script, ("lib", "manifest", "submit"))
    text = "\n".join((*scripts, own))
    subprocess.run(
        [*bench.ssh_argv(bench.user), "rv-far", "cat >bench.sh"], input=text.encode(), check=True
    )
    command = f"sh bench.sh {_workspace(bench, project)} {_ROUNDS}"
    said = bench.run(*bench.ssh_argv(bench.user), "rv-far", command)
    copies, snapshots = ([float(word) for word in row.split()] for row in said.splitlines()[-2:])
    copy, ours = statistics.median(copies), statistics.median(snapshots)
    yield line("cp -al", copy)
    yield line("snapshot, checked, with its manifest", ours)
    yield line("times cp -al", ours / copy, "at most 1.4", most=1.4)


def _project(root: Path, files: int) -> Path:
    """A repository with one commit; each file about as long as a small module."""
    for number in range(files):
        path = root / f"d{number // 200:03}" / f"f{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"x = {number}\n" * 60)
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=root, check=True)
    # what changed in the last two seconds is read again by every scan
    time.sleep(2.5)
    return root


def _place(bench: Bench, project: Path) -> None:
    bench.run(*bench.ssh_argv(bench.user), "rv-far", f"mkdir -p {_peer(bench, project)}")


def _peer(bench: Bench, project: Path) -> str:
    return f"/scratch/{bench.user}/peer/{project.name}"


def _workspace(bench: Bench, project: Path) -> str:
    return f"/scratch/{bench.user}/rv-workspaces/{project.name}/main"


def _manifest_date(bench: Bench, project: Path) -> str:
    found = bench.cluster.exec("stat", "-c", "%y %i", f"{_workspace(bench, project)}/manifest")
    return str(found.stdout)


def _rsync(bench: Bench, project: Path) -> None:
    shell = " ".join(bench.ssh_argv(bench.user))
    bench.run("rsync", "-a", "-e", shell, f"{project}/", f"rv-far:{_peer(bench, project)}/code/")


def _two_commands(bench: Bench, project: Path) -> None:
    """What a careful user types: the tree, a snapshot by links, and the job in it."""
    _rsync(bench, project)
    snapshot = f"snap-{os.urandom(4).hex()}"
    bench.run(
        *bench.ssh_argv(bench.user),
        "rv-far",
        f"cd {_peer(bench, project)} && cp -al code {snapshot} && cd {snapshot} && "
        "sbatch --parsable -A mygroup -o /dev/null --wrap true",
    )


def _run(bench: Bench, project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        bench.run("rvstate", "run", "--json", "-A", "mygroup", "--", "true", cwd=project)
    )
    return found


def _seconds(what: Callable[[], object]) -> float:
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


def _by_turns(*what: Callable[[], object]) -> list[float]:
    """The median of each, after one round that warms up."""
    for one in what:
        one()
    taken = [[_seconds(one) for one in what] for _ in range(_ROUNDS)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]
