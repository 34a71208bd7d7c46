import os
from pathlib import Path

import pytest

from rvstate import git
from rvstate.model.project import Project, Tree
from rvstate.script import Script
from tests import runkit
from tests.runkit import ODD_NAMES, contents, push, run, write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A project with every odd thing that a tree may hold."""
    root = tmp_path / "source"
    write(root, {name: f"in {name}" for name in ODD_NAMES})
    write(root, {"pkg/deep/mod.py": "x = 1\n", "gone/only.txt": "soon", "empty": ""})
    write(root, {"tool": "#!/bin/sh\n"}, executable=True)
    os.symlink("pkg/deep", root / "link")
    os.symlink("no\udcffwhere", root / "dangling")
    return root


def tree(root: Path) -> Tree:
    return git.tree(Project(str(root), "p", ("one",)))


def test_a_whole_tree_arrives_as_it_is(source: Path, tmp_path: Path) -> None:
    """Names, bytes, links and executable bits; dates and owners are the cluster's own."""
    place = tmp_path / "place"
    ran = run(push(place, source, tree(source), None))
    assert ran.lines == ["pushed"]
    assert contents(place / "code") == contents(source)
    assert (place / "manifest").read_text().strip() == tree(source).state
    assert (place / "manifest").stat().st_mode & 0o777 == 0o600


def test_again_is_a_no_op(source: Path, tmp_path: Path) -> None:
    """The same push twice ends in the same tree, nothing set aside."""
    place = tmp_path / "place"
    run(push(place, source, tree(source), None))
    ran = run(push(place, source, tree(source), None))
    assert ran.lines == ["pushed"]
    assert contents(place / "code") == contents(source)
    assert not list(place.glob("aside*"))


def change(source: Path) -> None:
    write(source, {"pkg/deep/mod.py": "x = 2\n", "with space": None, "gone/only.txt": None})
    write(source, {"new/-x/file": "new", "line\nbreak": "other"})
    (source / "empty").chmod(0o755)
    (source / "link").unlink()
    write(source, {"link/now": "a directory"})
    (source / "dangling").unlink()
    os.symlink("elsewhere", source / "dangling")


def test_a_difference_changes_what_differs(source: Path, tmp_path: Path) -> None:
    """Changed, new and deleted files; a link that became a directory; a mode; empty folders go."""
    place = tmp_path / "place"
    before = tree(source)
    run(push(place, source, before, None))
    kept = (place / "code/tool").stat().st_ino
    change(source)
    script = push(place, source, tree(source), before)
    assert run(script).lines == ["pushed"]
    assert contents(place / "code") == contents(source)
    assert not (place / "code/gone").exists()
    assert (place / "code/tool").stat().st_ino == kept


def test_a_difference_to_something_else_is_not_applied(source: Path, tmp_path: Path) -> None:
    """Where somebody else pushed meanwhile, nothing is touched and that is said."""
    place = tmp_path / "place"
    before = tree(source)
    run(push(place, source, before, None))
    (place / "manifest").write_text("another\n")
    change(source)
    ran = run(push(place, source, tree(source), before))
    assert ran.lines == ["stale"]
    assert (place / "code/with space").exists()


def test_files_that_were_not_sent_are_kept(source: Path, tmp_path: Path) -> None:
    """A whole push sets aside what somebody made over there; a difference leaves it alone."""
    place = tmp_path / "place"
    before = tree(source)
    run(push(place, source, before, None))
    write(place / "code", {"mine/notes.txt": "mine", "gone/also mine": "mine"})
    write(source, {"gone/only.txt": None})
    after = tree(source)
    run(push(place, source, after, before))
    assert (place / "code/gone/also mine").read_text() == "mine"
    ran = run(push(place, source, after, None))
    (said, last) = ran.lines
    aside = Path(said.removeprefix("aside "))
    assert last == "pushed"
    assert contents(aside) == {
        "mine/notes.txt": ("f", b"mine"),
        "gone/also mine": ("f", b"mine"),
    }
    assert contents(place / "code") == contents(source)


def asides(place: Path) -> dict[str, tuple[str, bytes]]:
    """Everything that was set aside, under its name in the tree."""
    return {k: v for folder in place.glob("aside-*") for k, v in contents(folder).items()}


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_becomes_tracked_later_is_kept(
    source: Path, tmp_path: Path, whole: bool
) -> None:
    """What a user put into the code over there gives way to a new file of the tree, and is kept:
    a file of any name, a directory in the place of a file, a file in the place of a directory."""
    place = tmp_path / "place"
    before = tree(source)
    run(push(place, source, before, None))
    mine = {f"new {name}": "mine" for name in ODD_NAMES} | {"out/deep/x": "mine", "late": "mine"}
    write(place / "code", mine)
    write(source, {f"new {name}": "sent" for name in ODD_NAMES})
    write(source, {"out": "a file", "late/inside": "sent"})
    ran = run(push(place, source, tree(source), None if whole else before))
    assert ran.lines[-1] == "pushed"
    assert len([line for line in ran.lines if line.startswith("aside ")]) == 1
    assert contents(place / "code") == contents(source)
    kept = {k.removeprefix("code/"): v for k, v in asides(place).items()}
    assert kept == {os.fsdecode(k): ("f", b"mine") for k in mine}


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_edited_over_there_is_kept(source: Path, tmp_path: Path, whole: bool) -> None:
    """A sent file that somebody changed gives way to the laptop's, or goes with it, and is kept."""
    place = tmp_path / "place"
    before = tree(source)
    run(push(place, source, before, None))
    write(place / "code", {"pkg/deep/mod.py": "edited", "with space": "edited too"})
    later = (place / "manifest").stat().st_mtime + 5
    for name in ("pkg/deep/mod.py", "with space"):
        os.utime(place / "code" / name, (later, later))
    change(source)
    ran = run(push(place, source, tree(source), None if whole else before))
    assert ran.lines[-1] == "pushed"
    assert contents(place / "code") == contents(source)
    kept = asides(place)
    assert kept == {"pkg/deep/mod.py": ("f", b"edited"), "with space": ("f", b"edited too")}


