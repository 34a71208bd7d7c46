import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from rvstate import archive, git
from rvstate.model.project import Project, Tree
from rvstate.script import Script
from rvstate.shell import join, printf_b
from tests import runkit
from tests.runkit import ODD_NAMES, Ran, age_locks, contents, push, run, write

RUN = "20260102-030405-0a1b2c3d"
SBATCH = """#!/bin/sh
# sbatch, as far as submit.sh can tell: takes a script, says a number, and is remembered
folder=${0%/*}
[ "$1" = --parsable ] || exit 2
echo "a plugin says hello"
if [ -e "$folder/refuse" ]; then echo "sbatch: error: Invalid account" >&2; exit 1; fi
env >"$folder/env"
number=$(($(wc -l <"$folder/queue") + 41))
echo "$number RUNNING rvstate:$(basename "$(dirname "$2")") rv-train" >>"$folder/queue"
echo "$number;cluster"
"""


@dataclass
class Place:
    """A workspace with pushed code, and a scheduler that remembers."""

    root: Path
    source: Path
    tree: Tree
    fake: Path
    how: str = "copy"

    def script(self, run_id: str = RUN, payload: bytes = b"", **other: str) -> Script:
        given = {
            "state": self.tree.state,
            "keep_after": "20250101-000000 1735689600",
            "queue": "",
            **other,
        }
        return Script(
            "submit",
            (
                str(self.root / "lock"),
                "5",
                str(self.root),
                given["state"],
                str(self.root / f"snapshots/rv-train-{run_id}"),
                self.how,
                given["keep_after"],
                str(self.root.parent / "runs" / run_id),
                printf_b(b"#!/bin/bash\necho 'job \xff'\n"),
                printf_b(b'{"run_id": "x"}'),
                given.get("environment", ""),
                given["queue"] or join(("cat", str(self.fake / "queue"))),
                ":",
                given.get("parts", ""),
                str(self.fake / "sbatch"),
                "--parsable",
            ),
            payload,
        )

    def submit(self, run_id: str = RUN, payload: bytes = b"", **other: str) -> Ran:
        return run(self.script(run_id, payload, **other))

    def snapshot(self, run_id: str = RUN) -> Path:
        return self.root / f"snapshots/rv-train-{run_id}"

    def queue(self) -> list[str]:
        return (self.fake / "queue").read_text().splitlines()

    def change(self, files: dict[str, str | None]) -> None:
        """Edit the project and push the difference."""
        write(self.source, files)
        after = git.tree(Project(str(self.source), "p", ("one",)))
        ran = run(push(self.root, self.source, after, self.tree))
        assert ran.lines == ["pushed"], ran
        self.tree = after


