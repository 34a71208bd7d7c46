import itertools
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvstate import git as door
from rvstate.errors import RefusedError
from rvstate.git import files as files_door
from rvstate.git import repository as repository_door
from rvstate.model.project import File, Project, Tree, difference
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


def test_a_directory_that_everybody_writes_to_is_no_project(tmp_path: Path) -> None:
    """A stray marker in a place such as /tmp makes it no project of those who stand below it."""
    shared = tmp_path / "shared"
    write(shared, {"requirements.txt": "", "mine/train.py": "", "theirs/secret": ""})
    shared.chmod(0o1777)
    with pytest.raises(RefusedError, match="everything in it"):
        door.inspect(shared)
    assert sent(shared / "mine") == {"train.py"}


def test_an_unmarked_directory_is_sent_only_if_it_is_small(root: Path) -> None:
    """A few scripts need no ceremony; anything else needs one word that it is meant."""
    write(root, {"train.py": "", "conf/x.yaml": ""})
    assert sent(root) == {"train.py", "conf/x.yaml"}
    write(root, {f"data/{n}": "" for n in range(300)})
    with pytest.raises(RefusedError, match="Nothing marks"):
        sent(root)
    write(root, {".rvignore": "/data/\n"})
    assert sent(root) == {"train.py", "conf/x.yaml", ".rvignore"}
    (root / ".rvignore").unlink()
    git(root, "init", "--quiet")
    assert len(sent(root)) == 302
    write(root, {":colon": "", "*": "", "-dash": "", ".rvignore": "/data/\n:colon\n-dash\n\\*\n"})
    assert sent(root) == {"train.py", "conf/x.yaml", ".rvignore"}


def test_an_unmarked_directory_is_not_sent_if_it_is_heavy(root: Path) -> None:
    """One large file is enough to ask."""
    write(root, {"train.py": ""})
    with (root / "disk.img").open("wb") as file:
        file.truncate(30 << 20)
    with pytest.raises(RefusedError, match="Nothing marks"):
        sent(root)


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


_PATTERNS = st.sampled_from(
    [
        *("*.bin", "!*.bin", "data", "data/", "/data", "!data/", "lib/data", "**/x", "a/**", "*"),
        *("!keep.bin", "!*/", "third/lib/*.bin", "/third/**/deep", "# no rule", "", "sp ace"),
        *("x\\ ", "[ab].bin"),
    ]
)
_PLACES = ("", "third", "third/lib", "third/lib/inner", "third/lib/inner/deep", "sub")


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rules=st.dictionaries(
        st.sampled_from(_PLACES), st.lists(_PATTERNS, min_size=1, max_size=4), max_size=4
    )
)
def test_rules_of_all_levels_count_as_git_counts_them(
    tmp_path_factory: pytest.TempPathFactory, rules: dict[str, list[str]]
) -> None:
    """Nested `.rvignore` files, within submodules and their submodules and above them, keep back
    exactly what git would ignore if the whole were one plain tree with `.gitignore` files."""
    top = tmp_path_factory.mktemp("rules")
    names = [
        f"{p}/{n}".lstrip("/") for p in _PLACES for n in ("a.bin", "keep.bin", "data/x", "a/x")
    ]
    plain, real = top / "plain", top / "home" / "real"
    write(plain, dict.fromkeys(names, ""))
    write(plain, {f"{p}/.gitignore".lstrip("/"): "\n".join(r) + "\n" for p, r in rules.items()})
    git(plain, "init", "--quiet", "--template=")
    expected = set(git(plain, "ls-files", "-z", "-o", "--exclude-standard").split("\0")) - {""}
    write(real, dict.fromkeys(names, ""))
    for place in ("third/lib/inner", "third/lib", ""):
        git(real / place, "init", "--quiet", "--initial-branch=main")
        git(real / place, "add", "--all")
        git(real / place, "commit", "--quiet", "-m", "first")
    write(real, {f"{p}/.rvignore".lstrip("/"): "\n".join(r) + "\n" for p, r in rules.items()})
    assert sent(real) == {name.replace(".gitignore", ".rvignore") for name in expected}


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
    # a project in a directory of a larger repository, whose attributes lie above it
    write(root, {"part/requirements.txt": "", "part/x.pt": pointer})
    (notice,) = door.scan(door.inspect(root / "part"), {}).notices
    assert "x.pt" in notice


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
    assert common(clone, door.inspect(root))
    assert door.inspect(other).name == door.inspect(root).name
    assert not common(door.inspect(other), door.inspect(root))
    assert not common(door.inspect(root / "sub"), door.inspect(root))
    for place in ("p/app", "q/app"):
        write(tmp_path / "home" / place, {"requirements.txt": ""})
    one, two = (door.inspect(tmp_path / "home" / place) for place in ("p/app", "q/app"))
    assert not common(one, two)


