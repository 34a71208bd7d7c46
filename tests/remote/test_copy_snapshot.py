"""The snapshot of a run that repeats another: exactly what ran, or nothing."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rvstate import archive, git
from rvstate.model.project import Project
from rvstate.script import Script
from rvstate.shell import printf_b
from tests.runkit import KILLED, ODD_NAMES, Ran, contents, push, run, write

OLD, NEW = "20260102-030405-0a1b2c3d", "20260103-030405-11111111"


@dataclass
class Place:
    """A workspace with the snapshot of a run."""

    root: Path
    source: Path
    state: str
    how: str

    def snapshot(self, run_id: str) -> Path:
        return self.root / f"snapshots/rv-train-{run_id}"

    def manifest(self, run_id: str) -> Path:
        return self.root / f"snapshots/.rv-train-{run_id}.manifest"

    def run_dir(self, run_id: str) -> Path:
        return self.root.parent / "runs" / run_id

    def script(self, state: str = "") -> Script:
        paths = (self.root / "lock", "5", self.snapshot(OLD), self.snapshot(NEW))
        runs = (self.run_dir(OLD), self.run_dir(NEW))
        return Script(
            "copy_snapshot",
            (*map(str, paths), self.how, state or self.state, *map(str, runs)),
        )

    def copy(self, state: str = "") -> Ran:
        return run(self.script(state))

    def nothing_is_left(self) -> bool:
        found = [p.name for p in self.snapshot(NEW).parent.iterdir() if NEW in p.name]
        return not found and not self.run_dir(NEW).exists()


@pytest.fixture(params=["copy", "link"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """One for each way of taking a snapshot, taken by the script that takes them."""
    source, root, fake = tmp_path / "source", tmp_path / "place", tmp_path / "fake"
    write(source, {name: f"in {name}" for name in (*ODD_NAMES, "config.yaml", "a.b", "a/c")})
    write(source, {"tool": "#!/bin/sh\n"}, executable=True)
    os.symlink("a", source / "link")
    os.symlink("no\nwhere\n", source / "odd link")
    write(fake, {"sbatch": "#!/bin/sh\necho 41\n"}, executable=True)
    tree = git.tree(Project(str(source), "p", ("one",)))
    assert run(push(root, source, tree, None)).lines == ["pushed"]
    found = Place(root, source, tree.state, request.param)
    payload = archive.bundle(
        {"package/it-1.dist-info/METADATA": "Name: it\n"}, {"writable": ("./config.yaml",)}
    )
    submit = Script(
        "submit",
        (
            *(str(root / "lock"), "5", str(root), tree.state, str(found.snapshot(OLD))),
            *(found.how, "20250101-000000 0", str(found.run_dir(OLD))),
            *(printf_b(b"#!/bin/bash\n"), printf_b(b"{}"), "", ":", ":", ""),
            *(str(fake / "sbatch"), "--parsable"),
        ),
        payload,
    )
    ran = run(submit)
    assert ran.lines == ["submitted 41"], ran
    # what was last sent is another tree by now
    (root / "manifest").write_text("another\n")
    return found


def test_it_holds_what_ran_and_nothing_else(place: Place) -> None:
    """Files of odd names, links and modes; what the earlier job wrote beside them stays behind."""
    write(place.snapshot(OLD), {"results/out.txt": "1", "a/made": "2", "__pycache__/x.pyc": "3"})
    assert place.copy().lines == ["copied"]
    assert contents(place.snapshot(NEW)) == contents(place.source)
    assert place.manifest(NEW).read_bytes() == place.manifest(OLD).read_bytes()
    assert (place.run_dir(NEW) / "package/it-1.dist-info/METADATA").read_text() == "Name: it\n"


def test_only_a_large_one_shares_files_and_never_one_that_a_job_may_write(place: Place) -> None:
    """Read-only files are links; a file of the earlier job's own is this one's own, too."""
    place.copy()

    def shared(name: str) -> bool:
        return os.path.samefile(place.snapshot(OLD) / name, place.snapshot(NEW) / name)

    assert shared("a.b") is (place.how == "link")
    assert not shared("config.yaml")
    assert (place.snapshot(NEW) / "config.yaml").stat().st_mode & 0o200


def test_twice_is_once(place: Place) -> None:
    """Asked again, the snapshot that is there counts and is not touched."""
    place.copy()
    before = (place.snapshot(NEW) / "a.b").stat()
    assert place.copy().lines == ["copied"]
    after = (place.snapshot(NEW) / "a.b").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "damaged missing ./a/c"),
        ("longer", "damaged changed ./config.yaml"),
        ("same size", "damaged contents"),
        ("executable", "damaged contents"),
        ("another link", "damaged changed ./link"),
        ("no manifest", "gone"),
        ("pruned", "gone"),
        ("no workspace", "gone"),
    ],
)
def test_what_is_not_what_ran_is_never_run(place: Place, damage: str, said: str) -> None:
    """Lost, edited even to the same size, another mode or target, pruned: told, nothing is made."""
    old = place.snapshot(OLD)
    match damage:
        case "missing":
            (old / "a/c").unlink()
        case "longer":
            with (old / "config.yaml").open("a") as file:
                file.write("more")
        case "same size":
            (old / "config.yaml").write_text("IN config.yaml")
        case "executable":
            (old / "config.yaml").chmod(0o755)
        case "another link":
            (old / "link").unlink()
            (old / "link").symlink_to("b")
        case "no manifest":
            place.manifest(OLD).unlink()
        case "pruned":
            os.rename(old, place.root / "snapshots/.gone")
        case "no workspace":
            os.rename(place.root, place.root.with_name("elsewhere"))
    assert place.copy().lines == [said]
    assert damage == "no workspace" or place.nothing_is_left()


def test_what_else_holds_the_tree_serves(place: Place) -> None:
    """Where its own snapshot was changed by its job: the code as it was last sent, or the snapshot
    of another run of that tree; neither is taken where it was changed, too."""
    assert place.copy().lines == ["copied"]
    other = place.snapshot(NEW)
    write(place.run_dir(NEW), {"receipt.json": json.dumps({"tree": place.state, "x": 1})})
    third = "20260104-030405-22222222"
    script = place.script()
    args = tuple(arg.replace(NEW, third) for arg in script.args)
    (place.snapshot(OLD) / "a/c").unlink()
    assert run(replace(script, args=args)).lines == ["copied"]
    assert contents(place.snapshot(third)) == contents(place.source)
    args = tuple(arg.replace(NEW, "20260105-030405-33333333") for arg in script.args)
    for snapshot in (other, place.snapshot(third)):
        path = snapshot / "a.b"
        path.unlink()
        path.write_text("IN a.b")
    assert run(replace(script, args=args)).lines == ["damaged missing ./a/c"]
    (place.root / "manifest").write_text(place.state)
    assert run(replace(script, args=args)).lines == ["copied"]
    fourth = place.snapshot("20260105-030405-33333333")
    assert contents(fourth) == contents(place.source)
    assert not os.path.samefile(fourth / "a.b", place.root / "code/a.b")


def test_another_tree_is_not_taken_for_it(place: Place) -> None:
    """The state is over everything, so that of any other tree does not fit."""
    assert place.copy("0" * 64).lines == ["damaged contents"]
    assert place.nothing_is_left()


def test_killed_anywhere_it_can_be_run_again(place: Place) -> None:
    """Wherever it is killed, no half of a snapshot counts; run again, all of it is there."""
    for at in range(1, 400, 7):
        ran = run(place.script(), dies_at=at)
        if place.snapshot(NEW).exists():
            assert contents(place.snapshot(NEW)) == contents(place.source), at
        if ran.status != KILLED:
            break
    else:
        pytest.fail("it never got to its end")
    assert at > 50
    assert place.copy().lines == ["copied"]
    assert contents(place.snapshot(NEW)) == contents(place.source)
    left = {p.name for p in place.snapshot(NEW).parent.iterdir()}
    names = {f"rv-train-{r}" for r in (OLD, NEW)}
    assert left == names | {f".{name}.manifest" for name in names}
