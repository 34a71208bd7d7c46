"""A shell of site `local`, by a person at a real terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runkit import Laptop, Terminal, repository


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    """rvstate without any configuration."""
    return Laptop(tmp_path / "laptop")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A project without requirements, so that nothing has to be installed."""
    return repository(tmp_path / "work/app", {"mark": "snapshot\n"})


def newest(laptop: Laptop) -> dict[str, str]:
    """The newest run, as `ps` has it."""
    found: dict[str, str] = laptop.document("ps")["runs"][0]
    return found


def test_a_shell_in_a_snapshot_ends_with_its_own_status(laptop: Laptop, app: Path) -> None:
    """The same holder and the same steps as on a cluster; the process ends when it is left."""
    shell = Terminal(laptop, app)
    shell.expect("(job 1)", 'echo "[$(cat mark)|$RV_JOB_ID|$PWD]"\n')
    shell.expect("[snapshot|1|")
    run = newest(laptop)
    assert (run["state"], run["name"]) == ("RUNNING", "rv-up")
    shell.expect("(job 1)", "exit 5\n")
    status, said = shell.end()
    assert status == 5
    assert "Job 1 ends" in said
    laptop.await_state(run["run_id"], "COMPLETED")
    again = laptop.run("rerun", run["run_id"], status=3)
    assert "was a shell, which has no command to run again" in again.stderr


def test_ctrl_c_while_other_jobs_run_cancels_it(laptop: Laptop, app: Path) -> None:
    """It never starts, and nothing of it is left under way."""
    # as many as the scheduler of this machine lets run at once
    room = max(1, (os.cpu_count() or 1) // 2)
    others = [laptop.submit("sleep", "600", cwd=app) for _ in range(room)]
    shell = Terminal(laptop, app)
    shell.expect("It waits for its turn", "\x03")
    status, said = shell.end()
    assert status == 130
    run = newest(laptop)
    assert f"Cancelled: job {run['job_id']}." in said
    laptop.await_state(run["run_id"], "CANCELLED")
    laptop.run("stop", "-y", *(x["run_id"] for x in others))
