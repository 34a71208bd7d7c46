"""prune.sh: what goes is looked at once more; nothing that is needed or not ours is removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rvstate import retention
from rvstate.script import Script
from tests.runkit import KILLED, Ran, git, repository, run, write

KINDS = ("experiment", "commit", "commit")
RUN = "20250102-030405-0a1b2c3d"


class Place:
    """An account with one old snapshot, its run, and two generations."""

    def __init__(self, root: Path) -> None:
        self.scratch = root / "scratch"
        self.queue = root / "queue"
        self.space = self.scratch / "rv-workspaces/p/main"
        self.snapshot = self.space / f"snapshots/rv-train-{RUN}"
        self.run = self.scratch / f".rv/runs/{RUN}"
        self.old, self.new = (
            self.scratch / f".rv/envs/p/.generations/main/{name}" for name in ("d1", "d2")
        )
        write(root, {"queue": ""})
        write(self.space, {"identity": "me\n", "files": "./a\0", "code/a": "1"})
        write(self.snapshot, {"a": "1"})
        self.snapshot.chmod(0o555)
        write(self.snapshot.parent, {f".rv-train-{RUN}.manifest": "//\0"})
        text = f'{{"environment": "{self.old}"}}'
        write(self.run, {"job": "7\n", "exit": "0 1\n", "receipt.json": text})
        for generation in (self.old, self.new):
            write(generation, {".rvstate-environment": f"{generation.name}\n", "x": "1"})
            write(generation.parent, {f".{generation.name}.kept": "what it was built from"})
        os.symlink(self.new, self.scratch / ".rv/envs/p/main")

    def remove(
        self,
        *words: str,
        dies_at: int | None = None,
        queue: str | None = None,
        path: str | None = None,
    ) -> Ran:
        asked = queue or f"cat '{self.queue}'"
        fixed = ("remove", str(self.scratch), "", asked)
        env = {"PATH": f"{path}:{os.environ['PATH']}"} if path else None
        return run(Script("prune", (*fixed, *words)), dies_at=dies_at, env=env)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_was_decided_goes(place: Place) -> None:
    """Snapshot with its manifest, run, generation; a second time is as good."""
    words = ("run", place.run, "0", "snapshot", place.snapshot, "0", "generation", place.old, "1")
    for _ in range(2):
        assert place.remove(*map(str, words)).lines == ["done 0 ", "done 1 ", "done 2 "]
    assert not place.run.exists()
    assert not place.old.exists()
    assert os.listdir(place.snapshot.parent) == []
    assert place.new.is_dir()
    assert not list(place.scratch.rglob("*gone*"))
    assert sorted(p.name for p in place.new.parent.iterdir()) == [".d2.kept", "d2"]


@pytest.mark.parametrize("why", ["queued", "keep"])
def test_what_is_needed_by_now_stays(place: Place, why: str) -> None:
    """A job was submitted since, or the user wants it kept."""
    if why == "queued":
        place.queue.write_text(f"9 PENDING rvstate:{RUN} rv-train\n")
    else:
        (place.run / "keep").touch()
    said = place.remove("run", str(place.run), "0", "snapshot", str(place.snapshot), "0").lines
    assert [line.split()[0] for line in said] == ["kept", "kept"]
    assert place.run.is_dir()
    assert place.snapshot.is_dir()


def test_a_generation_that_is_used_by_now_stays(place: Place) -> None:
    """Its branch leads to it again, or one more run names it."""
    assert place.remove("generation", str(place.old), "0").lines[0].startswith("kept 0 a run has")
    said = place.remove("generation", str(place.new), "0").lines
    assert said == ["kept 0 its branch uses it again"]
    assert place.old.is_dir()
    assert place.new.is_dir()
    assert place.remove("branch", str(place.new), "0").lines == ["done 0 "]
    assert not (place.scratch / ".rv/envs/p/main").is_symlink()


def test_a_run_that_comes_in_between_keeps_its_generation(place: Place, tmp_path: Path) -> None:
    """Its receipt is written when nobody counts any more, and seen; the stamp is back."""
    receipt = place.run.with_name(f"{RUN[:-1]}e") / "receipt.json"
    mv = f"""#!/bin/sh
