"""Layers over an environment, with a real uv and a real pip: what is in them, and for how long."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rvstate.script import Script
from rvstate.workflows.run.layers import Layer
from tests import envkit, layerkit
from tests.runkit import Laptop, Ran, repository, run, write

VERSIONS = (
    "import importlib.metadata as m, json, sys; print(json.dumps("
    "{**{d.metadata['Name']: d.version for d in m.distributions()}, 'prefix': sys.prefix}))"
)


class Story:
    """A project with an environment, and an index that has more versions."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.laptop = Laptop(root / "laptop", config)
        self.scratch = self.laptop.home / "local/scratch"
        self.index = root / "index"
        for name, version, needs in (
            ("tiny", "1.0", ()),
            ("tiny", "2.0", ()),
            ("tiny", "3.0", ()),
            ("user", "1.0", ("tiny<2",)),
            ("user", "2.0", ("tiny>=2",)),
            ("loner", "1.0", ()),
            ("torch", "1.0", ()),
            ("torch", "2.0", ()),
            ("wants-torch", "1.0", ("torch>=2",)),
            ("extra", "1.0", ()),
        ):
            envkit.wheel(self.index, name, version, needs=needs)
        text = f"--no-index\n--find-links {self.index}\nuser<2\ntiny\nloner\ntorch==1.0\n"
        app = repository(root / "work/app", {"requirements.txt": text, "a.py": ""})
        self.base = Path(self.laptop.submit("true", cwd=app)["environment"])
        self.uv = (self.base / ".rvstate/tools").read_text().split("\n")[0]

    def build(self, *wanted: Layer) -> Ran:
        env = {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_CACHE_DIR": str(self.scratch / "pip")}
        return run(layerkit.script(wanted, self.scratch, self.uv), env=env)

    def layer(self, table: Mapping[str, Any]) -> Layer:
        found = layerkit.layer(self.base, table)
        ran = self.build(found)
        assert ran.status == 0, ran.errors
        return found

    def verify(self, status: int) -> dict[str, dict[str, Any]]:
        """What is said of each environment, by its last name."""
        things = json.loads(self.laptop.run("verify", "--json", status=status).stdout)["things"]
        return {Path(t["path"]).name: t for t in things if t["kind"] == "environment"}


def versions(place: Path | str) -> dict[str, str]:
    """What a Python there sees."""
    python = Path(place) / "bin/python"
    done = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def files(place: Path | str) -> dict[str, int]:
    """The numbers of files by their names, without bytecode and what is rvstate's own."""
    top = Path(place)
    return {
        str(path.relative_to(top)): path.lstat().st_ino
        for path in top.rglob("*")
        if path.is_file() and not {".rvstate", "__pycache__"} & {*path.relative_to(top).parts}
    }


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("layers"))


def test_three_versions_of_one_package(story: Story) -> None:
    """One in the base, one by uv, one by pip; what only the base has is in all, links all over."""
    before = files(story.base)
    by_uv = story.layer({"uv": ["Tiny == 2.0"]})
    by_pip = story.layer({"pip": ["tiny==3.0"]})
    found = [versions(place) for place in (story.base, by_uv.place, by_pip.place)]
    assert [one["tiny"] for one in found] == ["1.0", "2.0", "3.0"]
    assert {one["loner"] for one in found} == {"1.0"}
    # what the base has of it contradicted the stage, and went with it
    assert [one["user"] for one in found] == ["1.0", "2.0", "2.0"]
    for layer, one in zip((by_uv, by_pip), found[1:], strict=True):
        assert one["prefix"] == str(layer.place)
        mine = files(layer.place)
        shared = sum(before.get(name) == number for name, number in mine.items())
        assert shared > 0.9 * len(mine)
        pip = subprocess.run(
            [f"{layer.place}/bin/pip", "--version"], capture_output=True, text=True, check=True
        )
        assert str(layer.place) in pip.stdout
    assert files(story.base) == before
    assert story.build(by_uv, by_pip).lines == [f"there {by_uv.place}", f"there {by_pip.place}"]


def test_a_base_without_pip_gets_layers_by_pip(tmp_path: Path) -> None:
    """Python brings a pip for it."""
    story = Story(tmp_path)
    subprocess.run([story.base / "bin/python", "-m", "pip", "-q", "uninstall", "-y", "pip"])
    kept = story.base / ".rvstate/installed"
    kept.write_text("".join(x for x in kept.open() if not x.startswith("pip==")))
    shell = f"rv_manifest {story.base} {story.base}/.rvstate/manifest"
    text = Script("build_environment", ("added", "/none")).text.replace("rv_run_this\n", shell)
    subprocess.run(["sh", "-c", f"{text}\n"], check=True)
    assert "pip" not in versions(story.base)
    layer = story.layer({"pip": ["tiny==3.0"]})
    assert versions(layer.place)["tiny"] == "3.0"
    assert "pip" not in versions(story.base)


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize("package", ["torch==2.0", "wants-torch"])
def test_what_is_pinned_to_the_base_stays(story: Story, installer: str, package: str) -> None:
    """Named by the stage, or wanted by what it names: refused, with both versions."""
    wanted = layerkit.layer(story.base, {installer: [package]})
    ran = story.build(wanted)
    assert ran.status == 1
    assert ran.lines[-1].startswith("refused torch would be 2.0 and is 1.0 in the base"), ran.errors
    assert not os.path.exists(wanted.place)
    assert not (story.base.parent / ".healing").exists()


def test_what_may_change_changes(story: Story) -> None:
    """With no pins torch is a package like any other, and that is another layer."""
    pinned = layerkit.layer(story.base, {"uv": ["torch==2.0"]})
    free = layerkit.layer(story.base, {"uv": ["torch==2.0"]}, pins=())
    assert pinned.place != free.place
    ran = run(layerkit.script((free,), story.scratch, story.uv, pins=()))
    assert ran.status == 0, ran.errors
    assert versions(free.place)["torch"] == "2.0"