@pytest.fixture(params=["copy", "link"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """One for each way of taking a snapshot."""
    source, root, fake = tmp_path / "source", tmp_path / "place", tmp_path / "fake"
    write(source, {name: f"in {name}" for name in ODD_NAMES})
    write(source, {"pkg/mod.py": "x = 1\n"})
    write(source, {"tool": "#!/bin/sh\n"}, executable=True)
    os.symlink("pkg", source / "link")
    write(fake, {"sbatch": SBATCH}, executable=True)
    write(fake, {"queue": ""})
    tree = git.tree(Project(str(source), "p", ("one",)))
    assert run(push(root, source, tree, None)).lines == ["pushed"]
    return Place(root, source, tree, fake, request.param)


def test_a_run_is_submitted_with_all_that_belongs_to_it(place: Place) -> None:
    """The snapshot is the tree; script and receipt lie with the run, private; the id is told."""
    ran = place.submit()
    assert ran.lines == ["submitted 41"]
    assert contents(place.snapshot()) == contents(place.source)
    folder = place.root.parent / "runs" / RUN
    assert (folder / "job.sh").read_bytes() == b"#!/bin/bash\necho 'job \xff'\n"
    assert (folder / "job").read_text() == "41\n"
    modes = {name: (folder / name).stat().st_mode & 0o777 for name in ("job.sh", "receipt.json")}
    assert modes == {"job.sh": 0o700, "receipt.json": 0o600}


def test_asking_again_finds_the_job(place: Place) -> None:
    """The same run is submitted once, however often it is asked for."""
    place.submit()
    assert place.submit().lines == ["found 41"]
    assert len(place.queue()) == 1


def test_another_run_is_another_job(place: Place) -> None:
    """A deliberate second run is a second job, and the shared checkpoints are pointed out."""
    place.submit()
    ran = place.submit("20260102-030406-11111111")
    assert ran.lines == ["twin 41", "submitted 42"]


@pytest.mark.parametrize(
    ("row", "twin"),
    [
        ("40\x1f40\x1fCOMPLETED\x1fNone\x1frvstate:x RUNNING\x1frv-train\x1f", False),
        ("40\x1f40\x1fRUNNING\x1fNone\x1frvstate:x COMPLETED\x1frv-train\x1f", True),
        ("40\x1f40\x1fPENDING\x1fNone\x1frvstate:x\x1fa:rv-train\x1f", False),
        ("40 RUNNING rvstate:x rv-train", True),
    ],
)
def test_a_twin_is_told_by_its_state_and_name(place: Place, row: str, twin: bool) -> None:
    """Words in a comment are neither, and half a name is none."""
    (place.fake / "queue").write_text(f"{row}\n")
    assert ("twin 40" in place.submit().lines) is twin


def test_a_refusal_is_told_and_can_be_mended(place: Place) -> None:
    """The scheduler's own words come back; afterwards the same run can be submitted."""
    (place.fake / "refuse").touch()
    ran = place.submit()
    assert ran.status == 1
    assert "Invalid account" in ran.errors
    (place.fake / "refuse").unlink()
    assert place.submit().lines == ["submitted 41"]


def test_nothing_of_the_submitting_shell_decides(place: Place) -> None:
    """SBATCH_* and SLURM_* variables, which sbatch reads as options, are taken away."""
    env = {"SBATCH_PARTITION": "wrong", "SLURM_MEM_PER_CPU": "1", "SLURM_CONF": "/etc/x"}
    run(place.script(), env=env)
    seen = (place.fake / "env").read_text()
    assert "SBATCH_PARTITION" not in seen
    assert "SLURM_MEM" not in seen
    assert "SLURM_CONF=/etc/x" in seen


def test_code_that_somebody_else_brought_is_not_run(place: Place) -> None:
    """Another manifest than the one that was prepared for means: nothing is submitted."""
    assert place.submit(state="0" * 64).lines == ["stale"]
    assert place.queue() == []


@pytest.mark.parametrize("damage", ["edit", "remove", "older", "link"])
def test_code_that_was_changed_by_hand_is_not_run(place: Place, damage: str) -> None:
    """A file that was sent and is no longer what was sent is noticed; all is sent again then."""
    target = place.root / "code/pkg/mod.py"
    if damage == "edit":
        target.write_text("x = 666\n")
    elif damage == "older":
        # as `mv` or `cp -p` of a file of last year
        write(place.root, {"mod.py": "x = 666\n"})
        os.utime(place.root / "mod.py", (1, 1))
        (place.root / "mod.py").replace(target)
    elif damage == "link":
        target.parent.rename(place.root / "elsewhere")
        os.utime(place.root / "elsewhere", (1, 1))
        os.symlink("../elsewhere", target.parent)
        os.utime(target.parent, (1, 1), follow_symlinks=False)
    else:
        target.unlink()
    ran = place.submit()
    assert (ran.lines, place.queue()) == (["stale"], [])
    after = place.tree
    assert run(push(place.root, place.source, after, None)).lines[-1] == "pushed"
    assert place.submit().lines == ["submitted 41"]
    assert contents(place.snapshot()) == contents(place.source)


def test_a_large_snapshot_holds_what_was_sent_whatever_lies_in_the_code(place: Place) -> None:
    """It is linked from a tree of its own; a small one is copied from the code, so that is sent."""
    place.submit()
    (place.root / "code" / "pkg" / "mod.py").write_text("changed over there")

    ran = place.submit("20260102-030406-11111111")

    if place.how == "copy":
        assert ran.lines == ["stale"]
    else:
        assert ran.lines == ["twin 41", "submitted 42"]
        assert contents(place.snapshot("20260102-030406-11111111")) == contents(place.source)


def test_nothing_is_left_of_a_snapshot_that_was_begun_in_vain(place: Place) -> None:
    """What was linked ahead goes when neither it nor the code is the right one."""
    place.submit()
    for tree in ("code", "pristine"):
        if (file := place.root / tree / "pkg" / "mod.py").exists():
            file.chmod(0o644)
            file.write_text("changed over there")

    ran = place.submit("20260102-030406-11111111")

    assert ran.lines == ["stale"]
    assert [entry.name for entry in (place.root / "snapshots").glob("rv-*")] == [f"rv-train-{RUN}"]
    folder = place.root.parent / "runs" / "20260102-030406-11111111"
    assert not {entry.name for entry in folder.iterdir()} & {"touched", "newer", "links"}


def test_a_push_of_other_files_hides_no_change_by_hand(place: Place) -> None:
    """A file that somebody changed over there does not pass for sent after the next push."""
    place.submit()
    (place.root / "code" / "pkg" / "mod.py").write_text("changed over there")
    write(place.source, {"other.py": "y = 2\n"})
    after = git.tree(Project(str(place.source), "p", ("one",)))

    assert run(push(place.root, place.source, after, place.tree)).lines == ["stale"]

    (*_, last) = run(push(place.root, place.source, after, None)).lines
    assert last == "pushed"
    assert contents(place.root / "code") == contents(place.source)


def test_a_file_that_was_not_sent_is_in_no_snapshot(place: Place) -> None:
    """What somebody put into the workspace over there is neither run nor in the way."""
    write(place.root / "code", {"results.txt": "mine", "line\nmine": "x"})
    assert place.submit().lines == ["submitted 41"]
    assert contents(place.snapshot()) == contents(place.source)


def test_a_later_push_changes_no_snapshot(place: Place) -> None:
    """Files changed, added and removed afterwards: the earlier job still sees its own."""
    first = contents(place.source)
    place.submit()
    place.change({"pkg/mod.py": "x = 2\n", "with space": None, "new/file": "new", "*": "star"})
    second_run = "20260102-030406-11111111"
    assert place.submit(second_run).lines[-1] == "submitted 42"
    assert contents(place.snapshot()) == first
    assert contents(place.snapshot(second_run)) == contents(place.source)
    place.change({"pkg/mod.py": "x = 3\n", "new/file": None})
    place.change({"pkg/mod.py": "x = 4\n"})
    third_run = "20260102-030407-22222222"
    place.submit(third_run)
    assert contents(place.snapshot(third_run)) == contents(place.source)
    assert not (place.snapshot(third_run) / "new").exists()


def test_large_snapshots_share_unchanged_files_and_nobody_may_write_them(place: Place) -> None:
    """With `link` two snapshots hold one file once, read-only; a copy is the job's own."""
    place.submit()
    second = "20260102-030406-11111111"
    place.change({"*": "star"})
    place.submit(second)
    one, two = place.snapshot() / "pkg/mod.py", place.snapshot(second) / "pkg/mod.py"
    shared = one.stat().st_ino == two.stat().st_ino
    assert shared == (place.how == "link")
    writable = {
        name for name in contents(place.snapshot())
        if not (place.snapshot() / name).is_symlink()
        and (place.snapshot() / name).stat().st_mode & 0o222
    }  # fmt: skip
    assert bool(writable) == (place.how == "copy")
    # never with what is written to
    assert one.stat().st_ino != (place.root / "code/pkg/mod.py").stat().st_ino


def test_a_file_that_a_job_changed_by_force_is_in_no_later_snapshot(place: Place) -> None:
    """chmod and write in one snapshot: the next one is made from the code again."""
    place.submit()
    victim = place.snapshot() / "pkg/mod.py"
    victim.chmod(0o644)
    victim.write_text("x = 666\n")
    second = "20260102-030406-11111111"
    place.submit(second)
    assert (place.snapshot(second) / "pkg/mod.py").read_text() == "x = 1\n"


def test_named_files_are_the_jobs_own(place: Place) -> None:
    """What [snapshot] writable names can be written and is shared with nobody."""
    payload = archive.bundle(
        {"package/bin/tool": "#!/bin/sh\n", "package/x.dist-info/METADATA": "Name: x\n"},
        {"writable": ("./pkg/mod.py", "./line\nbreak", "./link")},
    )
    assert run(place.script(payload=payload)).lines == ["submitted 41"]
    own = place.snapshot() / "pkg/mod.py"
    assert own.stat().st_mode & 0o200
    assert own.stat().st_nlink == 1
    assert contents(place.snapshot()) == contents(place.source)
    run_dir = place.root.parent / "runs" / RUN
    assert (run_dir / "package/bin/tool").stat().st_mode & 0o100
    assert not (run_dir / "writable").exists()


def test_an_attempt_that_was_never_answered_is_looked_up(place: Place) -> None:
    """The queue knows the run by its comment: found, and not submitted again."""
    place.submit()
    (place.root.parent / "runs" / RUN / "job").unlink()
    assert place.submit().lines == ["found 41"]
    assert len(place.queue()) == 1
    assert (place.root.parent / "runs" / RUN / "job").read_text() == "41\n"


def test_a_queue_that_does_not_answer_is_not_an_empty_one(place: Place) -> None:
    """Without knowing, nothing is submitted a second time."""
    place.submit()
    (place.root.parent / "runs" / RUN / "job").unlink()
    ran = place.submit(queue="false")
    assert ran.status == 1
    assert "try again" in ran.errors
    assert len(place.queue()) == 1


def test_old_snapshots_go_by_their_own_dates_and_never_one_that_is_needed(place: Place) -> None:
    """Directory times mean nothing; a queued job, or a run marked keep, keeps its snapshot."""
    old, needed, kept, young = (f"2025120{n}-000000-0000000{n}" for n in (1, 2, 3, 9))
    for run_id in (old, needed, kept, young):
        write(place.root / f"snapshots/rv-train-{run_id}", {"x": "x"})
        os.utime(place.snapshot(run_id), (1, 1))
    write(place.root / "snapshots/not ours", {"x": "x"})
    write(place.root.parent / f"runs/{kept}", {"keep": ""})
    with (place.fake / "queue").open("a") as queue:
        queue.write(f"7 PENDING rvstate:{needed} rv-train\n")
    place.submit(keep_after="20251205-000000 1764892800")
    left = {p.name for p in (place.root / "snapshots").iterdir() if not p.name.startswith(".")}
    assert left == {
        *(f"rv-train-{run_id}" for run_id in (needed, kept, young, RUN)),
        "not ours",
    }


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("7 COMPLETED {} rv-train", False),
        ("7 PENDING {} COMPLETED", True),
        ("7\x1f7\x1fCOMPLETED\x1fNone\x1f{}\x1frv-train", False),
        ("7\x1f7\x1fRUNNING\x1fNone\x1f{}\x1fFAILED", True),
        ("7\x1f7\x1fPREEMPTED\x1fNone\x1f{}\x1frv-train", True),
    ],
)
def test_a_job_that_has_ended_keeps_no_snapshot(place: Place, line: str, stays: bool) -> None:
    """Not even where the queue lists it for ever, as the process scheduler does."""
    old = "20251201-000000-00000001"
    write(place.root / f"snapshots/rv-train-{old}", {"x": "x"})
    with (place.fake / "queue").open("a") as queue:
        queue.write(line.format(f"rvstate:{old}") + "\n")
    place.submit(keep_after="20251205-000000 1764892800")
    assert place.snapshot(old).exists() is stays