def common(one: Project, two: Project) -> set[str]:
    """What lets one into the workspace of the other."""
    return {*one.identities, *one.formerly} & {*two.identities}


def test_a_shallow_clone_is_known_by_its_remote(root: Path, tmp_path: Path) -> None:
    """Full, shallow, under another name of the remote, a worktree, without any remote: one project.
    A fork shares the first commit; another repository shares nothing, and a path is no remote."""
    origin = repository(tmp_path / "origin", {"a": "1"})
    git(origin, "commit", "--quiet", "--allow-empty", "-m", "second")
    places = {name: tmp_path / "home" / name / "app" for name in ("full", "shallow", "named")}
    for name, place in places.items():
        words = ["--depth=1"] if name == "shallow" else []
        git(tmp_path, "clone", "--quiet", *words, f"file://{origin}", str(place))
    git(places["full"], "remote", "set-url", "origin", "git@example.org:me/app.git")
    git(places["shallow"], "remote", "set-url", "origin", "https://token:x@example.org/me/app")
    git(places["named"], "remote", "set-url", "origin", "ssh://git@example.org:2222/me/app.git/")
    git(places["named"], "remote", "rename", "origin", "upstream")
    git(places["full"], "worktree", "add", "--quiet", str(tmp_path / "home/tree/app"))
    found = {name: door.inspect(place) for name, place in places.items()}
    found["worktree"] = door.inspect(tmp_path / "home/tree/app")
    for one in found.values():
        assert all(common(one, two) for two in found.values())
        assert not any("token" in text for text in one.identities)
    git(places["full"], "remote", "set-url", "origin", "git@example.org:fork/app.git")
    fork = door.inspect(places["full"])
    assert common(fork, found["named"])
    assert not common(fork, found["shallow"])
    stranger = door.inspect(repository(tmp_path / "home/stranger/app", {"b": ""}))
    assert not any(common(stranger, one) for one in found.values())


def test_a_project_stays_itself_when_it_grows(root: Path, tmp_path: Path) -> None:
    """From no git to a first commit, to a remote, to a merge of another history."""
    write(root, {"requirements.txt": ""})
    steps = [door.inspect(root)]
    git(root, "init", "--quiet", "--initial-branch=main")
    steps.append(door.inspect(root))
    git(root, "commit", "--quiet", "--allow-empty", "-m", "first")
    steps.append(door.inspect(root))
    git(root, "remote", "add", "origin", "git@example.org:me/app.git")
    steps.append(door.inspect(root))
    other = repository(tmp_path / "other", {"b": ""})
    git(other, "commit", "--quiet", "--allow-empty", "-m", "their second")
    git(root, "fetch", "--quiet", str(other), "main")
    git(root, "merge", "--quiet", "--allow-unrelated-histories", "-m", "theirs", "FETCH_HEAD")
    steps.append(door.inspect(root))
    for earlier, later in itertools.pairwise(steps):
        assert common(later, earlier)
    assert not common(door.inspect(other), steps[-1])


def test_the_first_commit_is_looked_for_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history is walked once for each commit, and what was found is handed back."""
    repository(root, {"a": ""})
    firsts: dict[str, str] = {}
    first = door.inspect(root, firsts)
    head = git(root, "rev-parse", "HEAD").strip()
    assert firsts == {head: head}
    asked: list[str] = []
    ask = repository_door.ask
    monkeypatch.setattr(
        repository_door, "ask", lambda r, *w, **m: asked.append(w[0]) or ask(r, *w, **m)
    )
    assert door.inspect(root, firsts).identities == first.identities
    assert "rev-list" not in asked


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
    monkeypatch.setattr(files_door, "_RACY", -(10**18))
    first = door.scan(project, {})
    assert set(first.seen) == {"a", "b"}
    read: list[str] = []
    digest = files_door._digest
    monkeypatch.setattr(files_door, "_digest", lambda path: read.append(path) or digest(path))
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


def _file(name: str) -> File:
    return File(name, "f", "00", 1)
