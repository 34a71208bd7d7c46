"""Ending runs of several segments, against a Slurm that only remembers."""

import os
from pathlib import Path

import pytest

from rvstate.script import Script
from tests.runkit import Ran, run, write

SQUEUE = """#!/bin/sh
# says one line of `states` after the other, the last for ever
folder=${0%/*}
head -n 1 "$folder/states"
if [ "$(wc -l <"$folder/states")" -gt 1 ]; then sed -i 1d "$folder/states"; fi
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    write(
        folder,
        {
            "scancel": '#!/bin/sh\necho "$@" >>"${0%/*}/cancelled"\n',
            "squeue": SQUEUE,
            "sleep": "#!/bin/sh\n",
        },
        executable=True,
    )
    return folder


def stop(slurm: Path, states: str) -> Ran:
    write(slurm, {"states": states})
    scratch = slurm.parent / "scratch"
    runs = ("/{scratch}/.rv/runs/one", "41", "/{scratch}/.rv/runs/two/elements/3", "42_3,43")
    path = {"PATH": f"{slurm}:{os.environ['PATH']}"}
    return run(Script("stop", (str(scratch), str(slurm.parent), *runs)), env=path)


def cancelled(slurm: Path) -> list[str]:
    return (slurm / "cancelled").read_text().splitlines()


def test_runs_are_marked_before_they_are_cancelled(slurm: Path) -> None:
    """So that no segment is begun behind it, also of an element that has not begun at all."""
    assert stop(slurm, "CANCELLED\n").status == 0
    runs = slurm.parent / "scratch/.rv/runs"
    for name in ("one", "two/elements/3"):
        assert (runs / name / "cancelled").stat().st_mode & 0o777 == 0o600
    assert cancelled(slurm) == ["41 42_3 43"]


def test_what_came_back_meanwhile_is_cancelled_once_more(slurm: Path) -> None:
    """A segment that was ending had just asked for the next one."""
    assert stop(slurm, "COMPLETING\nPENDING\nCANCELLED\n").status == 0
    assert cancelled(slurm) == ["41 42_3 43"] * 2


def test_a_slurm_that_refuses_is_told_and_the_mark_stays(slurm: Path) -> None:
    """Nothing of the run is begun again in any case."""
    write(slurm, {"scancel": "#!/bin/sh\necho 'no such job' >&2\nexit 1\n"}, executable=True)
    ran = stop(slurm, "RUNNING\n")
    assert (ran.status, "no such job" in ran.errors) == (1, True)
    assert (slurm.parent / "scratch/.rv/runs/one/cancelled").exists()
