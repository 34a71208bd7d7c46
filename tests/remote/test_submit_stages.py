"""Stages are submitted behind each other, all or none, and never twice."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from rvstate import archive, git
from rvstate.model.project import Project, Tree
from rvstate.script import Script
from rvstate.shell import join
from tests import runkit
from tests.runkit import Ran, contents, push, run, write

PIPELINE = "20260102-030405-0a1b2c00"
RUNS = {name: f"{PIPELINE[:-2]}0{n}" for n, name in enumerate(("make", "use", "tell"), 1)}
FOLLOWS = {"make": (), "use": ("make",), "tell": ("make", "use")}
SBATCH = """#!/bin/sh
# sbatch, as far as submit_stages.sh can tell: says a number and remembers what it was asked
folder=${0%/*}
before=
for word; do
    case $word in --dependency=*) before=${word#--dependency=} ;; esac
    last=$word
done
number=$(($(wc -l <"$folder/queue") + 41))
refuse=$(cat "$folder/refuse" 2>/dev/null)
if [ "$number" = "$refuse" ]; then echo "sbatch: error: no more" >&2; exit 1; fi
echo "$number PENDING rvstate:$(basename "$(dirname "$last")") ${before:--}" >>"$folder/queue"
if [ "$number" = "$(cat "$folder/dies" 2>/dev/null)" ]; then kill -s KILL -- 0; fi
echo "$number"
"""
SCANCEL = '#!/bin/sh\necho "$@" >>"${0%/*}/cancelled"\n'


@dataclass
class Place:
    """A workspace with pushed code, and a scheduler that remembers."""

    root: Path
    source: Path
    tree: Tree
    fake: Path

    def script(self, environment: str = "", state: str = "") -> Script:
        texts: dict[str, str] = {}
        for name, run_id in RUNS.items():
            texts |= {
                f"{run_id}/job.sh": f"#!/bin/bash\necho {name}\n",
                f"{run_id}/receipt.json": "{}",
                f"{run_id}/package/x": name,
            }
        words = [
            word
            for name, run_id in RUNS.items()
            for word in (name, run_id, environment, " ".join(RUNS[x] for x in FOLLOWS[name]))
        ]
        return Script(
            "submit_stages",
            (
                *(str(self.root / "lock"), "5", str(self.root), state or self.tree.state),
                *(str(self.snapshot), "link", "20250101-000000 1735689600"),
                *(str(self.runs), str(self.root / "data")),
                *(join(("cat", str(self.fake / "queue"))), ":", str(self.fake / "scancel")),
                *("3", *words, str(self.fake / "sbatch"), "--parsable"),
            ),
            archive.bundle(texts, {}),
        )

    @property
    def snapshot(self) -> Path:
        return self.root / f"snapshots/p-{PIPELINE}"

    @property
    def runs(self) -> Path:
        return self.root.parent / "runs"

    def submit(self, environment: str = "", state: str = "") -> Ran:
        return run(self.script(environment, state))

    def queue(self) -> list[list[str]]:
        return [line.split() for line in (self.fake / "queue").read_text().splitlines()]

    def prepare(self) -> None:
        """A fresh account with the code pushed."""
        write(self.fake, {"sbatch": SBATCH, "scancel": SCANCEL}, executable=True)
        write(self.fake, {"queue": ""})
        assert run(push(self.root, self.source, self.tree, None)).lines == ["pushed"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    source = tmp_path / "source"
    write(source, {"a.py": "x = 1\n", "sub/b c": "y"})
    os.symlink("sub", source / "link")
    found = Place(
        tmp_path / "there/place",
        source,
        git.tree(Project(str(source), "p", ("one",))),
        tmp_path / "there/fake",
    )
    found.prepare()
    return found


SUBMITTED = [f"{RUNS[name]} {job}" for name, job in (("make", 41), ("use", 42), ("tell", 43))]
CHAINED = [
    ["41", "PENDING", f"rvstate:{RUNS['make']}", "-"],
    ["42", "PENDING", f"rvstate:{RUNS['use']}", "afterok:41"],
    ["43", "PENDING", f"rvstate:{RUNS['tell']}", "afterok:41:42"],
]


def test_stages_are_chained(place: Place) -> None:
    """One snapshot; each job behind those that it follows; what each brings lies with its run."""
    assert place.submit().lines == [f"submitted {x}" for x in SUBMITTED]
    assert place.queue() == CHAINED
    assert contents(place.snapshot) == contents(place.source)
    for number, (name, run_id) in enumerate(RUNS.items()):
        folder = place.runs / run_id
        assert (folder / "job").read_text() == f"{41 + number}\n"
        assert (folder / "package/x").read_text() == name
        assert (folder / "job.sh").stat().st_mode & 0o777 == 0o700
        assert (folder / "receipt.json").stat().st_mode & 0o777 == 0o600
        assert (place.root / f"data/.rvstate/stages/{name}/run").read_text() == f"{run_id}\n"
    assert not (place.root / "parcels").exists()


def test_asking_again_finds_the_jobs(place: Place) -> None:
    """However often: nobody is submitted twice."""
    place.submit()
    assert place.submit().lines == [f"found {x}" for x in SUBMITTED]
    assert place.queue() == CHAINED


def test_a_stage_that_succeeded_meanwhile_needs_no_waiting(place: Place) -> None:
    """Slurm forgets jobs after some minutes; the run's own record says how it ended."""
    (place.fake / "dies").write_text("41")
    place.submit()
    (place.runs / RUNS["make"] / "exit").write_text("0 1\n")
    (place.fake / "dies").unlink()
    runkit.age_locks(place.root)
    assert place.submit().status == 0
    assert [row[3] for row in place.queue()] == ["-", "-", "afterok:42"]


def test_a_refusal_takes_the_others_back(place: Place) -> None:
    """All of them or none; and what was refused can be mended and asked for again."""
    (place.fake / "refuse").write_text("43")
    ran = place.submit()
    assert ran.status == 1
    assert "no more" in ran.errors
    assert (place.fake / "cancelled").read_text().split() == ["41", "42"]


@pytest.mark.parametrize("where", ["queue", "run", "exit"])
def test_a_stage_that_waits_or_runs_is_refused(place: Place, where: str) -> None:
    """Whoever submitted it; one that has ended, as job or queue say, is in nobody's way."""
    other = "20260101-030405-99999999"
    folder = place.root / "data/.rvstate/stages/use"
    folder.mkdir(parents=True)
    (folder / "run").write_text(f"{other}\n")
    (place.runs / other).mkdir(parents=True)
    (place.runs / other / "job").write_text("7\n")
    state = "COMPLETED" if where == "run" else "RUNNING"
    (place.fake / "queue").write_text(f"7 {state} rvstate:{other}\n")
    if where == "exit":
        (place.runs / other / "exit").write_text("0 1\n")
    lines = place.submit().lines
    if where == "queue":
        assert lines == [f"busy use {other} 7"]
        assert len(place.queue()) == 1
        assert not place.snapshot.exists()
    else:
        assert len(place.queue()) == 4, lines


def test_other_code_or_no_environment_submits_nothing(place: Place) -> None:
    """The code is sent again then, or the environment built."""
    assert place.submit(state="0" * 64).lines == ["stale"]
    run(push(place.root, place.source, place.tree, None))
    missing = place.root / "with blanks/envs/1"
    assert place.submit(environment=str(missing)).lines == ["unbuilt"]
    assert place.queue() == []
    missing.mkdir(parents=True)
    (missing / ".rvstate-environment").write_text("1\n")
    assert place.submit(environment=str(missing)).status == 0
    assert place.queue() == CHAINED


def test_killed_anywhere_it_can_be_asked_again(place: Place) -> None:
    """Before any of its commands, in sbatch itself: every stage has one job in the end."""
    number = 1
    # an odd step comes to every part of it
    step = 19
    while True:
        ran = run(place.script(), dies_at=number)
        if ran.status == 0:
            break
        runkit.age_locks(place.root)
        again = place.submit()
        assert again.status == 0, (number, again)
        assert place.queue() == CHAINED, number
        assert contents(place.snapshot) == contents(place.source), number
        shutil.rmtree(place.root.parent)
        place.prepare()
        number += step
    assert number > 100


@pytest.mark.parametrize("job", ["41", "42", "43"])
def test_a_job_that_nobody_heard_of_is_found(place: Place, job: str) -> None:
    """sbatch took it and was killed before it said so."""
    (place.fake / "dies").write_text(job)
    assert place.submit().status != 0
    (place.fake / "dies").unlink()
    runkit.age_locks(place.root)
    assert place.submit().status == 0
    assert place.queue() == CHAINED
