"""Several jobs of which one is to run: submitted together, found together, ended together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvstate import archive
from rvstate.script import Script
from rvstate.shell import join, printf_b
from tests.runkit import KILLED, Ran, run

RUN = "20260102-030405-0a1b2c3d"
SBATCH = """#!/bin/sh
# says a number, and is remembered with what it was asked for
folder=${0%/*}
case "$*" in
    *--partition="$(cat "$folder/refuse")"*) echo "sbatch: error: no" >&2; exit 1 ;;
esac
number=$(($(wc -l <"$folder/queue") + 41))
echo "$number PENDING rvstate:RUN rv-train $*" >>"$folder/queue"
if [ "$number" = "$(cat "$folder/starts" 2>/dev/null)" ]; then
    echo "$number" >"$folder/runs/RUN/claim"
    echo "$number" >"$folder/runs/RUN/job"
fi
echo "$number"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A scheduler that remembers what it is told."""
    (tmp_path / "sbatch").write_text(SBATCH.replace("RUN", RUN))
    (tmp_path / "scancel").write_text('#!/bin/sh\necho "$*" >>"${0%/*}/ended"\n')
    for name in ("sbatch", "scancel"):
        (tmp_path / name).chmod(0o755)
    for name in ("queue", "ended"):
        (tmp_path / name).write_text("")
    (tmp_path / "refuse").write_text("nothing")
    (tmp_path / "runs").mkdir()
    return tmp_path


def submit(place: Path, dies_at: int | None = None) -> Ran:
    """Submit a run that may go to three places."""
    lines = ("--partition=a --gres=gpu:a40:1", "--partition=b '--constraint=x&y'", "--partition=c")
    words = (
        *(str(place / "w/lock"), "5", str(place / "w"), "-", "", "copy", "20250101-000000 0"),
        *(str(place / "runs" / RUN), printf_b(b"#!/bin/bash\n"), printf_b(b"{}"), ""),
        *(join(("cat", str(place / "queue"))), ":", "", str(place / "sbatch"), "--parsable"),
    )
    payload = archive.bundle({"choices": "".join(f"{line}\n" for line in lines)}, {})
    path = f"{place}:{os.environ['PATH']}"
    return run(Script("submit", words, payload), env={"PATH": path}, dies_at=dies_at)


def queue(place: Path) -> list[str]:
    return (place / "queue").read_text().splitlines()


def kept(place: Path, name: str) -> str:
    return (place / "runs" / RUN / name).read_text().strip()


def test_each_is_asked_for_in_its_own_words(place: Path) -> None:
    """One script, three jobs, one token; what is asked for travels unbroken."""
    assert submit(place).lines == ["submitted 41,42,43"]
    assert [line.partition("--parsable ")[2].partition(" /")[0] for line in queue(place)] == [
        "--partition=a --gres=gpu:a40:1",
        "--partition=b --constraint=x&y",
        "--partition=c",
    ]
    assert kept(place, "job") == kept(place, "copies") == "41,42,43"
    # asking again finds them
    assert submit(place).lines == ["found 41,42,43"]
    assert len(queue(place)) == 3


def test_a_file_system_without_hard_links(place: Path) -> None:
    """The jobs are recorded there too, and the one that has started stands."""
    (place / "ln").write_text('#!/bin/sh\n[ "$1" = -s ] && exec /bin/ln "$@"\nexit 1\n')
    (place / "ln").chmod(0o755)
    assert submit(place).lines == ["submitted 41,42,43"]
    assert kept(place, "job") == "41,42,43"
    (place / "runs" / RUN / "job").write_text("42\n")
    (place / "runs" / RUN / "copies").unlink()
    assert submit(place).lines == ["found 42"]


@pytest.mark.parametrize("first", [41, 42, 43])
def test_one_that_starts_meanwhile_is_the_run(place: Path, first: int) -> None:
    """What was not submitted yet is not, what was is ended, and the run stays that job."""
    (place / "starts").write_text(str(first))
    done = submit(place)
    assert done.status == 0, done.errors
    assert kept(place, "job") == str(first)
    others = [str(n) for n in range(41, first)]
    assert (place / "ended").read_text().split() == others
    assert len(queue(place)) == first - 40


def test_what_slurm_does_not_take_is_told(place: Path) -> None:
    """It is no failure as long as it takes one of them."""
    (place / "refuse").write_text("b")
    lines = submit(place).lines
    assert lines[-1] == "submitted 41,42"
    assert lines[0].startswith("note Slurm did not take the job with --partition=b")
    (place / "refuse").write_text("")


def test_nothing_is_submitted_where_it_takes_none(place: Path) -> None:
    """And asking again may succeed."""
    (place / "refuse").write_text("")
    done = submit(place)
    assert done.status == 1
    assert "sbatch: error: no" in done.errors
    (place / "refuse").write_text("nothing")
    assert submit(place).lines == ["submitted 41,42,43"]


def test_a_laptop_that_heard_nothing_finds_all_of_them(place: Path) -> None:
    """What the scheduler knows by the run's token, where the records were not written yet."""
    assert submit(place).status == 0
    folder = place / "runs" / RUN
    for name in ("job", "copies"):
        (folder / name).unlink()
    asked = join(("cat", str(place / "queue")))
    words = (str(place / "w/lock"), "5", str(folder), asked, asked)
    assert run(Script("find_job", words)).lines == ["found 41,42,43"]
    assert run(Script("find_job", words)).lines == ["found 41,42,43"]
    # whoever starts now finds the others there, to end them
    assert kept(place, "copies") == "41,42,43"


def test_killed_anywhere_no_choice_is_submitted_twice(place: Path) -> None:
    """What an earlier attempt submitted is found, all of it, and nothing is added to it."""
    folder = place / "runs" / RUN
    for number in range(1, 4000, 41):
        for name in ("queue", "ended"):
            (place / name).write_text("")
        if folder.exists():
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if not path.is_dir() else path.rmdir()
        ran = submit(place, dies_at=number)
        before = len(queue(place))
        again = submit(place)
        assert again.status == 0, again.errors
        wanted = ",".join(str(41 + n) for n in range(before or 3))
        assert again.lines[-1].split()[1] == wanted, (number, again.lines)
        assert kept(place, "job") == wanted
        if ran.status != KILLED:
            break
    else:
        pytest.fail("it never came to its end")
