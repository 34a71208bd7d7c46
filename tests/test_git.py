import os
import subprocess
from pathlib import Path

import pytest

from rvstate import git as door
from rvstate.errors import RefusedError
from rvstate.model.project import Tree, difference
from tests.runkit import ODD_NAMES, git, repository, write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory of our own, in which projects lie."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home/app"


def sent(place: Path) -> set[str]:
    return {file.path for file in door.tree(door.inspect(place)).files}


def test_the_root_is_the_nearest_marker_upward(root: Path) -> None:
    """From a subdirectory the project is found, and where the user stands is known."""
    repository(root, {"a.py": "", "sub/deep/b.py": ""})
    found = door.inspect(root / "sub/deep")
    assert (found.root, found.name, found.subdirectory) == (str(root), "app", "sub/deep")


def test_home_is_never_a_project(tmp_path: Path, root: Path) -> None:
    """A marker in the home directory makes nothing of it; standing there is refused."""
    home = tmp_path / "home"
    repository(home, {"requirements.txt": "", ".ssh/id_ed25519": "secret"})
    (home / "plain").mkdir()
    for place in (home, home.parent):
        with pytest.raises(RefusedError, match="everything in it"):
            door.inspect(place)
    assert door.inspect(home / "plain").root == str(home / "plain")
    assert sent(home / "plain") == set()


def test_odd_names_come_through(root: Path) -> None:
    """Tracked and untracked names of any bytes are listed as they are."""
    repository(root, {name: name for name in ODD_NAMES})
    write(root, {f"{name}.new": name for name in ODD_NAMES})
    assert sent(root) == {*ODD_NAMES, *(f"{name}.new" for name in ODD_NAMES)}


def test_what_is_sent_is_what_git_would_keep(root: Path) -> None:
    """Tracked, staged and untracked files; not ignored ones, not deleted ones, not .git."""
    repository(root, {"a.py": "1", "gone.py": "1", ".gitignore": "*.log\n/data/\n", "t.log": "x"})
    git(root, "add", "--force", "t.log")
    write(root, {"new.py": "", "x.log": "", "data/big": "", "gone.py": None, "model.pt": "w"})
    assert sent(root) == {"a.py", ".gitignore", "t.log", "new.py", "model.pt"}


def test_rvignore_keeps_back_everywhere(root: Path, tmp_path: Path) -> None:
    """Tracked files, untracked ones, those of subdirectories and of submodules."""
    library = repository(tmp_path / "library", {"lib.py": "", "big.bin": "", "data/x": ""})
    repository(
        root, {"a.py": "", "a.bin": "", "sub/b.bin": "", "sub/keep.bin": "", "only/here": ""}
    )
    git(root, "submodule", "--quiet", "add", str(library), "third/library")
    write(root, {".rvignore": "*.bin\n/only/\nthird/library/data\n", "n.bin": ""})
    write(root, {"sub/.rvignore": "!keep.bin\n"})
    assert sent(root) == {
        *("a.py", ".rvignore", ".gitmodules", "sub/.rvignore", "sub/keep.bin"),
        "third/library/lib.py",
    }


def test_submodules_travel_and_missing_ones_are_named(root: Path, tmp_path: Path) -> None:
    """Files of a submodule, its own untracked ones too; one that is not checked out is said."""
    library = repository(tmp_path / "library", {"lib.py": "x"})
    repository(root, {"a.py": ""})
    git(root, "submodule", "--quiet", "add", str(library), "lib")
    git(root, "submodule", "--quiet", "add", str(library), "other")
    write(root, {"lib/new.py": ""})
    git(root, "submodule", "--quiet", "deinit", "--force", "other")
    scan = door.scan(door.inspect(root), {})
    assert {f.path for f in scan.tree.files} == {"a.py", ".gitmodules", "lib/lib.py", "lib/new.py"}
    assert any("not checked out" in notice and "other" in notice for notice in scan.notices)