case $* in *.pruned) mkdir {receipt.parent} && cp {place.run}/receipt.json {receipt} ;; esac
exec {shutil.which("mv")} "$@"
"""
    write(tmp_path / "bin", {"mv": mv}, executable=True)
    said = place.remove("generation", str(place.old), "1", path=str(tmp_path / "bin")).lines
    assert receipt.exists()
    assert said == ["kept 0 a run has begun to use it"]
    assert (place.old / ".rvstate-environment").read_text() == "d1\n"
    assert (place.old.parent / ".d1.kept").exists()


def test_a_copy_whose_environment_is_gone_goes_unless_its_branch_still_names_it(
    place: Place,
) -> None:
    """An environment that a purge took whole is built again from it."""
    for generation in (place.old, place.new):
        shutil.rmtree(generation)
    place.remove()
    assert [p.name for p in place.new.parent.iterdir()] == [".d2.kept"]


@pytest.mark.parametrize("kind", ["snapshot", "generation"])
def test_what_another_prune_removes_meanwhile_is_done(
    place: Place, tmp_path: Path, kind: str
) -> None:
    """Both had decided on it; the second waits for the first, and finds nothing to do."""
    thing = {"snapshot": place.snapshot, "generation": place.old}[kind]
    lock = {"snapshot": place.space, "generation": place.old.parent}[kind] / "lock"
    os.symlink("elsewhere boot 1 1", lock)
    first = f"#!/bin/sh\nrm -rf '{thing}' '{lock}'\nexec /bin/sleep \"$@\"\n"
    write(tmp_path / "fake", {"sleep": first})
    (tmp_path / "fake/sleep").chmod(0o755)
    removed = place.remove(kind, str(thing), "1", path=str(tmp_path / "fake"))
    assert (removed.lines, removed.status) == (["done 0 "], 0)


def test_without_the_scheduler_nothing_goes(place: Place) -> None:
    """Nobody can tell what is needed then."""
    ran = place.remove("snapshot", str(place.snapshot), "0", queue="echo down >&2; false")
    assert ran.status == 1
    assert "(down); nothing was removed" in ran.errors
    assert place.snapshot.is_dir()


def test_a_workspace_keeps_what_its_pipeline_made(place: Place) -> None:
    """It may be in no other place; empty directories are nothing."""
    (place.space / "data/deep").mkdir(parents=True)
    (place.space / "data/deep/made").touch()
    assert "not sent from here" in place.remove("workspace", str(place.space), "0").lines[0]
    assert (place.space / "identity").exists()
    (place.space / "data/deep/made").unlink()
    place.remove("workspace", str(place.space), "0")
    assert not (place.space / "identity").exists()


def test_a_workspace_keeps_what_is_not_ours(place: Place) -> None:
    """Files that were not sent hold all of it; files beside stay, and are said."""
    write(place.space, {"code/li\nne": "mine"})
    assert "not sent from here" in place.remove("workspace", str(place.space), "0").lines[0]
    assert place.snapshot.is_dir()
    (place.space / "code/li\nne").unlink()
    assert place.remove("workspace", str(place.space), "0").lines == ["done 0 "]
    assert not place.space.exists()


def test_killed_anywhere_the_next_one_finishes(tmp_path: Path) -> None:
    """At no point is a half of a generation taken for a whole one."""
    for step in range(1, 900, 3):
        place = Place(tmp_path / str(step))
        words = ("snapshot", str(place.snapshot), "0", "generation", str(place.old), "1")
        ran = place.remove(*words, dies_at=step)
        if not (place.old / "x").exists():
            assert not (place.old / ".rvstate-environment").exists()
        assert place.remove(*words).lines == ["done 0 ", "done 1 "]
        assert not place.old.exists()
        assert not place.snapshot.exists()
        assert not list(place.scratch.rglob("*gone*"))
        if ran.status != KILLED:
            return
    raise AssertionError("it never came to its end")


def test_hard_links_are_freed_with_the_last_name(place: Place) -> None:
    """The first of two that share a file frees less than the second."""
    other = place.snapshot.with_name(f"rv-train-{RUN[:-1]}e")
    other.mkdir()
    place.snapshot.chmod(0o755)
    write(other, {"big": "x" * 500_000})
    os.link(other / "big", place.snapshot / "big")
    words = ("measure", "snapshot", str(place.snapshot), "snapshot", str(other))
    sizes = [int(line.split()[1]) for line in run(Script("prune", words)).lines]
    assert sizes[0] < 100_000 < 500_000 <= sizes[1]
    alone = [int(x.split()[1]) for x in run(Script("prune", words[:3])).lines]
    assert alone[0] < 100_000


class Store:
    """A project's repository with commits of three runs, and two experiments of the oldest one."""

    def __init__(self, place: Place) -> None:
        self.path = place.space.parent / ".repository"
        app = repository(place.scratch.parent / "app", {"a": "1"})
        git(place.scratch, "init", "--quiet", "--bare", str(self.path))
        self.commits = []
        for number in range(5):
            git(app, "commit", "--quiet", "--allow-empty", "-m", str(number))
            self.commits.append(git(app, "rev-parse", "HEAD").strip())
        to = f"HEAD:refs/rvstate/commits/{self.commits[-1]}"
        git(app, "push", "--quiet", str(self.path), to)
        for commit in self.commits[:-1]:
            git(self.path, "update-ref", f"refs/rvstate/commits/{commit}", commit)
        write(self.path, {"rvstate-commits": "\n".join(self.commits) + "\n"})
        write(self.path, {"rvstate-identity": "me\n"})
        self.experiments = [f"refs/rvstate/exps/{RUN}/ab/cd/{name}" for name in ("one", "two")]
        for name in self.experiments:
            git(self.path, "update-ref", name, self.commits[0])
        text = f'{{"commit": "{self.commits[1]}"}}'
        write(place.run, {"receipt.json": text, "dvc": "pushed experiment one two\n"})

    def references(self) -> list[str]:
        return git(self.path, "for-each-ref", "--format=%(refname)").split()


