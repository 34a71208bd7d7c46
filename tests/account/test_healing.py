"""Environments that a purge took files of, with a real uv: built as before."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import envkit
from tests.runkit import Laptop, repository


class Story:
    """A project whose index has moved on since its environment was built."""

    def __init__(self, root: Path, requirements: str = "", config: str = "") -> None:
        self.laptop = Laptop(root / "laptop", config)
        self.index = root / "index"
        for name in ("tiny", "extra"):
            envkit.wheel(self.index, name)
        text = requirements or f"--no-index\n--find-links {self.index}\ntiny\n"
        self.app = repository(root / "work/app", {"requirements.txt": text, "a.py": ""})
        self.first = self.laptop.submit("true", cwd=self.app)
        self.generation = Path(self.first["environment"])
        for name in ("tiny", "extra"):
            envkit.wheel(self.index, name, "2.0", body="NEW = 1\n")

    @property
    def site(self) -> Path:
        return next(self.generation.glob("lib/python*/site-packages"))

    @property
    def inside(self) -> Path:
        return self.site.relative_to(self.generation)

    def pip(self, *words: str) -> None:
        find = ("--no-index", "--find-links", str(self.index)) if "install" in words else ()
        pip = (self.generation / "bin/python", "-m", "pip", "-q")
        quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run([*pip, *words, *find], check=True, env=quiet)

    def verify(self, status: int) -> dict[str, Any]:
        """What is said of the environment."""
        things = json.loads(self.laptop.run("verify", "--json", status=status).stdout)["things"]
        (found,) = (t for t in things if t["kind"] == "environment")
        assert isinstance(found, dict)
        return found

    def heal(self) -> str:
        """What the recap says when a damaged one has been mended."""
        self.verify(1)
        said = self.laptop.run("converge", "-y").stdout
        assert self.verify(0)["state"] == "sound"
        assert "Nothing to do" in self.laptop.run("converge").stdout
        return said

    def versions(self) -> dict[str, str]:
        code = (
            "import importlib.metadata as m, json;"
            "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
        )
        python = self.generation / "bin/python"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_it_comes_back_in_the_same_versions(story: Story) -> None:
    """The index has newer ones; what was added by hand comes in its own version, too."""
    story.pip("install", "extra==1.0")
    before = story.versions()
    (story.site / "tiny/__init__.py").unlink()
    (story.site / "extra/__init__.py").unlink()
    assert story.verify(1)["missing"] == 2
    assert "it was built again" in story.heal()
    assert story.versions() == before
    assert before["tiny"] == before["extra"] == "1.0"
    assert (story.site / "tiny/__init__.py").is_file()
    assert (story.site / "extra/__init__.py").is_file()


def test_a_file_gone_from_the_cache_too_is_fetched(story: Story) -> None:
    """A purge takes what uv linked from both places, and nothing incomplete counts as whole."""
    for name in ("__init__.py", "WHEEL"):
        number = next(story.site.glob(f"tiny*/{name}")).stat().st_ino
        for place in (story.generation, story.laptop.home / "local/scratch/.cache/uv"):
            for path in place.rglob(name):
                if path.stat().st_ino == number:
                    path.unlink()
    story.heal()
    assert (story.site / "tiny/__init__.py").is_file()
    assert story.versions()["tiny"] == "1.0"


@pytest.mark.parametrize("lost", ["RECORD", "METADATA"])
def test_a_list_gone_from_the_cache_is_fetched(story: Story, lost: str) -> None:
    """uv cannot link such a package at all: it is taken anew, not the whole of the cache."""
    for place in (story.generation, story.laptop.home / "local/scratch/.cache/uv/archive-v0"):
        for path in place.rglob(f"tiny-1.0.dist-info/{lost}"):
            path.unlink()
    story.heal()
    assert story.versions()["tiny"] == "1.0"


def test_a_version_that_is_gone_is_said(story: Story) -> None:
    """Neither index nor cache have it: another one is taken, and the recap names both."""
    (story.site / "tiny/__init__.py").unlink()
    next(story.index.glob("tiny-1.0-*")).unlink()
    shutil.rmtree(story.laptop.home / "local/scratch/.cache/uv")
    said = story.heal()
    assert "which cannot be had any more: tiny==1.0 is now 2.0" in " ".join(said.split())
    assert story.versions()["tiny"] == "2.0"


def test_without_an_index_the_cache_is_enough(tmp_path: Path) -> None:
    """The index cannot be reached, as from some login nodes: nothing has to be fetched."""
    folder = envkit.wheel(tmp_path / "index/tiny", "tiny").parent
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "index")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        story = Story(tmp_path, f"--index-url {address}\ntiny\n")
        server.shutdown()
    story.laptop.env["UV_HTTP_RETRIES"] = "0"
    assert folder.is_dir()
    (story.site / "tiny-1.0.dist-info/WHEEL").unlink()
    assert "it was built again" in story.heal()
    assert story.versions()["tiny"] == "1.0"


def test_what_it_was_built_from_is_watched_and_put_back(story: Story) -> None:
    """Recipe and sources belong to it; with the copy beside it nothing has to be built."""
    number = story.generation.stat().st_ino
    (story.generation / ".rvstate/recipe").unlink()
    (story.generation / ".rvstate/sources/requirements.txt").write_text("")
    found = story.verify(1)
    assert {e["path"] for e in found["examples"]} == {
        ".rvstate/recipe",
        ".rvstate/sources/requirements.txt",
    }
    assert "what it was built from was put back" in story.heal()
    assert story.generation.stat().st_ino == number


def test_a_copy_that_is_gone_is_made_anew(story: Story) -> None:
    """The walk reads what an environment was built from, and its copy; one of the two is enough."""
    kept = story.generation.with_name(f".{story.generation.name}.kept")
    for damage in (kept.unlink, lambda: kept.write_text("cut")):
        damage()
        assert story.verify(0)["state"] == "sound"
        number = kept.stat().st_ino
        assert tarfile.is_tarfile(kept)
        assert story.verify(0)["state"] == "sound"
        assert kept.stat().st_ino == number


def test_without_anything_of_it_the_copy_beside_it_is_enough(story: Story) -> None:
    """All of it is gone, as the link tells: it is built from the copy, in the same versions."""
    shutil.rmtree(story.generation)
    story.heal()
    assert story.versions()["tiny"] == "1.0"
    story.laptop.submit("true", cwd=story.app)


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_an_upgrade_by_hand_is_no_damage(story: Story, tool: str) -> None:
    """Its files are others now, as its own list says; what a purge takes of it then is damage."""
    if tool == "pip":
        story.pip("install", "--upgrade", "tiny")
    else:
        python = str(story.generation / "bin/python")
        find = ("--no-index", "--find-links", str(story.index))
        words = ("pip", "install", "-q", "--upgrade", "tiny", "--python", python)
        subprocess.run([Path(sys.executable).parent / "uv", *words, *find], check=True)
    assert story.versions()["tiny"] == "2.0"
    found = story.verify(0)
    assert (found["state"], found["missing"], found["changed"]) == ("sound", 0, 0)
    assert found["added"] >= 2
    (story.site / "tiny/__init__.py").unlink()
    assert {"what": "missing", "path": f"{story.inside}/tiny/__init__.py"} in story.verify(1)[
        "examples"
    ]
    story.heal()
    assert story.versions()["tiny"] == "2.0"
    assert (story.site / "tiny/__init__.py").is_file()


def test_what_was_removed_by_hand_is_missing(story: Story) -> None:
    """Without a trace of it nobody can tell it from a purge, and it was declared."""
    story.pip("uninstall", "-y", "tiny")
    story.heal()
    assert story.versions()["tiny"] == "1.0"


RACE = """
import shutil, sys
from rvstate.infra import runs
submitting, place = runs.run, sys.argv.pop()
def run(*words):
    global place
    if place:
        shutil.rmtree(place)
    place = ""
    return submitting(*words)