def test_lfs_pointers_are_said(root: Path) -> None:
    """A pointer in the place of a large file is no surprise for the job."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    repository(root, {".gitattributes": "*.pt filter=none\n", "w.pt": pointer, "real.pt": "data"})
    (notice,) = door.scan(door.inspect(root), {}).notices
    assert "w.pt" in notice
    assert "real.pt" not in notice


def test_outside_git_both_ignore_files_count(root: Path) -> None:
    """Without a repository .gitignore and .rvignore say what stays behind."""
    write(root, {"requirements.txt": "", ".gitignore": "*.log\n", ".rvignore": "data/\n"})
    write(root, {"x.log": "", "data/big": "", "sub/y.log": "", "sub/z.py": "", "with space": ""})
    assert sent(root) == {"requirements.txt", ".gitignore", ".rvignore", "sub/z.py", "with space"}
    found = door.inspect(root)
    assert (found.branch_component, found.commit, found.dirty) == ("_default", None, False)


@pytest.mark.parametrize(
    ("branch", "directory"),
    [("main", "main"), ("feature/foo", "feature--foo"), ("a/b/c", "a--b--c")],
)
def test_a_branch_has_its_documented_directory(root: Path, branch: str, directory: str) -> None:
    """`feature/foo` is `feature--foo`."""
    repository(root, {"a": ""}, branch=branch)
    assert door.inspect(root).branch_component == directory


def test_no_two_branches_share_a_directory(root: Path) -> None:
    """What would collide gets a digest; a detached HEAD is named after its commit."""
    names = ["feature/foo", "feature--foo", "feature-foo", "é", "è", "x" * 90, "x" * 91, "_default"]
    found = []
    for name in names:
        repository(root.parent / f"r{len(found)}", {"a": ""}, branch=name)
        found.append(door.inspect(root.parent / f"r{len(found)}").branch_component)
    assert len(set(found)) == len(names)
    assert all(len(name) <= 80 and name for name in found)
    repository(root, {"a": ""})
    git(root, "checkout", "--quiet", "--detach")
    at = door.inspect(root)
    assert at.branch is None
    assert at.branch_component == f"detached-{(at.commit or '')[:12]}"


def test_clones_are_one_project_and_namesakes_are_not(root: Path, tmp_path: Path) -> None:
    """Identity follows the first commit and the place in it, not the directory's name."""
    repository(root, {"a": "", "sub/requirements.txt": ""})
    git(tmp_path, "clone", "--quiet", str(root), str(tmp_path / "home/clone/app"))
    other = repository(tmp_path / "home/other/app", {"b": "something else"})
    clone = door.inspect(tmp_path / "home/clone/app")
    assert clone.identity == door.inspect(root).identity
    assert door.inspect(other).name == door.inspect(root).name
    assert door.inspect(other).identity != door.inspect(root).identity
    assert door.inspect(root / "sub").identity != door.inspect(root).identity
    for place in ("p/app", "q/app"):
        write(tmp_path / "home" / place, {"requirements.txt": ""})
    one, two = (door.inspect(tmp_path / "home" / place) for place in ("p/app", "q/app"))
    assert one.identity != two.identity


def test_what_differs_from_the_commit_is_named(root: Path) -> None:
    """Edits, additions, deletions and renames, each by its name."""
    repository(root, {"edit": "1", "move": "some text\n" * 9, "gone": "1", "same": "1"})
    assert not door.inspect(root).dirty
    write(root, {"edit": "2", "gone": None, "new\nline": ""})
    git(root, "mv", "move", "moved here")
    assert set(door.inspect(root).changed) == {"edit", "gone", "new\nline", "moved here"}


def test_pushed_means_a_remote_has_it(root: Path, tmp_path: Path) -> None:
    """A commit counts as pushed once a remote branch holds it."""
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(origin)], check=True)
    repository(root, {"a": "1"})
    assert not door.is_pushed(door.inspect(root))
    git(root, "remote", "add", "origin", str(origin))
    git(root, "push", "--quiet", "origin", "main")
    assert door.is_pushed(door.inspect(root))
    write(root, {"a": "2"})
    git(root, "commit", "--quiet", "-a", "-m", "second")
    assert not door.is_pushed(door.inspect(root))