def test_contradictions_are_refused_unless_nobody_is_to_look(story: Story) -> None:
    """With the two packages; --no-deps says that one knows better."""
    wanted = layerkit.layer(story.base, {"uv": ["tiny==2.0", "user==1.0"]})
    ran = story.build(wanted)
    assert (ran.status, os.path.exists(wanted.place)) == (1, False)
    alone = story.layer({"uv": {"packages": ["tiny==2.0", "user==1.0"], "options": ["--no-deps"]}})
    found = versions(alone.place)
    assert (found["tiny"], found["user"]) == ("2.0", "1.0")


def test_a_layer_that_lost_files_is_found_and_made_again(tmp_path: Path) -> None:
    """Under the same name, in the same versions though there are newer ones, in its place."""
    story = Story(tmp_path)
    layer = story.layer({"uv": ["tiny>=2,<3", "extra"]})
    place = Path(layer.place)
    before = versions(place)
    envkit.wheel(story.index, "extra", "2.0")
    envkit.wheel(story.index, "tiny", "2.5")
    next(place.glob("lib/python*/site-packages/extra/__init__.py")).unlink()
    found = story.verify(1)
    assert (found[place.name]["state"], found[place.name]["missing"]) == ("damaged", 1)
    assert found[story.base.name]["state"] == "sound"
    said = story.laptop.run("converge", "-y").stdout
    assert f"app/main {place.name}" in said
    assert "it was built again" in said
    assert story.verify(0)[place.name]["state"] == "sound"
    assert "Nothing to do" in story.laptop.run("converge").stdout
    assert versions(place) == before
    assert before["extra"] == "1.0"


def test_what_was_installed_by_hand(tmp_path: Path) -> None:
    """In the base: in no layer. In a layer: there, though what it replaces is shared."""
    story = Story(tmp_path)
    find = ("--no-index", "--find-links", str(story.index))
    subprocess.run([story.base / "bin/pip", "-q", "install", *find, "extra"], check=True)
    layer = layerkit.layer(story.base, {"uv": ["tiny==2.0"]})
    ran = story.build(layer)
    assert any("extra==1.0 by hand" in line for line in ran.lines), ran.errors
    assert "extra" not in versions(layer.place)
    assert versions(story.base)["extra"] == "1.0"
    before = files(story.base)
    subprocess.run([f"{layer.place}/bin/pip", "-q", "install", *find, "tiny==3.0"], check=True)
    assert versions(layer.place)["tiny"] == "3.0"
    assert (files(story.base), versions(story.base)["tiny"]) == (before, "1.0")


def test_show_and_usage_know_layers(tmp_path: Path) -> None:
    """What it adds, where it is, and no byte twice."""
    story = Story(tmp_path)
    sizes = [usage(story)]
    layer = story.layer({"uv": ["tiny==2.0"]})
    sizes.append(usage(story))
    app = tmp_path / "work/app"
    said = story.laptop.run("env", "show", cwd=app).stdout
    assert "layer by uv: tiny==2.0" in said
    assert str(layer.place) in said
    (shown,) = json.loads(story.laptop.run("env", "show", "--json", cwd=app).stdout)["layers"]
    assert (shown["base"], shown["lines"]) == (story.base.name, ["tiny==2.0"])
    # directories, programs and records
    assert sizes[0] < sizes[1] < 1.5 * sizes[0]


def usage(story: Story) -> int:
    places = json.loads(story.laptop.run("usage", "--json").stdout)["places"]
    (size,) = (p["bytes"] for p in places if p["path"].startswith(".rv/envs/"))
    return int(size)


def test_prune_lets_a_layer_go_that_nobody_used(tmp_path: Path) -> None:
    """And the base, which its branch uses, stays."""
    story = Story(tmp_path, "[retention]\nenvironments = 0\n")
    layer = story.layer({"uv": ["tiny==2.0"]})
    story.laptop.run("prune", "-y", cwd=tmp_path / "work/app")
    assert not os.path.exists(layer.place)
    assert not (story.base.parent / f".{layer.place.name}.kept").exists()
    assert versions(story.base)["tiny"] == "1.0"
    shutil.rmtree(tmp_path / "work")


def test_what_the_base_leaves_to_a_job_its_layers_leave_to_theirs(tmp_path: Path) -> None:
    """The stage's job installs the environment and then what the stage adds; nobody else waits."""
    story = Story(tmp_path)
    app = tmp_path / "work/app"
    requirements = (app / "requirements.txt").read_text()
    code = f"{VERSIONS}; assert sys.prefix.rpartition('/')[2].startswith('layer-')"
    write(
        app,
        {
            "requirements.txt": f"{requirements}extra\n",
            "see.py": code,
            "rvstate.toml": '[environment]\nbuild = "job"\n[stages.see]\ncommand = "see.py"\n'
            'runtime_env = { pip = ["tiny==2.0"] }\n',
        },
    )
    done = story.laptop.run("pipeline", "run", "--wait", "--json", cwd=app)
    (stage,) = json.loads(done.stdout)["stages"]
    assert stage["state"] == "COMPLETED", story.laptop.run("logs", stage["job_id"]).stderr
    found = versions(stage["environment"])
    assert (found["tiny"], found["user"], found["extra"]) == ("2.0", "2.0", "1.0")
    assert not (Path(stage["environment"]) / ".rvstate/whole").exists()
    base = story.base.parents[2] / "main"
    assert (base / ".rvstate/whole").exists()
    assert "extra" not in versions(base)
