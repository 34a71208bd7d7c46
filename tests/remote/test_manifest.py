"""manifest.sh: what a tree held is known, and damage is told from additions, whatever the names."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import assets
from tests.runkit import ODD_NAMES, write

WEEKS = 40 * 86400


def shell(tmp: Path, command: str, *args: str, how: str = "sh") -> list[str]:
    """What a command of one line prints behind the two libraries."""
    text = f"{assets.script('lib')}\n{assets.script('manifest')}\n{command}\n"
    done = subprocess.run(
        [how, "-s", "--", *args], input=text.encode(), capture_output=True, cwd=tmp, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "surrogateescape").splitlines()


@pytest.fixture(params=["sh", "bash", "slowly"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The shell; and once with a find that knows no -printf."""
    return str(request.param)


class Kept:
    """A tree with a manifest."""

    def __init__(self, root: Path, way: str) -> None:
        self.tree = root / "tr ee\n"
        self.file = root / "manifest"
        self.root = root
        self.how = "sh" if way == "slowly" else way
        self.before = "uname() { echo Other; }; " if way == "slowly" else ""

    def keep(self) -> None:
        command = f'{self.before}rv_manifest "$1" "$2"'
        shell(self.root, command, str(self.tree), str(self.file), how=self.how)

    def compare(self) -> list[str]:
        command = f'{self.before}rv_compare "$1" "$2"'
        return shell(self.root, command, str(self.tree), str(self.file), how=self.how)


@pytest.fixture
def kept(tmp_path: Path, way: str) -> Kept:
    """Odd names, links that lead somewhere and nowhere, an empty directory."""
    kept = Kept(tmp_path, way)
    write(kept.tree, {f"pkg/{name}": f"in {name}" for name in ODD_NAMES})
    write(kept.tree, {"a": "1", "bin/python": "x"})
    (kept.tree / "empty").mkdir()
    os.symlink("a", kept.tree / "link")
    os.symlink("nowhere/", kept.tree / "dangling\n")
    kept.keep()
    return kept


def test_nothing_changed_is_nothing_said(kept: Kept) -> None:
    """Bytecode, our own files and the manifest itself are no part of it."""
    write(kept.tree, {"pkg/__pycache__/x.pyc": "1", "pkg/x.pyc": "1", ".rvstate/more": "1"})
    write(kept.tree, {".rvstate-environment": "digest"})
    assert kept.compare() == []


def test_damage_is_named(kept: Kept) -> None:
    """Gone, truncated, another kind of thing, a link turned round or left dangling."""
    (kept.tree / "pkg/line\nbreak").unlink()
    (kept.tree / "pkg/-dash").write_text("")
    (kept.tree / "bin/python").unlink()
    (kept.tree / "bin/python").mkdir()
    (kept.tree / "a").unlink()
    assert sorted(kept.compare()) == [
        "changed ./link",
        "changed ./pkg/-dash",
        "missing ./a",
        "missing ./bin/python",
        "missing ./pkg/line\x01break",
    ]


def test_what_was_added_is_no_damage(kept: Kept) -> None:
    """Files that were not there before are additions, next to and within names that were."""
    write(kept.tree, {"pkg/with space.more": "1", "pkg/with": "1", "new/x": "1"})
    assert sorted(kept.compare()) == [
        "added ./new/x",
        "added ./pkg/with",
        "added ./pkg/with space.more",
    ]


def test_a_directory_that_went_is_every_file_of_it(kept: Kept) -> None:
    """A directory that was purged is named by what it held."""
    for name in ODD_NAMES:
        (kept.tree / "pkg" / name).unlink()
    (kept.tree / "pkg").rmdir()
    found = kept.compare()
    assert len(found) == len(ODD_NAMES)
    assert all(line.startswith("missing ./pkg/") for line in found)


@pytest.mark.parametrize("cut", [0, 1, 3, 40])
def test_a_manifest_that_was_cut_is_not_believed(kept: Kept, cut: int) -> None:
    """Cut anywhere, or gone, it says nothing of the tree."""
    whole = kept.file.read_bytes()
    kept.file.write_bytes(whole[: len(whole) - cut] if cut else b"")
    assert kept.compare() == ["torn"]
    kept.file.unlink()
    assert kept.compare() == ["torn"]