def test_a_version_follows_the_last_tag(root: Path) -> None:
    """The tag on the commit; after it a development version that names the commit."""
    repository(root, {"a": "1"})
    assert door.version(door.inspect(root)).startswith("0.0.0.dev0+g")
    git(root, "tag", "v1.2.3")
    assert door.version(door.inspect(root)) == "1.2.3"
    write(root, {"a": "2"})
    found = door.version(door.inspect(root))
    assert found.startswith("1.2.3.post0.dev0+g")
    assert found.endswith(".dirty")


def test_a_second_scan_reads_only_what_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged file is not read again; a changed one is, even at the same size and date."""
    repository(root, {"a": "1", "b": "1"})
    for name in ("a", "b"):
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    project = door.inspect(root)
    first = door.scan(project, {})
    # their change times are of just now, which may be the same tick as a later edit
    assert first.seen == {}
    monkeypatch.setattr(door, "_RACY", -(10**18))
    first = door.scan(project, {})
    assert set(first.seen) == {"a", "b"}
    read: list[str] = []
    digest = door._digest
    monkeypatch.setattr(door, "_digest", lambda path: read.append(path) or digest(path))
    assert door.scan(project, first.seen).tree == first.tree
    assert read == []
    write(root, {"b": "2"})
    os.utime(root / "b", (1_700_000_000, 1_700_000_000))
    after = door.scan(project, first.seen).tree
    assert read == [f"{root}/b"]
    assert [f.path for f in difference(first.tree, after).changed] == ["b"]


def test_modes_and_links_are_part_of_the_state(root: Path) -> None:
    """chmod +x, or another target, is a change; a date is none."""
    repository(root, {"a": "1"})
    os.symlink("a", root / "l")
    states = [door.tree(door.inspect(root)).state]
    os.utime(root / "a", (1, 1))
    assert door.tree(door.inspect(root)).state == states[0]
    (root / "a").chmod(0o755)
    states.append(door.tree(door.inspect(root)).state)
    (root / "l").unlink()
    os.symlink("b", root / "l")
    states.append(door.tree(door.inspect(root)).state)
    assert len(set(states)) == 3


def test_a_commit_can_be_written_out_again(root: Path, tmp_path: Path) -> None:
    """The files of a past commit, below the project's root only."""
    repository(root, {"sub/requirements.txt": "one", "sub/a": "1", "b": ""})
    project = door.inspect(root / "sub")
    write(root, {"sub/a": "2"})
    target = tmp_path / "out"
    target.mkdir()
    assert door.export(project, project.commit or "", target)
    assert {p.name: p.read_text() for p in target.iterdir()} == {
        "requirements.txt": "one",
        "a": "1",
    }
    assert not door.export(project, "0" * 40, target)


def test_words_that_name_files_are_found(root: Path) -> None:
    """Relative to where the user stands; what is outside, or nothing, is left out."""
    repository(root, {"sub/a.yaml": "", "data/x": ""})
    project = door.inspect(root / "sub")
    words = ("a.yaml", "../data", "/etc/passwd", "../../x", "nothing", "--flag", ".", "..")
    assert door.below(project, words) == ("sub/a.yaml", "data", "sub")


def test_a_hooks_variables_do_not_lead_astray(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run from within a git hook, the project is still the one in front of the user."""
    other = repository(tmp_path / "other", {"b": ""})
    repository(root, {"a": ""})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert sent(root) == {"a"}


def test_the_difference_of_two_trees_names_emptied_directories() -> None:
    """The deepest first, so that each is empty when its turn comes."""
    old = Tree(tuple(_file(name) for name in ("a/b/c", "a/b/d", "a/e", "f/g", "h")))
    new = Tree(tuple(_file(name) for name in ("a/e", "h", "i")))
    found = difference(old, new)
    assert (found.deleted, found.emptied) == (("a/b/c", "a/b/d", "f/g"), ("a/b", "f"))
    assert ([f.path for f in found.changed], found.same_paths) == (["i"], False)


def _file(name: str) -> door.File:
    return door.File(name, "f", "00", 1)