def test_references_are_listed_with_what_is_known(place: Place) -> None:
    """Which are the newest commits, and which experiments were pushed."""
    store = Store(place)
    asked = ("list", str(place.scratch), "", "cat /dev/null")
    ran = run(Script("prune", asked))
    assert ran.answer is not None
    found = {
        thing.path.rpartition("/")[2]: thing.flags
        for thing in retention.read(ran.answer.first("things")).things
        if thing.kind in ("commit", "experiment")
    }
    assert [sorted(found[commit]) for commit in store.commits] == [[], [], *[["newest"]] * 3]
    assert found["one"] == {"pushed"}
    write(place.run, {"dvc": "kept experiment one is on the cluster\n"})
    again = run(Script("prune", asked)).answer
    assert again is not None
    kept = [t for t in retention.read(again.first("things")).things if t.kind == "experiment"]
    assert [thing.flags for thing in kept] == [frozenset()] * 2


def test_references_go_and_what_is_needed_stays(place: Place) -> None:
    """Experiments that are pushed, commits that no run names; then git packs what is left."""
    store = Store(place)
    names = [*store.experiments[:1], *(f"refs/rvstate/commits/{c}" for c in store.commits[:2])]
    words = [(kind, f"{store.path}/{name}", "0") for kind, name in zip(KINDS, names, strict=True)]
    said = place.remove(*(word for one in words for word in one)).lines
    assert said == ["done 0 ", "done 1 ", "kept 2 a run names it"]
    left = store.references()
    assert names[0] not in left
    assert names[1] not in left
    assert names[2] in left
    assert (store.path / "rvstate-commits").read_text().split() == store.commits[1:]
    # all that is left can be read
    git(store.path, "fsck", "--strict")
    assert (store.path / "packed-refs").exists()
    write(place.run, {"dvc": "kept experiment two is on the cluster\n"})
    (line,) = place.remove("experiment", f"{store.path}/{store.experiments[1]}", "0").lines
    assert line == "kept 0 nobody has said that it is pushed"
    place.queue.write_text(f"9 PENDING rvstate:{RUN} rv-train\n")
    write(place.run, {"dvc": "pushed experiment two\n"})
    (line,) = place.remove("experiment", f"{store.path}/{store.experiments[1]}", "0").lines
    assert line == "kept 0 a job needs it"


def test_an_environment_of_a_script_goes_unless_a_run_began_to_use_it(place: Place) -> None:
    """With all that is in it, read-only or not."""
    made = place.scratch / ".rv/envs/p/.scripted/d9"
    write(made, {"whole": "1700000000\n", "code/x": "1"})
    write(place.run, {"receipt.json": f'{{"dvc": {{"place": "{made}"}}}}'})
    assert place.remove("environment", str(made), "0").lines == ["kept 0 a run has begun to use it"]
    assert place.remove("environment", str(made), "1").lines == ["done 0 "]
    assert list(made.parent.iterdir()) == []
