"""The way into a job for ssh clients, and its Jupyter server: Slurm's words stand in for Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Account

from rvstate import assets
from rvstate.script import Answer

RUN = "/{scratch}/.rv/runs/r1"
ENDED = "slurm_load_jobs error: Invalid job id specified"
DOWN = "Unable to contact slurm controller (connect failure)"


def program(folder: Path, name: str, text: str) -> None:
    """A program on the PATH of these tests."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("says", "status", "words"),
    [
        ("RUNNING n[1-2]", 0, None),
        ("SUSPENDED n1", 0, None),
        ("PENDING ", 0, "job 7 does not run yet"),
        ("REQUEUED n1", 0, "job 7 does not run yet"),
        ("COMPLETED n1", 0, "job 7 has ended; nothing can be reached in it"),
        ("CANCELLED n1", 0, "job 7 has ended; nothing can be reached in it"),
        ("", 0, "job 7 has ended; nothing can be reached in it"),
        (ENDED, 1, "job 7 has ended; nothing can be reached in it"),
        # the controller is away for a moment: srun knows better, and the job is not given up
        (DOWN, 1, None),
        (
            "RUNNING n[8-9]",
            0,
            "job 7 was started again and runs on n[8-9] now; ask for it again",
        ),
    ],
)
def test_the_way_in_leads_to_a_running_job_only(
    tmp_path: Path, says: str, status: int, words: str | None
) -> None:
    """Given up for good only where Slurm says that it has ended."""
    bin_ = tmp_path / "bin"
    program(bin_, "squeue", f"echo '{says}'; exit {status}")
    program(
        bin_, "scontrol", "case $3 in *8*) printf 'n8\\nn9\\n' ;; *) printf 'n1\\nn2\\n' ;; esac"
    )
    program(bin_, "srun", 'echo "$@"')
    (tmp_path / "into.sh").write_text(assets.script("into"))
    done = subprocess.run(
        ["sh", str(tmp_path / "into.sh"), "7", "n1", "/run", "/keys"],
        env={"PATH": f"{bin_}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if words is None:
        assert done.returncode == 0, done.stderr
        assert "--jobid=7 --nodelist=n1" in done.stdout
        assert done.stdout.endswith("into.sh here /run /keys\n")
    else:
        assert done.returncode == 1
        assert done.stderr == f"rvstate: {words}\n"


class Jupyter:
    """A run whose job can start a server, as a Slurm of shell scripts has it."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.run_dir = account.rv / "runs" / "r1"
        self.place = self.run_dir / "jupyter"
        library = account.rv / "lib" / "abc"
        for folder in (self.run_dir, library):
            folder.mkdir(parents=True)
        (self.run_dir / "job.sh").write_text(f". {library}/job.sh\n")
        (library / "inside.sh").write_text(
            'mkdir -p "$RV_RUN_DIR"; . "$3" >/dev/null 2>&1\n'  # what the run's surroundings set
        )
        self.bin = account.root / "bin"
        steps = account.root / "steps"
        self.steps = steps
        # a step is there from its start until it ends or is cancelled
        program(self.bin, "squeue", f"cat {steps} 2>/dev/null; echo '7.batch n1 batch'; exit 0")
        program(
            self.bin,
            "srun",
            f'echo "$$ n1 rvstate-jupyter" >{steps}; for file; do :; done\n'
            f'. "$file"; rm -f "$file"',
        )
        program(self.bin, "scancel", f'kill "$1"; rm -f {steps}; echo "$1" >>{account.root}/ended')
        program(
            self.bin,
            "jupyter-server",
            'printf \'{"port": 8891, "token": "%s"}\' "$JUPYTER_TOKEN" '
            '>"$JUPYTER_RUNTIME_DIR/jpserver-1.json"; exec sleep 60',
        )

    def __call__(self, word: str, token: str) -> Answer:
        return self.account.run(
            "jupyter",
            word,
            self.account.scratch,
            "",
            RUN,
            "7",
            token,
            "n1",
            PATH=f"{self.bin}:{self.account.path}",
            RV_RUN_DIR=str(self.run_dir),
        )

    @property
    def ended(self) -> list[str]:
        """The steps that were cancelled."""
        file = self.account.root / "ended"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def jupyter(account: Account) -> Iterator[Jupyter]:
    """A run with a server, which is ended."""
    found = Jupyter(account)
    yield found
    if found.steps.exists():
        os.kill(int(found.steps.read_text().split()[0]), signal.SIGTERM)


def test_a_server_is_begun_once_and_found_again(jupyter: Jupyter) -> None:
    """The second call gets the first one's token; nothing secret can be read by others."""
    first = jupyter("start", "t1")
    assert json.loads(first.first("server")) == {"port": 8891, "token": "t1"}
    assert first.first("node") == b"n1"
    assert first.all("begun") == (b"",)
    second = jupyter("start", "t2")
    assert json.loads(second.first("server"))["token"] == "t1"
    assert second.all("begun") == ()
    assert jupyter.place.stat().st_mode & 0o077 == 0


def test_only_who_began_it_takes_it_back(jupyter: Jupyter) -> None:
    """A second call that is given up does not end the server in which somebody works."""
    jupyter("start", "t1")
    jupyter("undo", "t2")
    assert jupyter.ended == []
    jupyter("undo", "t1")
    assert len(jupyter.ended) == 1


def test_what_is_saved_there_is_not_pruned(jupyter: Jupyter) -> None:
    """The run is marked, so its snapshot stays."""
    jupyter("start", "t1")
    assert (jupyter.run_dir / "keep").exists()


def test_a_server_that_does_not_start_says_why(jupyter: Jupyter) -> None:
    """Its last words, not those of srun."""
    program(jupyter.bin, "jupyter-server", "echo 'no kernel for you' >&2; exit 1")
    program(
        jupyter.bin,
        "srun",
        'for file; do :; done; . "$file"; echo "srun: error: n1: task 0: Exited" >&2',
    )
    answer = jupyter("start", "t1")
    assert answer.status == 1
    assert "no kernel for you" in answer.errors


def test_a_silent_controller_begins_no_second_server(jupyter: Jupyter) -> None:
    """Not to know whether one runs is not to know that none does."""
    jupyter("start", "t1")
    program(jupyter.bin, "squeue", f"echo '{DOWN}' >&2; exit 1")
    answer = jupyter("start", "t2")
    assert answer.status == 1
    assert "does not say what runs in job 7" in answer.errors
    assert list(jupyter.place.glob("jpserver-*.json"))