runs.run = run
from rvstate.cli import main
main()
"""


def test_an_environment_that_goes_before_submission_is_built_again(story: Story) -> None:
    """A prune came between the look and the job: one job, in a whole environment."""
    before = len(story.laptop.document("ps")["runs"])
    words = ("run", "--json", "python", "-c", "import tiny; print(tiny.VERSION)")
    done = subprocess.run(
        [sys.executable, "-c", RACE, *words, str(story.generation)],
        cwd=story.app,
        env=story.laptop.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["environment"] == str(story.generation)
    story.laptop.await_state(found["run_id"], "COMPLETED")
    assert Path(found["log"]).read_text() == "1.0\n"
    assert len(story.laptop.document("ps")["runs"]) == before + 1


@pytest.fixture
def kept(tmp_path: Path) -> Story:
    """The same with copies in a place that nobody purges, and without an index from now on."""
    config = f'[environment]\nbackup = "{tmp_path}/kept/{{user}}"\n'
    story = Story(tmp_path, config=config)
    assert "a copy of the environment is kept in" in story.first["said"]
    shutil.rmtree(story.index)
    return story


def test_a_purged_environment_comes_back_from_its_copy(kept: Story) -> None:
    """Environments and uv's cache are gone, and so is the index: the next run has the same."""
    before = kept.versions()
    scratch = kept.laptop.home / "local/scratch"
    shutil.rmtree(scratch / ".rv/envs")
    shutil.rmtree(scratch / ".cache/uv")
    found = kept.laptop.submit("python", "-c", "import tiny; print(tiny.VERSION)", cwd=kept.app)
    assert "was unpacked from its kept copy" in found["said"]
    assert found["environment"] == str(kept.generation)
    kept.laptop.await_state(found["run_id"], "COMPLETED")
    assert Path(found["log"]).read_text() == "1.0\n"
    assert kept.versions() == before
    assert kept.verify(0)["state"] == "sound"


def test_converge_mends_from_the_copy(kept: Story) -> None:
    """Nothing has to be fetched; a copy that is gone or damaged is none."""
    before = kept.versions()
    shutil.rmtree(kept.laptop.home / "local/scratch/.cache/uv")
    (kept.site / "tiny/__init__.py").unlink()
    assert "it was unpacked from its kept copy" in " ".join(kept.heal().split())
    assert kept.versions() == before
    (archive,) = (kept.laptop.root.parent / "kept").rglob("*.tar")
    archive.write_bytes(b"cut")
    (kept.site / "tiny/__init__.py").unlink()
    kept.verify(1)
    said = kept.laptop.run("converge", "-y", status=1)
    assert "could not be built again" in said.stdout + said.stderr


def test_a_place_on_scratch_is_refused(tmp_path: Path) -> None:
    """A purge would take the copy with what it is of; nothing is sent."""
    laptop = Laptop(tmp_path / "laptop")
    scratch = laptop.home / "local/scratch"
    app = repository(tmp_path / "work/app", {"requirements.txt": "--no-index\n", "a.py": ""})
    for place, says in ((f"{scratch}/kept", "which is on scratch"), ("kept", "not an absolute")):
        (app / "rvstate.toml").write_text(f'[environment]\nbackup = "{place}"\n')
        done = laptop.run("run", "true", cwd=app, status=None)
        assert (done.returncode != 0, says in done.stderr) == (True, True), done
        assert not (scratch / "rv-workspaces/app").exists()