def test_a_snapshot_from_a_laptop_whose_clock_was_behind_stays(place: Place) -> None:
    """Its name says last year, and the cluster's own date of its submission does not."""
    old, told = "20241201-000000-00000001", "20241201-000000-00000002"
    for run_id, when in ((old, "1733011200\n"), (told, "1764979200\n")):
        write(place.root / f"snapshots/rv-train-{run_id}", {"x": "x"})
        write(place.root.parent / f"runs/{run_id}", {"intent": when})
    place.submit(keep_after="20251205-000000 1764892800")
    assert (place.snapshot(old).exists(), place.snapshot(told).exists()) == (False, True)


def test_a_run_keeps_its_own_snapshot_however_short_the_others_are_kept(place: Place) -> None:
    """Days to keep may be none, and a laptop's clock ahead; its job is not in the queue yet."""
    place.submit(keep_after="20991205-000000 4099248000")
    assert place.snapshot().is_dir()


def test_an_environment_that_was_removed_meanwhile_is_said(place: Place, tmp_path: Path) -> None:
    """Nothing is submitted; when it is there again the same run is."""
    generation = tmp_path / "envs/d1"
    assert place.submit(environment=str(generation)).lines == ["unbuilt"]
    assert place.queue() == []
    write(generation, {".rvstate-environment": "d1\n"})
    assert place.submit(environment=str(generation)).lines == ["submitted 41"]


