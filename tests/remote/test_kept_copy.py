"""kept_copy.sh: an environment comes back from its kept copy, and only from one that is its own."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from rvstate import archive
from rvstate.script import Script
from tests import runkit
from tests.remote.test_build_environment import RECIPE, Place, lock
from tests.runkit import KILLED, Ran, run


class Kept(Place):
    """A workspace whose project is `app`, with a place that no purge reaches."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.backup = root / "kept place"

    @property
    def link(self) -> Path:
        return self.root / "scratch/.rv/envs/app/main"

    def generation(self, digest: str) -> Path:
        return self.root / "scratch/.rv/envs/app/.generations/main" / digest

    def archive(self, digest: str = "d1") -> Path:
        return self.backup / "app/main" / f"{digest}.tar"

    def keep(self, digest: str = "d1", dies_at: int | None = None, backup: str = "") -> Ran:
        """Build with a kept copy."""
        return run(self.script(digest, backup=backup or self.backup), dies_at=dies_at)

    def purge(self) -> None:
        """All of scratch goes."""
        shutil.rmtree(self.root / "scratch")


@pytest.fixture
def place(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def said(ran: Ran, word: str) -> list[str]:
    return [x.partition(" ")[2] for x in ran.lines if x.startswith(f"{word} ")]


def test_what_was_built_is_kept_and_comes_back(place: Kept) -> None:
    """An archive and its mark; after the purge it is unpacked with today's dates, not built."""
    ran = place.keep()
    assert said(ran, "kept") == [f"{place.archive().stat().st_size} {place.archive()}"]
    names = sorted(p.name for p in place.archive().parent.iterdir())
    assert names == ["d1.tar", "d1.tar.rvstate"]
    assert place.archive().stat().st_mode & 0o077 == 0
    with tarfile.open(place.archive()) as kept:
        assert "./.rvstate-environment" not in kept.getnames()
        assert "./bin/python" in kept.getnames()
    # so that its date would be an old one
    os.utime(place.generation("d1") / "bin/python", (1, 1))
    place.purge()
    calls = place.calls()
    ran = place.keep()
    assert said(ran, "unpacked") == [str(place.archive())], ran
    assert said(ran, "built") == [str(place.generation("d1"))]
    assert not [call for call in place.calls()[len(calls) :] if not call.startswith("pip check")]
    python = place.link / "bin/python"
    assert python.stat().st_mtime > 1000
    assert (place.link / ".rvstate-environment").read_text().startswith("d1\n")
    assert b"./bin/python//" in (place.link / ".rvstate/manifest").read_bytes()


def test_without_one_nothing_is_kept(place: Kept) -> None:
    """An empty place means none, and nothing is said of it."""
    ran = run(place.script("d1"))
    assert (said(ran, "kept"), said(ran, "note")) == ([], [])
    assert not place.backup.exists()


def test_a_second_build_keeps_nothing_twice(place: Kept) -> None:
    """The one that is there stays as it is; one that is gone is made again from what is whole."""
    place.keep()
    number = place.archive().stat().st_ino
    assert said(place.keep(), "kept") == []
    assert place.archive().stat().st_ino == number
    place.archive().unlink()
    assert len(said(place.keep(), "kept")) == 1
    place.archive().unlink()
    (place.generation("d1") / "bin/python").write_text("#!/bin/sh\nexit 0 # and longer\n")
    assert said(place.keep(), "kept") == []
    assert not place.archive().exists()


def damage_archive(place: Kept) -> None:
    with place.archive().open("r+b") as file:
        file.seek(600)
        file.write(b"other")


def damage_mark(place: Kept) -> None:
    place.archive().with_name("d1.tar.rvstate").write_text("rvstate environment\n")


def elsewhere(place: Kept) -> None:
    mark = place.archive().with_name("d1.tar.rvstate")
    mark.write_text(mark.read_text().replace("/scratch/", "/another/"))


def writable(place: Kept) -> None:
    place.archive().chmod(0o622)


def cut(place: Kept) -> None:
    os.truncate(place.archive(), 1000)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_archive, "is damaged and was not used"),
        (cut, "is damaged and was not used"),
        (damage_mark, "move it away"),
        (elsewhere, "move it away"),
        (writable, "others may write to it"),
    ],
)
def test_what_is_not_surely_its_copy_is_not_used(place: Kept, damage: object, says: str) -> None:
    """It is built, and that is said; what is not known to be a copy of it is not overwritten."""
    assert callable(damage)
    place.keep()
    damage(place)
    before = place.archive().read_bytes()
    place.purge()
    ran = place.keep()
    assert any(says in note for note in said(ran, "note")), ran
    assert said(ran, "built") == [str(place.generation("d1"))]
    assert len([call for call in place.calls() if call.startswith("venv")]) == 2
    foreign = "move it away" in says
    assert not foreign or place.archive().read_bytes() == before
    assert bool(said(ran, "kept")) is not foreign


def test_one_that_does_not_work_any_more_is_built_anew(place: Kept) -> None:
    """It is whole, and what it needs is gone: it fails the check of every build."""
    place.keep()
    place.purge()
    uv = place.root / "tools/uv"
    once = '[ -e "${0%/*}/once" ] || { : >"${0%/*}/once"; exit 1; };;\n"pip other")'
    uv.write_text(uv.read_text().replace('"pip check")', f'"pip check") {once}'))
    ran = place.keep()
    assert any("does not work any more" in note for note in said(ran, "note")), ran
    assert place.link.resolve() == place.generation("d1")
    assert len(said(ran, "kept")) == 1


