"""heal.sh: damaged environments are taken out of use, once, and only those."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rvstate import assets
from rvstate.script import Script
from tests.runkit import KILLED, Ran, run, write


class Place:
    """An environment with the link of its branch."""

    def __init__(self, root: Path) -> None:
        self.link = root / "envs/app/main br"
        self.generation = root / "envs/app/.generations/main br/d1"
        write(self.generation, {".rvstate-environment": "d1\n"})
        write(self.generation, {"bin/python": "#!/bin/sh\n"}, executable=True)
        os.symlink(self.generation, self.link)

    def heal(self, dies_at: int | None = None) -> Ran:
        return run(Script("heal", ("5", "/tools", "/cache", str(self.link))), dies_at=dies_at)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_one_that_is_whole_by_now_is_left_alone(place: Place) -> None:
    """Somebody else has built it since the look."""
    assert place.heal().lines == ["done 0 "]
    assert place.link.is_symlink()


@pytest.mark.parametrize("damage", ["stamp", "interpreter", "verified", "gone"])
def test_a_damaged_one_is_taken_out_of_use(place: Place, damage: str) -> None:
    """Neither link nor stamp are left, and the second time there is nothing to do."""
    if damage == "stamp":
        (place.generation / ".rvstate-environment").unlink()
    elif damage == "interpreter":
        (place.generation / "bin/python").unlink()
    elif damage == "verified":
        write(place.generation, {".rvstate/verified": "5 damaged\n"})
    else:
        place.generation.rename(place.generation.with_name("elsewhere"))
    for _ in range(2):
        assert place.heal().lines[0].startswith("done 0 ")
        assert not place.link.is_symlink()
        assert not (place.generation / ".rvstate-environment").exists()


def test_what_is_not_ours_is_refused(place: Place, tmp_path: Path) -> None:
    """A link to somewhere else keeps what it leads to."""
    place.link.unlink()
    (tmp_path / "mine").mkdir()
    place.link.symlink_to(tmp_path / "mine")
    ran = place.heal()
    assert ran.status == 1
    assert "which rvstate did not make" in ran.lines[0]
    assert place.link.is_symlink()


def test_killed_anywhere_the_next_one_finishes(tmp_path: Path) -> None:
    """A stamp never outlives the decision, and nothing else is lost."""
    for step in range(1, 400):
        place = Place(tmp_path / str(step))
        write(place.generation, {".rvstate/verified": "5 damaged\n"})
        ran = place.heal(dies_at=step)
        assert place.link.is_symlink() or not (place.generation / ".rvstate-environment").exists()
        assert place.heal().status == 0
        assert not place.link.is_symlink()
        assert (place.generation / "bin/python").exists()
        if ran.status != KILLED:
            return
    raise AssertionError("it never came to its end")


# one that keeps what it was built from

UV = """#!/bin/sh
# uv, as far as a build can tell: programs name the interpreter by its path
echo "$@" >>"${0%/*}/calls"
case "$1 $2" in
    "venv "*)
        for last; do :; done
        mkdir -p "$last/bin" "$last/lib/python3.9/site-packages" || exit 1
        printf '#!/bin/sh\\n[ "$1" != --version ] || echo Python 3.9\\n' >"$last/bin/python"
        printf '#!%s/bin/python\\n' "$last" >"$last/bin/tool"
        chmod 755 "$last/bin/python" "$last/bin/tool" ;;
    "pip install")
        [ ! -e "${0%/*}/refuse" ] || { echo "no network" >&2; exit 1; }
        while [ "$1" != --python ]; do shift; done
        site=${2%/bin/python}/lib/python3.9/site-packages
        for word; do case $word in
            */asked) while read -r one; do
                mkdir -p "$site/${one%==*}-${one#*==}.dist-info"
                echo x >"$site/${one%==*}.py"
            done <"$word" ;;
            *.txt) mkdir -p "$site/base-1.dist-info" && echo x >"$site/base.py" ;;
        esac; done ;;
