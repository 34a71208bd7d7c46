"""A shell on a compute node, by a person at a real terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, Terminal, repository

pytestmark = pytest.mark.cluster

SECRET = "hunter2 'q' $HOME"


@pytest.fixture(scope="module")
def laptop(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """rvstate on a machine of its own, with one secret."""
    cluster.reset()
    found = Laptop(
        tmp_path_factory.mktemp("laptop"),
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\ntime = "1h"\n',
    )
    (found.home / "env.json").write_text(json.dumps({"vars": {"RV_TEST_SECRET": SECRET}}))
    yield found
    cluster.reset()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an environment and one file."""
    files = {"requirements.txt": "packaging\n", "mark": "snapshot\n"}
    return repository(tmp_path_factory.mktemp("work") / "app", files)


def newest(laptop: Laptop) -> dict[str, Any]:
    """The newest run, as `ps` has it."""
    found: dict[str, Any] = laptop.document("ps")["runs"][0]
    return found


def test_a_shell_has_all_that_a_job_has_and_ends_it(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """GPU, secret, modules, snapshot and environment; pip lands in it; the exit code is kept."""
    shell = Terminal(laptop, app, "--mig", "--time", "30m")
    shell.expect("$ ", 'echo "[$CUDA_VISIBLE_DEVICES|$RV_TEST_SECRET|$(cat mark)|$PWD]"\n')
    shell.expect("[0|" + SECRET + "|snapshot|")
    place = shell.expect("]", 'type module >/dev/null && pip install -q six && echo "six: $?"\n')
    assert "/snapshots/rv-up-" in place
    shell.expect("\nsix: 0")
    run = newest(laptop)
    assert "Somebody is inside since" in run["reason"]
    assert (run["state"], run["name"]) == ("RUNNING", "rv-up")
    os.write(shell.master, b"exit 7\n")
    status, said = shell.end()
    assert status == 7
    assert f"Job {run['job_id']} ends, and its allocation with it." in said
    laptop.await_state(run["run_id"], "COMPLETED")
    # the next job of the branch has it
    after = laptop.submit("--time", "5m", "-f", "python", "-c", "import six", cwd=app)
    assert after["exit_code"] == 0


def test_the_workspace_itself_is_writable_and_nothing_in_it_is_lost(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """With --code; --keep leaves the allocation, which `ps` says."""
    shell = Terminal(laptop, app, "--code", "--keep", "--time", "30m")
    shell.expect("$ ", "pwd; echo edited >mark && echo new >found && exit\n")
    status, said = shell.end()
    assert status == 0
    assert "/rv-workspaces/app/main/code\r\n" in said
    assert "is kept, up to its time limit" in said
    end = time.monotonic() + 60
    while "It is kept" not in (run := newest(laptop))["reason"]:
        assert time.monotonic() < end, run
        time.sleep(0.3)
    # the next push does not write over what was changed there
    told = laptop.submit("--time", "5m", "cat", "mark", cwd=app)
    aside = told["said"].split("are kept in ")[1].split()[0]
    kept = (f"{aside}/mark", f"{aside}/code/found")
    assert cluster.run_as("abc1de", "cat", *kept).stdout == "edited\nnew\n"
    laptop.run("stop", "-y", run["job_id"])
    laptop.await_state(run["run_id"], "CANCELLED")


def test_waiting_says_why_and_ctrl_c_cancels(cluster: Any, laptop: Laptop, app: Path) -> None:
    """Place and reason are shown; nothing is left in the queue, and the exit code is 130."""
    cluster.exec("scontrol", "update", "partitionname=gpu-h200", "state=down")
    try:
        shell = Terminal(laptop, app, "-g", "1", "-t", "h200", "--time", "30m")
        shell.expect("waiting; place 1 of 1 in gpu-h200")
        shell.expect("Its partition is closed", "\x03")
        status, said = shell.end()
    finally:
        cluster.exec("scontrol", "update", "partitionname=gpu-h200", "state=up")
    assert status == 130
    run = newest(laptop)
    assert f"Cancelled: job {run['job_id']}." in said
    assert run["state"] == "CANCELLED"
    assert cluster.exec("squeue", "-h", "-u", "abc1de").stdout == ""


def test_a_lost_connection_is_said_and_bounded(cluster: Any, laptop: Laptop, app: Path) -> None:
    """The laptop dies under the shell: `ps` says when the allocation ends; `ssh` goes in again."""
    shell = Terminal(laptop, app, "--time", "30m")
    shell.expect("$ ")
    run = newest(laptop)
    shell.die()
    end = time.monotonic() + 60
    while "The connection was lost" not in newest(laptop)["reason"]:
        assert time.monotonic() < end, newest(laptop)
        time.sleep(0.3)
    assert "it ends at" in newest(laptop)["reason"]
    assert "The connection was lost and nobody is inside; it ends at" in laptop.run("status").stdout
    assert laptop.run("ssh", run["job_id"], "--run", "cat mark").stdout == "snapshot\n"
    assert laptop.state(run["run_id"]) == "RUNNING"
    laptop.run("stop", "-y", run["job_id"])


def test_nothing_is_asked_for_by_a_dry_run_or_without_a_terminal(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """What would be asked for is shown; a shell for nobody is refused before anything."""
    before = cluster.exec("sacct", "-n", "-X", "-a", "-o", "JobID").stdout
    found = laptop.document("up", "--mig", "--dry-run", cwd=app)
    assert (found["command"], found["mode"]) == ("up", "dry-run")
    assert "--gres=gpu:1g.10gb:1" in found["script"]
    assert "nobody at a terminal" in laptop.run("up", "--mig", cwd=app, status=64).stderr
    assert cluster.exec("sacct", "-n", "-X", "-a", "-o", "JobID").stdout == before