UV_WITH_PYTHON = """#!/bin/sh
# uv that brings its own Python, as a link to where the build tells it to
python=$UV_PYTHON_INSTALL_DIR/3.99
bring() {
    mkdir -p "$python" && printf '#!/bin/sh\\necho Python 3.99\\n' >"$python/it" &&
        chmod 755 "$python/it"
}
echo "$@" >>"${0%/*}/calls"
case "$1 $2" in
    "venv "*)
        for last; do :; done
        bring && mkdir -p "$last/bin" && ln -s "$python/it" "$last/bin/python" &&
            printf 'home = x\\nversion_info = 3.99.1\\n' >"$last/pyvenv.cfg" ;;
    "python install") [ "$4" = 3.99.1 ] && bring ;;
esac
"""


def test_a_python_of_uv_that_went_too_is_brought_again(place: Kept) -> None:
    """It lay on scratch beside the environments."""
    runkit.write(place.root, {"tools/uv": UV_WITH_PYTHON}, executable=True)
    place.keep()
    assert (place.link / "bin/python").resolve().is_relative_to(place.root / "scratch/.rv/tools")
    place.purge()
    ran = place.keep()
    assert said(ran, "unpacked") == [str(place.archive())], ran
    assert (place.link / "bin/python").exists()
    assert len([call for call in place.calls() if call.startswith("venv")]) == 1


def test_two_are_kept_of_a_branch_and_foreign_things_stay(place: Kept) -> None:
    """The one of now and the newest before it; what has no mark of ours is nobody's to remove."""
    runkit.write(place.backup / "app/main", {"dead.tar": "mine", "notes": "mine"})
    runkit.write(place.backup / "app/main", {"beef.tar": "mine", "beef.tar.rvstate": "mine\n"})
    runkit.write(place.backup / "app/other", {"d1.tar": "mine"})
    for number, digest in enumerate(("d1", "d2", "d3"), start=1):
        place.keep(digest)
        mark = place.archive(digest).with_name(f"{digest}.tar.rvstate")
        lines = [x for x in mark.read_text().splitlines() if not x.startswith("made ")]
        mark.write_text("\n".join([*lines, f"made {number}"]) + "\n")
    place.keep("d4")
    found = sorted(p.name for p in (place.backup / "app/main").iterdir())
    ours = ["d3.tar", "d3.tar.rvstate", "d4.tar", "d4.tar.rvstate"]
    assert found == ["beef.tar", "beef.tar.rvstate", *ours, "dead.tar", "notes"]
    assert (place.backup / "app/other/d1.tar").exists()


def test_what_cannot_be_kept_is_a_warning(place: Kept) -> None:
    """A file in the way, or scratch by another name: it is built all the same."""
    place.backup.write_text("mine")
    ran = place.keep()
    assert ran.status == 0
    (note,) = said(ran, "note")
    assert "no copy of the environment was kept" in note
    assert "set backup in [environment]" in note
    assert place.backup.read_text() == "mine"
    place.backup.unlink()
    (place.root / "scratch/x").mkdir()
    place.backup.symlink_to(place.root / "scratch/x")
    (note,) = said(place.keep("d2"), "note")
    assert "it lies on scratch" in note
    assert place.link.resolve() == place.generation("d2")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_place_is_a_warning(place: Kept) -> None:
    """Nothing half written is left, and the reason is the system's."""
    tools = place.root / "full"
    runkit.write(tools, {"tee": "#!/bin/sh\nexec /usr/bin/tee /dev/full\n"}, executable=True)
    path = f"{tools}:{os.environ['PATH']}"
    ran = run(place.script("d1", backup=place.backup), env={"PATH": path})
    assert ran.status == 0
    (note,) = said(ran, "note")
    assert "No space left on device" in note
    assert list((place.backup / "app/main").iterdir()) == []


@pytest.mark.parametrize("part", range(4))
def test_killed_anywhere_the_next_build_has_both(part: int, tmp_path: Path) -> None:
    """Neither a half environment nor a half copy ever counts; after the purge the copy is used."""
    for step in range(1 + part * 8, 5000, 32):
        place = Kept(tmp_path / str(step))
        if part % 2:
            # it is unpacked and not built
            place.keep()
            place.purge()
        killed = place.keep(dies_at=step).status == KILLED
        if place.link.exists():
            assert (place.link / ".rvstate-environment").read_text().startswith("d1\n"), step
        runkit.age_locks(place.root)
        assert said(place.keep(), "built") == [str(place.generation("d1"))], step
        assert not lock(place).is_symlink()
        place.purge()
        ran = place.keep()
        assert said(ran, "unpacked") == [str(place.archive())], (step, ran)
        if not killed:
            return
        shutil.rmtree(place.root)
    raise AssertionError("it never came to its end")


def test_the_payload_of_now_is_what_it_is_checked_with(place: Kept) -> None:
    """What is imported, and how it is checked, is no part of the digest."""
    place.keep()
    place.purge()
    script = place.script("d1", backup=place.backup)
    texts = {"recipe": RECIPE.format(digest="d1") + "import tiny\n", "check.py": "# newer"}
    payload = archive.bundle(texts, {"inputs": ("./require ments.txt",)})
    assert run(Script(script.name, script.args, payload)).status == 0
    assert (place.link / ".rvstate/check.py").read_text() == "# newer"
    assert "import tiny" in (place.link / ".rvstate/recipe").read_text()