def test_killed_at_any_command_there_is_one_job_in_the_end(place: Place, tmp_path: Path) -> None:
    """kill -9 before each command, then the same run again: one job, on exactly the sent code."""
    number = 0
    original = place.root
    while True:
        number += 1
        place.root = tmp_path / f"try-{number}" / "place"
        runkit.shutil.copytree(original, place.root, symlinks=True)
        os.utime(place.root / "manifest")
        (place.fake / "queue").write_text("")
        ran = run(place.script(), dies_at=number)
        if ran.status == 0:
            break
        runkit.age_locks(place.root)
        again = place.submit()
        assert again.lines[-1] in ("submitted 41", "found 41"), (number, again)
        assert len(place.queue()) == 1, number
        assert contents(place.snapshot()) == contents(place.source), number
        assert (place.root.parent / "runs" / RUN / "job").read_text() == "41\n"
        runkit.shutil.rmtree(place.root.parent)
    assert number > 40


def test_a_script_cut_short_anywhere_submits_nothing(place: Place) -> None:
    """Whatever part of the text arrived, half an order is no order."""
    whole = place.script().text.encode()
    for left in [*range(len(whole) - 700, len(whole) - 2, 3), len(whole) // 2]:
        done = runkit.subprocess.run(
            ["sh", "-c", f'eval "$(head -c {len(whole)})"'],
            input=whole[:left],
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": "/"},
        )
        assert place.queue() == [], (left, done)
        assert not (place.root.parent / "runs").exists(), (left, done)


def test_a_snapshot_has_a_manifest(place: Place) -> None:
    """Beside it; it tells of all that the snapshot holds, again after a push, and goes with it."""
    place.submit()
    place.change({"pkg/mod.py": "x = 22\n", "pkg/new.py": "1"})
    second = "20260102-030406-11111111"
    place.submit(second)
    for run_id in (RUN, second):
        folder = place.snapshot(run_id)
        text = (folder.parent / f".{folder.name}.manifest").read_bytes()
        paths = {record.split(b"//")[0] for record in text.split(b"\0")[:-2]}
        files = (p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
        assert paths == {b"./" + os.fsencode(p.relative_to(folder)) for p in files}
        size = (folder / "pkg/mod.py").stat().st_size
        assert f"./pkg/mod.py//ff {size} ".encode() in text
    (place.fake / "queue").write_text("")
    place.submit("20260102-030407-22222222", keep_after="20260103-000000 9999999999")
    assert not (place.snapshot().parent / f".rv-train-{RUN}.manifest").exists()


AFTER = """#!/bin/sh
folder=${0%/*}
case $2 in
    --dependency=*)
        if [ -e "$folder/full" ]; then echo "sbatch: error: too many jobs" >&2; exit 1; fi
        printf '%s\\n' "$@" >>"$folder/after.argv"
        cat >"$folder/after"
        echo 99 ;;
    *) exec "$folder/plain" "$@" ;;
esac
"""
BEHIND = "#!/bin/bash\n# tells of the run\n"


def with_after(place: Place) -> bytes:
    (place.fake / "sbatch").rename(place.fake / "plain")
    write(place.fake, {"sbatch": AFTER}, executable=True)
    return archive.bundle({"notify/after.sh": BEHIND, "notify/due": "due\n"}, {})


def test_the_job_behind_a_run_names_no_run(place: Place) -> None:
    """It depends on the job, gets its script on standard input, and comes once."""
    payload = with_after(place)
    assert place.submit(payload=payload).lines == ["submitted 41"]
    assert place.submit(payload=payload).lines == ["found 41"]
    words = (place.fake / "after.argv").read_text().split()
    assert words == ["--parsable", "--dependency=afterany:41"]
    assert (place.fake / "after").read_text() == BEHIND
    assert len(place.queue()) == 1


def test_a_run_goes_on_without_the_job_behind_it(place: Place) -> None:
    """A full queue is told, and takes nothing from the run."""
    payload = with_after(place)
    (place.fake / "full").touch()
    ran = place.submit(payload=payload)
    assert ran.lines[0] == "submitted 41"
    assert ran.lines[1].startswith("untold sbatch: error: too many jobs")
    assert ran.status == 0
    assert (place.root.parent / "runs" / RUN / "notify/due").exists()


@pytest.mark.parametrize("where", range(40, 400, 60))
def test_killed_anywhere_with_a_job_behind_it_is_submitted_once(place: Place, where: int) -> None:
    """At most one of each: the run is the same job, and nothing follows it twice."""
    payload = with_after(place)
    run(place.script(payload=payload), dies_at=where)
    runkit.age_locks(place.root)
    assert place.submit(payload=payload).lines[0] in ("submitted 41", "found 41")
    assert len(place.queue()) == 1
    argv = place.fake / "after.argv"
    assert not argv.exists() or argv.read_text().count("--dependency") == 1


PARTS = "0 0-2%2\n3 0-2%2\n6 0-1%2"
ARRAYS = """#!/bin/sh
# sbatch for the parts of an array: remembers option, token and argument of each
folder=${0%/*}
for word; do
    case $word in
        --array=*) array=${word#--array=} ;;
        --comment=*) token=${word#--comment=} ;;
        --dependency=*) before=${word#--dependency=} ;;
    esac
    last=$word
done
number=$(($(wc -l <"$folder/queue") + 41))
if [ "$number" = "$(cat "$folder/refuse" 2>/dev/null)" ]; then echo "error: no more" >&2; exit 1; fi
echo "$number PENDING $token $array $last ${before:--}" >>"$folder/queue"
if [ "$number" = "$(cat "$folder/dies" 2>/dev/null)" ]; then kill -s KILL -- 0; fi
echo "$number"
"""


def test_a_long_array_takes_several_jobs(place: Place) -> None:
    """Each part has its own token and offset; those with a bound follow one another."""
    write(place.fake, {"sbatch": ARRAYS}, executable=True)
    assert place.submit(parts=PARTS).lines == ["submitted 41,42,43"]
    assert place.queue() == [
        f"41 PENDING rvstate:{RUN}.1 0-2%2 0 -",
        f"42 PENDING rvstate:{RUN}.2 0-2%2 3 afterany:41",
        f"43 PENDING rvstate:{RUN}.3 0-1%2 6 afterany:42",
    ]
    assert place.submit(parts=PARTS).lines == ["found 41,42,43"]


def test_each_part_bears_the_users_words(place: Place) -> None:
    """They stand behind the token, as they are, and the token goes on finding the part."""
    write(place.fake, {"sbatch": ARRAYS, "dies": "42"}, executable=True)
    words = 'it\'s $HOME `x` "y"'
    payload = archive.bundle({"comment": words}, {})
    assert place.submit(parts=PARTS, payload=payload).status == runkit.KILLED
    (place.fake / "dies").unlink()
    age_locks(place.root)
    again = place.submit(parts=PARTS, payload=payload)
    assert again.lines == ["submitted 41,42,43"]
    assert [line.partition(" PENDING ")[2].rsplit(" ", 3)[0] for line in place.queue()] == [
        f"rvstate:{RUN}.{n} {words}" for n in (1, 2, 3)
    ]


def test_a_long_array_is_submitted_whole_or_not_at_all(place: Place) -> None:
    """Where one part is refused those before it are ended, and the run can be tried again."""
    ends = '#!/bin/sh\necho "$@" >"${0%/*}/ended"\n: >"${0%/*}/queue"\n'
    write(place.fake, {"sbatch": ARRAYS, "scancel": ends}, executable=True)
    write(place.fake, {"refuse": "43"})
    path = {"PATH": f"{place.fake}:{os.environ['PATH']}"}
    ran = run(place.script(parts=PARTS), env=path)
    assert (ran.status, "no more" in ran.errors) == (1, True)
    assert (place.fake / "ended").read_text() == "41 42\n"
    (place.fake / "refuse").unlink()
    assert run(place.script(parts=PARTS), env=path).lines == ["submitted 41,42,43"]


@pytest.mark.parametrize("at", ["41", "42", "43"])
def test_a_part_whose_answer_never_came_is_found_by_its_token(place: Place, at: str) -> None:
    """Killed behind sbatch: the next attempt takes that job and submits the rest, none twice."""
    write(place.fake, {"sbatch": ARRAYS}, executable=True)
    write(place.fake, {"dies": at})
    assert place.submit(parts=PARTS).status == runkit.KILLED
    (place.fake / "dies").unlink()
    age_locks(place.root)
    assert place.submit(parts=PARTS).lines == ["submitted 41,42,43"]
    assert [line.split()[2] for line in place.queue()] == [f"rvstate:{RUN}.{n}" for n in (1, 2, 3)]