@pytest.mark.parametrize("whole", [True, False])
def test_nothing_is_written_or_removed_through_a_link(
    source: Path, tmp_path: Path, whole: bool
) -> None:
    """Where a directory was replaced by a link, what the link leads to is not touched."""
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    before = tree(source)
    run(push(place, source, before, None))
    for folder in ("pkg", "gone"):
        (place / "code" / folder).rename(elsewhere.with_name(f"my-{folder}"))
        os.symlink(elsewhere.with_name(f"my-{folder}"), place / "code" / folder)
    precious = {p: contents(tmp_path / p) for p in ("my-pkg", "my-gone")}
    change(source)
    write(source, {"pkg/deep/more.py": "new"})
    ran = run(push(place, source, tree(source), None if whole else before))
    assert ran.lines[-1] == "pushed"
    assert {p: contents(tmp_path / p) for p in precious} == precious
    assert contents(place / "code") == contents(source)
    assert {k: kind for k, (kind, _) in asides(place).items()} == {"pkg": "l", "gone": "l"}


def test_another_projects_workspace_is_refused(source: Path, tmp_path: Path) -> None:
    """Two projects of one name never mix."""
    place = tmp_path / "place"
    run(push(place, source, tree(source), None))
    ran = run(push(place, source, tree(source), None, identity="two"))
    assert ran.status == 1
    assert "another project" in ran.errors
    assert (place / "identity").read_text() == "one\n"


def test_one_identity_in_common_is_enough(source: Path, tmp_path: Path) -> None:
    """A shallow clone, one without a remote, and one from before the first commit get in; all that
    is known by then is kept."""
    place = tmp_path / "place"
    for identity, formerly in (("place", ""), ("first\nurl", "place"), ("url", ""), ("first", "")):
        script = push(place, source, tree(source), None, identity=identity, formerly=formerly)
        assert run(script).lines == ["pushed"], identity
    assert (place / "identity").read_text().split() == ["first", "place", "url"]
    ran = run(push(place, source, tree(source), None, identity="another", formerly="elsewhere"))
    assert ran.status == 1


@pytest.mark.parametrize("left", [0, 10, 400])
def test_a_payload_cut_short_changes_nothing(source: Path, tmp_path: Path, left: int) -> None:
    """Whatever part of the archive arrived, the tree over there is as before."""
    place = tmp_path / "place"
    before = tree(source)
    run(push(place, source, before, None))
    was = contents(place / "code")
    change(source)
    script = push(place, source, tree(source), before)
    ran = run(Script(script.name, script.args, script.payload[:left]))
    assert ran.status == 1
    assert "nothing was changed" in ran.errors
    assert contents(place / "code") == was
    assert (place / "manifest").read_text().strip() == before.state


@pytest.mark.parametrize("whole", [True, False])
def test_killed_at_any_command_the_next_push_mends_it(
    source: Path, tmp_path: Path, whole: bool
) -> None:
    """kill -9 before each command: a manifest is never there for a tree that is not; nothing of
    anybody's is lost."""
    before = tree(source)
    template = tmp_path / "template"
    run(push(template, source, before, None))
    write(template / "code", {"mine": "mine"})
    change(source)
    after = tree(source)
    number = 0
    while True:
        number += 1
        place = tmp_path / f"place-{number}"
        runkit.shutil.copytree(template, place, symlinks=True)
        # the copies are younger than what the manifest was a copy of
        (place / "manifest").touch()
        ran = run(push(place, source, after, None if whole else before), dies_at=number)
        found = (place / "manifest").read_text().strip() if (place / "manifest").exists() else ""
        if found == after.state:
            sent = {k: v for k, v in contents(place / "code").items() if k != "mine"}
            assert sent == contents(source), number
        if ran.status == 0:
            break
        assert ran.status == runkit.KILLED
        runkit.age_locks(place)
        # what the laptop does next: a difference where the manifest is what it knows, else all
        known = before if found == before.state else None
        again = run(push(place, source, after, known))
        assert again.lines[-1] == "pushed", (number, again)
        sent = {k: v for k, v in contents(place / "code").items() if k != "mine"}
        assert sent == contents(source), number
        mine = [p for p in place.rglob("mine") if p.is_file()]
        assert [p.read_text() for p in mine] == ["mine"], number
        runkit.shutil.rmtree(place)
    assert number > 30