esac
"""
RECIPE = "kind uv\npython /bin/sh\nsource requirements.txt\n"


@pytest.fixture
def kept(tmp_path: Path) -> Place:
    """An environment that keeps its recipe, with a package that was added by hand."""
    place = Place(tmp_path)
    write(tmp_path / "tools/bin", {"uv": UV}, executable=True)
    write(place.generation / ".rvstate", {"recipe": RECIPE, "sources/requirements.txt": "base\n"})
    write(place.generation / ".rvstate", {"check.py": "#", "installed": "base==1\n"})
    site = place.generation / "lib/python3.9/site-packages"
    write(site, {"base-1.dist-info/x": "", "extra-2.dist-info/x": "", "extra.py": ""})
    write(place.generation / ".rvstate", {"verified": "5 damaged\n"})
    return place


def rebuilt(place: Place, root: Path, dies_at: int | None = None) -> Ran:
    words = ("5", str(root / "tools"), str(root / "cache"), str(place.link))
    return run(Script("heal", words), env={"PATH": "/usr/bin:/bin"}, dies_at=dies_at)


def test_it_is_built_again_with_what_was_added(kept: Place, tmp_path: Path) -> None:
    """The same generation, whole, under its own path; nothing of the build is left beside it."""
    ran = rebuilt(kept, tmp_path)
    assert ran.lines == ["done 0 it was built again"], ran
    assert kept.link.resolve() == kept.generation
    site = kept.generation / "lib/python3.9/site-packages"
    assert (site / "base.py").exists()
    assert (site / "extra-2.dist-info").is_dir()
    assert (kept.generation / "bin/tool").read_text() == f"#!{kept.generation}/bin/python\n"
    assert (kept.generation / ".rvstate-environment").read_text().startswith("d1\n")
    assert not (kept.generation / ".rvstate/verified").exists()
    assert b"./bin/tool//" in (kept.generation / ".rvstate/manifest").read_bytes()
    assert sorted(p.name for p in kept.generation.parent.iterdir()) == [".d1.kept", "d1"]
    assert rebuilt(kept, tmp_path).lines == ["done 0 "]


def test_one_that_cannot_be_built_is_left_as_it_is(kept: Place, tmp_path: Path) -> None:
    """Without a network nothing is lost, and the reason is said; the next time it succeeds."""
    (tmp_path / "tools/bin/refuse").touch()
    ran = rebuilt(kept, tmp_path)
    assert ran.status == 1
    assert "could not be built again" in ran.lines[0]
    assert kept.link.resolve() == kept.generation
    assert (kept.generation / "lib/python3.9/site-packages/extra.py").exists()
    (tmp_path / "tools/bin/refuse").unlink()
    assert rebuilt(kept, tmp_path).lines == ["done 0 it was built again"]


@pytest.mark.parametrize("part", range(4))
def test_killed_anywhere_it_is_finished_by_the_next(part: int, tmp_path: Path) -> None:
    """At no point is there a half that counts as whole, and nothing but the damaged one is lost."""
    for step in range(1 + part * 20, 5000, 80):
        root = tmp_path / str(step)
        place = Place(root)
        write(root / "tools/bin", {"uv": UV}, executable=True)
        sources = {"recipe": RECIPE, "sources/requirements.txt": "base\n", "check.py": "#"}
        write(place.generation / ".rvstate", {**sources, "verified": "5 damaged\n"})
        killed = rebuilt(place, root, dies_at=step).status == KILLED
        again = rebuilt(place, root)
        assert again.status == 0, again
        if place.link.is_symlink():
            assert (place.generation / "lib/python3.9/site-packages/base.py").exists()
            assert (place.generation / ".rvstate/manifest").exists()
        else:
            assert not (place.generation / ".rvstate-environment").exists()
        if not killed:
            return
    raise AssertionError("it never came to its end")


def test_one_that_lost_its_recipe_too_is_left_to_the_next_run(kept: Place, tmp_path: Path) -> None:
    """What it was built from is gone in part: it is taken out of use, and that is said."""
    (kept.generation / ".rvstate/check.py").unlink()
    (line,) = rebuilt(kept, tmp_path).lines
    assert line.startswith("done 0 it does not keep what it was built from")
    assert not kept.link.is_symlink()


def test_what_conda_brought_comes_back_by_conda(tmp_path: Path) -> None:
    """Its own packages under their names there, never an index's of the same name."""
    damaged, place = tmp_path / "d1", tmp_path / "fresh/.rvstate"
    site = "lib/python3.9/site-packages"
    write(damaged, {"conda-meta/openssl-3.1-h1_0.json": "", "conda-meta/my-tool-2-py_0.json": ""})
    write(damaged, {f"{site}/my_tool-2.dist-info/INSTALLER": "conda\n"})
    write(damaged, {f"{site}/extra-1.dist-info/INSTALLER": "pip\n"})
    write(place, {"recipe": "kind conda\n"})
    write(place, {"extra": "extra==1\nmy-tool==2\nmy_tool==2\nopenssl==3.1\n"})
    write(tmp_path, {"conda": f'#!/bin/sh\necho "$@" >{tmp_path}/calls\n'}, executable=True)
    names = ("lib", "manifest", "build_environment", "heal")
    text = "\n".join(assets.script(name) for name in names)
    values = (("damaged", damaged), ("place", place), ("fresh", tmp_path / "fresh"))
    given = "\n".join(f"{name}={value}" for name, value in (*values, ("conda", tmp_path / "conda")))
    more = f"generation=$fresh\ncache=/none\n{given}\nput_back_by_conda\n"
    subprocess.run(["sh", "-c", f"{text}\n{more}"], check=True)
    assert (place / "extra").read_text() == "extra==1\n"
    called = (tmp_path / "calls").read_text().split()
    assert called[-3:] == [str(tmp_path / "fresh"), "my-tool=2", "openssl=3.1"]
