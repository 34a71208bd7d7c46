"""A run that is given up: nothing of it goes on, and nothing is submitted for it any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvstate.script import Script
from rvstate.shell import join, printf_b
from tests.runkit import KILLED, Ran, run

RUN = "20260102-030405-0a1b2c3d"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A scheduler that remembers what it is told."""
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho submitted >>${0%/*}/said\necho 41\n")
    (tmp_path / "scancel").write_text('#!/bin/sh\necho "cancel $*" >>${0%/*}/said\n')
    for name in ("sbatch", "scancel"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "queue").write_text("")
    (tmp_path / "said").write_text("")
    (tmp_path / "runs").mkdir()
    return tmp_path


def cancel(place: Path, *, dies_at: int | None = None, queue: str = "") -> Ran:
    """Cancel the run."""
    words = (
        str(place / "w/lock"),
        "5",
        str(place / "runs" / RUN),
        queue or join(("cat", str(place / "queue"))),
        str(place / "scancel"),
    )
    return run(Script("cancel", words), dies_at=dies_at)


def submit(place: Path) -> Ran:
    """Submit it, without code."""
    words = (
        *(str(place / "w/lock"), "5", str(place / "w"), "-", "", "copy", "20250101-000000 0"),
        *(str(place / "runs" / RUN), printf_b(b"#!/bin/bash\n"), printf_b(b"{}"), ""),
        *(join(("cat", str(place / "queue"))), ":", "", str(place / "sbatch"), "--parsable"),
    )
    return run(Script("submit", words))


def said(place: Path) -> list[str]:
    return (place / "said").read_text().splitlines()


def test_before_it_was_submitted(place: Path) -> None:
    """A submission that was still on its way comes too late."""
    assert cancel(place).lines == []
    late = submit(place)
    assert late.status == 1
    assert "this run was cancelled" in late.errors
    assert said(place) == []


def test_a_job_that_is_known(place: Path) -> None:
    """Twice is as good as once; an unknown job is nobody's to cancel."""
    assert submit(place).lines == ["submitted 41"]
    assert cancel(place).lines == ["cancelled 41"]
    assert cancel(place).lines == ["cancelled 41"]
    assert said(place) == ["submitted", "cancel 41", "cancel 41"]


def test_a_job_that_nobody_heard_of(place: Path) -> None:
    """Its submission was never answered: the queue knows it by the run's id."""
    folder = place / "runs" / RUN
    folder.mkdir()
    (folder / "intent").write_text("1\n")
    (place / "queue").write_text(f"7 RUNNING rvstate:x\n52 PENDING rvstate:{RUN} rv-up\n")
    assert cancel(place).lines == ["cancelled 52"]
    assert said(place) == ["cancel 52"]


def test_a_scheduler_that_does_not_answer(place: Path) -> None:
    """Nobody is told that it is done."""
    folder = place / "runs" / RUN
    folder.mkdir()
    (folder / "intent").write_text("1\n")
    assert cancel(place, queue="false").status == 1


def test_killed_anywhere_and_run_again(place: Path) -> None:
    """However far it came (every 53rd command), the second time does the rest."""
    assert submit(place).status == 0
    for number in range(1, 4000, 53):
        ran = cancel(place, dies_at=number)
        if ran.status != KILLED:
            break
    else:
        pytest.fail("it never came to its end")
    assert cancel(place).lines == ["cancelled 41"]
    assert said(place)[-1] == "cancel 41"