def test_a_manifest_is_written_whole_or_not_at_all(kept: Kept) -> None:
    """Where the walk fails the former one stays, and nothing is left behind."""
    before = kept.file.read_bytes()
    command = 'rv_manifest "$1" "$2" 2>/dev/null || echo failed'
    assert shell(kept.root, command, str(kept.root / "none"), str(kept.file)) == ["failed"]
    assert kept.file.read_bytes() == before
    assert sorted(p.name for p in kept.root.iterdir()) == ["manifest", kept.tree.name]


def test_a_closed_door_is_no_loss(tmp_path: Path) -> None:
    """What may not be entered is said to be unreadable, and its files are not called missing."""
    # nothing is closed to root
    nobody = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    tree = tmp_path / "tree"
    write(tree, {"pkg/a": "1", "pkg/-": "1", "pkg-b": "1", "z": "1"})
    shell(tmp_path, 'rv_manifest "$1" "$2"', str(tree), str(tmp_path / "m"))
    for path in (tmp_path, *tmp_path.parents):
        if (
            path.stat().st_mode & 0o5 != 0o5
            and path.is_relative_to("/tmp")
            and path != Path("/tmp")
        ):
            path.chmod(path.stat().st_mode | 0o55)
    (tree / "pkg").chmod(0)
    (tree / "pkg-b").unlink()
    script = tmp_path / "script"
    text = f"{assets.script('lib')}\n{assets.script('manifest')}\n"
    script.write_text(text + 'rv_compare "$1" "$2"\n')
    script.chmod(0o644)
    done = subprocess.run(
        ["sh", str(script), str(tree), str(tmp_path / "m")],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **nobody,
    )
    (tree / "pkg").chmod(0o755)
    assert sorted(done.stdout.splitlines()) == ["missing ./pkg-b", "unreadable ./pkg"], done.stderr


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=8
).filter(
    lambda name: name not in (".", "..") and not name.endswith(".pyc") and name != "__pycache__"
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(NAMES, st.sampled_from(["keep", "lose", "cut", "add"]), max_size=8))
def test_any_names_and_any_damage(fates: dict[str, str]) -> None:
    """Whatever files are called: each loss and each change is found, and nothing else."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tree = root / "tree"
        tree.mkdir()
        for name, fate in fates.items():
            if fate != "add":
                (tree / name).write_text("text")
        shell(root, 'rv_manifest "$1" "$2"', str(tree), str(root / "m"))
        expected = []
        words = {"lose": "missing", "cut": "changed", "add": "added"}
        for name, fate in fates.items():
            if fate == "lose":
                (tree / name).unlink()
            elif fate in ("cut", "add"):
                (tree / name).write_text("t")
            if fate in words:
                expected.append(f"{words[fate]} ./{name}".replace("\n", "\x01"))
        text = f'{assets.script("lib")}\n{assets.script("manifest")}\nrv_compare "$1" "$2"\n'
        done = subprocess.run(
            ["sh", "-s", "--", str(tree), str(root / "m")], input=text.encode(), capture_output=True
        )
        found = done.stdout.decode("utf-8", "surrogateescape").split("\n")[:-1]
        assert sorted(found) == sorted(expected)


def test_what_an_installer_left_old_is_renewed(tmp_path: Path) -> None:
    """Files with an old date get today's; links too, without what they lead to."""
    old = time.time() - WEEKS
    write(tmp_path / "tree", {"old": "1", "new": "1"})
    write(tmp_path, {"elsewhere": "1"})
    os.symlink(tmp_path / "elsewhere", tmp_path / "tree/link")
    for path in (tmp_path / "tree/old", tmp_path / "elsewhere", tmp_path / "tree/link"):
        os.utime(path, (old, old), follow_symlinks=False)
    new = (tmp_path / "tree/new").stat().st_mtime_ns
    shell(tmp_path, 'rv_renew "$1"', str(tmp_path / "tree"))
    for name in ("old", "link"):
        found = (tmp_path / "tree" / name).lstat()
        assert found.st_mtime > old + WEEKS / 2
        assert found.st_atime > old + WEEKS / 2
    assert (tmp_path / "elsewhere").stat().st_mtime == pytest.approx(old, abs=1)
    assert (tmp_path / "tree/new").stat().st_mtime_ns == new
