"""`rvstate dvc` on this machine, with real git and a stand-in for dvc: the whole way of a run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import dvckit
from tests.runkit import Laptop, git, repository, until, write


class Desk:
    """A project with a Git remote, and an environment with a stand-in for dvc."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.laptop = Laptop(root / "laptop", f'[environment]\npath = "{root}/env"\n')
        (root / "env/bin").mkdir(parents=True)
        (root / "env/bin/python").symlink_to(sys.executable)
        text = dvckit.STAND_IN.format(log=root / "log", place=root)
        write(root, {"env/bin/dvc": text}, executable=True)
        write(root, {"status": "0", "remotes": "there\n", "pushes": ""})
        self.app = repository(root / "app", {"a.py": "1\n", "b.py": "2\n", ".dvc/config": ""})
        git(root, "init", "--quiet", "--bare", "--initial-branch=main", str(root / "bare.git"))
        git(self.app, "remote", "add", "origin", str(root / "bare.git"))
        git(self.app, "push", "--quiet", "origin", "main")
        # nobody's own dvc, and nobody's own name
        self.laptop.env |= {"PATH": f"{root}/none:/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}
        self.laptop.env |= {"EMAIL": "me@example.org"}

    def begun(self, *words: str) -> dict[str, Any]:
        """Submit one job."""
        done = self.laptop.run("dvc", "run", "--json", *words, cwd=self.app)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def submit(self, *words: str) -> dict[str, Any]:
        """One job to its end."""
        return self.ended(self.begun(*words))

    def results(self, run_id: str) -> str:
        """What `ps` says of a run's results."""
        runs = self.laptop.document("ps")["runs"]
        return next(str(run["results"]) for run in runs if run["run_id"] == run_id)

    def ended(self, found: dict[str, Any]) -> dict[str, Any]:
        """Wait for a run; what became of it, too."""
        self.laptop.await_state(found["run_id"], "COMPLETED", "FAILED")
        runs = self.laptop.document("ps")["runs"]
        return found | next(run for run in runs if run["run_id"] == found["run_id"])

    def seen(self) -> dict[str, str]:
        """What the last job saw: the files that differ from its commit, and the commit."""
        seen = self.root / "seen"
        status = git(seen, "status", "--porcelain").split("\n")[:-1]
        found = {line[3:]: line[:2].strip() for line in status}
        found["HEAD"] = git(seen, "rev-parse", "HEAD").strip()
        os.rename(seen, seen.with_name(f"seen-{len(list(self.root.glob('seen-*')))}"))
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A project, its remote and this machine."""
    return Desk(tmp_path)


def test_a_run_and_its_repetition_see_the_same(desk: Desk) -> None:
    """Uncommitted work goes along; `rerun` has it from the snapshot when it is gone."""
    write(desk.app, {"a.py": "changed\n", "new.py": "", "b.py": None})
    first = desk.submit("-S", "a b=1")
    assert first["command"] == ["dvc", "exp", "run", "-S", "a b=1"]
    assert first["results"] == "pushed experiment tidy-name"
    assert first["remote_commands"] > 2
    commit = git(desk.app, "rev-parse", "HEAD").strip()
    saw = desk.seen()
    assert saw == {"a.py": "M", "new.py": "A", "b.py": "D", "HEAD": commit}
    # nothing is sent again
    assert desk.submit("-S", "a b=2")["remote_commands"] == 2
    desk.seen()
    git(desk.app, "checkout", "--quiet", "--", ".")
    git(desk.app, "commit", "--quiet", "--allow-empty", "-m", "later")
    again = desk.laptop.document("rerun", first["job_id"], cwd=desk.app)
    assert desk.ended(again)["state"] == "COMPLETED"
    assert desk.seen() == saw


def test_a_clone_sends_no_code(desk: Desk) -> None:
    """Neither it nor its repetition, which clones the same commit though the branch moved."""
    # what is said of files that are sent is not said
    library = repository(desk.root / "library", {"lib.py": ""})
    git(desk.app, "submodule", "--quiet", "add", str(library), "lib")
    git(desk.app, "config", "-f", ".gitmodules", "submodule.lib.update", "none")
    git(desk.app, "commit", "--quiet", "--all", "-m", "with a submodule")
    git(desk.app, "submodule", "--quiet", "deinit", "lib")
    git(desk.app, "push", "--quiet", "origin", "main")
    begun = desk.laptop.run("dvc", "run", "--json", "--mode", "clone", cwd=desk.app)
    assert "submodule lib" in begun.stderr
    assert "not sent" not in begun.stderr
    first = desk.ended(json.loads(begun.stdout))
    assert first["snapshot"] is None
    place = desk.laptop.home / "local/scratch/rv-workspaces/app/main"
    assert not (place / "code").exists()
    assert not (place / "snapshots").exists()
    saw = desk.seen()
    write(desk.app, {"a.py": "later\n"})
    git(desk.app, "commit", "--quiet", "--all", "-m", "later")
    git(desk.app, "push", "--quiet", "origin", "main")
    # of two results of one name neither takes the other's place
    commit = first["commit"]
    reference = f"refs/exps/{commit[:2]}/{commit[2:]}/tidy-name"
    git(desk.root / "bare.git", "update-ref", "-d", reference)
    again = desk.laptop.document("rerun", first["job_id"], cwd=desk.app)
    assert desk.ended(again)["results"] == "pushed experiment tidy-name"
    assert desk.seen() == saw


def test_gates_come_before_any_connection(desk: Desk) -> None:
    """Nothing of the account is looked at, let alone made."""
    write(desk.app, {"a.py": "changed\n"})
    done = desk.laptop.run("dvc", "run", "--mode", "clone", "--after", "9", cwd=desk.app, status=3)
    assert "not staged: a.py" in done.stderr
    assert not (desk.laptop.home / "local/scratch").exists()


def test_what_no_job_could_push_comes_home(desk: Desk) -> None:
    """First over rvstate's own way; pushed by the login node as soon as that can."""
    bare = desk.root / "bare.git"
    away = bare.rename(desk.root / "away.git")
    found = desk.submit("-S", "a=1")
    assert found["state"] == "COMPLETED"
    assert found["results"].startswith("kept experiment tidy-name")
    assert "not pushed" in desk.laptop.run("ps").stdout
    pulled = desk.laptop.document("dvc", "pull", cwd=desk.app)
    assert (pulled["cluster"], pulled["remote"]) == (["tidy-name"], [])
    assert "could not push" in pulled["notices"][0]
    commit = found["commit"]
    reference = f"refs/exps/{commit[:2]}/{commit[2:]}/tidy-name"
    assert git(desk.app, "cat-file", "-p", f"{reference}:result.txt") == "result\n"
    away.rename(bare)
    pulled = desk.laptop.document("dvc", "pull", cwd=desk.app)
    assert pulled["pushed"] == ["experiment tidy-name"]
    assert pulled["had"] == ["tidy-name"]
    assert reference in git(bare, "for-each-ref")
    assert "not pushed" not in desk.laptop.run("ps").stdout
    # on another clone it comes from the remote
    git(desk.app, "update-ref", "-d", reference)
    pulled = desk.laptop.document("dvc", "pull", "tidy-name", cwd=desk.app)
    assert pulled["remote"] == ["tidy-name"]
    desk.laptop.run("dvc", "pull", "nobody", cwd=desk.app, status=64)


def test_two_results_of_one_name_both_come_home(desk: Desk) -> None:
    """The first under its name, the second under one of its own, which is said; and only once."""
    git(desk.app, "remote", "remove", "origin")
    runs = []
    for text in ("first\n", "second\n"):
        write(desk.app, {"a.py": text})
        runs.append(desk.submit("-S", "a=1"))
        desk.seen()
    pulled = desk.laptop.document("dvc", "pull", cwd=desk.app)
    other = f"tidy-name-{runs[1]['run_id'][16:]}"
    assert sorted(pulled["cluster"]) == ["tidy-name", other]
    assert any(f"it is {other} here" in notice for notice in pulled["notices"])
    base = f"refs/exps/{runs[0]['commit'][:2]}/{runs[0]['commit'][2:]}"
    assert git(desk.app, "show", f"{base}/tidy-name:a.py") == "first\n"
    assert git(desk.app, "show", f"{base}/{other}:a.py") == "second\n"
    pulled = desk.laptop.document("dvc", "pull", cwd=desk.app)
    assert (pulled["cluster"], sorted(pulled["had"])) == ([], ["tidy-name", other])


def test_a_run_that_is_stopped_pushes_what_it_has(desk: Desk) -> None:
    """And nobody pushes for it while it still runs."""
    (desk.root / "waits").touch()
    found = desk.begun("-S", "a=1")
    until((desk.root / "started").exists)
    assert "not pushed" not in desk.laptop.run("ps").stdout
    assert desk.laptop.document("dvc", "pull", cwd=desk.app)["pushed"] == []
    desk.laptop.run("stop", "-y", found["job_id"])
    desk.laptop.await_state(found["run_id"], "CANCELLED", "FAILED")
    until(lambda: desk.results(found["run_id"]) == "pushed the run cache")
    assert not list(Path("/tmp").glob(f"rvstate-dvc-{os.getuid()}-{found['job_id']}"))


def test_the_projects_own_script_makes_its_environment(desk: Desk) -> None:
    """As the project's settings name it; once, and dvc is looked for in what it made."""
    made = (
        f"#!/bin/sh\necho made >>{desk.root}/made\n"
        f"mkdir -p .venv && cp -R {desk.root}/env/bin .venv/\n"
    )
    settings = '[dvc]\nscript = "init_python_venv.sh"\n'
    write(desk.app, {"init_python_venv.sh": made, "rvstate.toml": settings})
    (desk.laptop.home / "config.toml").unlink()
    for number in range(2):
        assert desk.submit("-S", f"a={number}")["state"] == "COMPLETED"
        desk.seen()
    assert (desk.root / "made").read_text() == "made\n"
    write(desk.app, {"requirements.txt": ""})
    desk.submit("-S", "a=2")
    assert (desk.root / "made").read_text() == "made\nmade\n"


def test_a_run_whose_answer_never_came_is_found(desk: Desk) -> None:
    """`rvstate run --resume` knows runs of DVC, too, and submits none twice."""
    first = desk.submit("-S", "a=1")
    receipt = desk.laptop.home / "runs" / f"{first['run_id']}.json"
    text = json.loads(receipt.read_text())
    receipt.write_text(json.dumps(text | {"job_id": None}))
    found = desk.laptop.document("run", "--resume", cwd=desk.app)
    assert (found["job_id"], found["submitted"]) == (first["job_id"], False)


def test_where_there_is_no_dvc_it_is_said(desk: Desk) -> None:
    """By name, with what to do; and nothing is kept that was never made."""
    (desk.root / "env/bin/dvc").unlink()
    found = desk.submit("-S", "a=1")
    assert (found["state"], found["results"]) == ("FAILED", "none the experiment never began")
    assert "add it to the project's requirements" in Path(found["error_log"]).read_text()
