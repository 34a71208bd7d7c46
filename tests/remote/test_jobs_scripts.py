"""jobs.sh, read_log.sh and find_job.sh."""

import os
from pathlib import Path

import pytest

from rvstate.script import Script
from tests import runkit
from tests.runkit import run, write

RUN = "20260102-030405-0a1b2c3d"


def jobs(place: Path, limit: int = 50, queue: str = "", accounting: str = "") -> runkit.Ran:
    args = (str(place), "", "/{scratch}/.rv/runs", str(limit), queue, accounting)
    return run(Script("jobs", args))


def test_the_newest_runs_are_told_with_their_small_files(tmp_path: Path) -> None:
    """One line for each file, newest first, at most as many as wanted."""
    for day in (1, 2, 3):
        write(tmp_path / f".rv/runs/2026010{day}-x", {"job": f"{day}\n", "receipt.json": "{}"})
    write(tmp_path / ".rv/runs/20260103-x", {"exit": "0 17\n"})
    ran = jobs(tmp_path, 2)
    assert ran.answer is not None
    lines = ran.answer.first("records").decode().splitlines()
    assert lines == [
        "20260103-x/job:3",
        "20260103-x/exit:0 17",
        "20260103-x/receipt.json:{}",
        "20260102-x/job:2",
        "20260102-x/receipt.json:{}",
    ]


def test_an_account_without_runs_has_none(tmp_path: Path) -> None:
    """A first `ps` is an empty list and no error."""
    ran = jobs(tmp_path)
    assert ran.status == 0
    assert ran.answer is not None
    assert ran.answer.first("records") == b""


def test_a_queue_that_fails_is_said(tmp_path: Path) -> None:
    """Never taken for an empty one; accounting is asked for the known jobs only."""
    write(tmp_path / ".rv/runs/r1", {"job": "7\n"})
    ran = jobs(tmp_path, queue="echo trouble >&2; false", accounting="printf '%s\\n'")
    assert ran.answer is not None
    assert "queue-failed" in [name for name, _ in ran.answer.sections]
    assert ran.answer.first("accounting") == b"--jobs=7\n"


def read(place: Path, *files: str, queue: str = "", accounting: str = "") -> runkit.Ran:
    return run(Script("read_log", (str(place), "", queue, accounting, str(place / "run"), *files)))


def test_only_new_bytes_come_back(tmp_path: Path) -> None:
    """From the offset on, byte for byte; a file that is not there yet is nothing."""
    log = tmp_path / "log"
    log.write_bytes(b"one\n\xff two\n")
    ran = read(tmp_path, str(log), "4", str(tmp_path / "none"), "0")
    assert ran.answer is not None
    assert ran.answer.first("log 0 4") == b"\xff two\n"
    assert not [name for name, _ in ran.answer.sections if name.startswith("log 1")]


@pytest.mark.parametrize(
    ("lines", "start", "text"), [("+1", 8, b"three"), ("+2", 4, b"two\nthree"), ("+9", 0, None)]
)
def test_the_last_lines_come_with_where_they_begin(
    tmp_path: Path, lines: str, start: int, text: bytes | None
) -> None:
    """So that a follower goes on from there."""
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthree")
    ran = read(tmp_path, str(log), lines)
    assert ran.answer is not None
    assert ran.answer.first(f"log 0 {start}") == (text or log.read_bytes())


def test_accounting_is_asked_only_where_the_queue_knows_nothing(tmp_path: Path) -> None:
    """A job that left the controller's memory has ended somewhere."""
    known = read(tmp_path, queue="echo row", accounting="echo past").answer
    assert known is not None
    assert (known.first("queue"), known.first("accounting")) == (b"row\n", b"")
    gone = read(tmp_path, queue="false", accounting="echo past").answer
    assert gone is not None
    assert gone.first("accounting") == b"past\n"


def find(place: Path, queue: str = "true", history: str = ":") -> runkit.Ran:
    args = (str(place / "lock"), "1", str(place / "runs" / RUN), queue, history)
    return run(Script("find_job", args))


def test_a_run_is_looked_up_by_every_witness(tmp_path: Path) -> None:
    """Its own record, then the queue, then accounting; found means recorded."""
    folder = tmp_path / "runs" / RUN
    assert find(tmp_path).lines == ["none"]
    write(folder, {"job.sh": ""})
    assert find(tmp_path, f"echo 41 rvstate:{RUN}").lines == ["none"]  # never begun
    write(folder, {"intent": "1"})
    assert find(tmp_path).lines == ["none"]
    assert find(tmp_path, history=f"echo '41|sbatch {folder}/job.sh'").lines == ["found 41"]
    assert (folder / "job").read_text() == "41\n"
    os.unlink(folder / "job")
    assert find(tmp_path, f"echo 42 rvstate:{RUN}").lines == ["found 42"]
    assert find(tmp_path, "false").lines == ["found 42"]


def test_a_scheduler_that_does_not_answer_leaves_it_open(tmp_path: Path) -> None:
    """Not knowing is not none."""
    write(tmp_path / "runs" / RUN, {"intent": "1"})
    ran = find(tmp_path, "false")
    assert (ran.status, "does not answer" in ran.errors) == (1, True)
