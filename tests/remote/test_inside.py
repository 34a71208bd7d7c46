"""Entering a running job: its surroundings and nothing of its work, whatever the job was."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rvstate import assets
from rvstate.shell import quote

ODD = ("with space", "line\nbreak", 'it\'s "odd" $HOME `id`', "-n", "a\\b", "*")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Directories as a run has them; the job is to leave a file behind."""
    for name in ("lib", "rv/logs", "run", "snapshot/sub", "env/bin", "home"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("job", "inside"):
        (tmp_path / f"lib/{name}.sh").write_text(assets.job_scripts()[f"{name}.sh"])
    (tmp_path / "env/bin/python").symlink_to("/bin/true")
    (tmp_path / "user.env").write_text("export SECRET='hunter2'\n")
    write(tmp_path)
    return tmp_path


def write(place: Path, *before: str, mark: str = "rv_enter", command: str = "touch ran") -> None:
    """The run's batch script."""
    steps = (
        "#!/bin/bash",
        f". {place}/lib/job.sh || exit 1",
        f"rv_begin {place}/rv {place}/run rv-train",
        f"rv_environment {place}/env",
        "export FROM_JOB=yes",
        *before,
        f"rv_variables {place}/user.env",
        f"rv_directory {place}/snapshot sub ''",
        mark,
        "touch behind",
        "rv_keep sub",
        f"rv_run {command}",
    )
    (place / "run/job.sh").write_text("\n".join(steps) + "\n")


def inside(place: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in it, as job 41."""
    file = place / "run/.enter-1"
    file.write_text(line)
    clean = {"PATH": os.environ["PATH"], "HOME": str(place / "home"), "RV_JOB_ID": "41", **env}
    return subprocess.run(
        ["bash", str(place / "lib/inside.sh"), str(place / "run"), "file", str(file)],
        capture_output=True,
        text=True,
        env=clean,
        cwd="/",
        check=False,
        input="typed",
    )


def test_the_variables_of_a_stage_win_for_who_enters(place: Path) -> None:
    """Over the user's own, as in its job."""
    (place / "lib/stage.sh").write_text(assets.job_scripts()["stage.sh"])
    write(place, f". {place}/lib/stage.sh", "rv_stage_env 'SECRET=the stage'\\''s'")
    assert inside(place, 'echo "$SECRET"').stdout == "the stage's\n"


def test_it_is_as_in_the_job(place: Path) -> None:
    """Environment, variables, secrets and directory; input, output and exit code are its own."""
    done = inside(place, 'echo "$FROM_JOB $SECRET $VIRTUAL_ENV $RV_JOB_ID $PWD"; cat; exit 7')
    assert done.returncode == 7
    assert done.stdout == f"yes hunter2 {place}/env 41 {place}/snapshot/sub\ntyped"


def test_the_program_does_not_run_a_second_time(place: Path) -> None:
    """Nothing behind the mark happens, and nothing is said of the job."""
    assert inside(place, "true").returncode == 0
    assert not list(place.rglob("ran"))
    assert not list(place.rglob("behind"))
    assert not (place / "run/exit").exists()
    assert not (place / "run/.enter-1").exists()


def test_a_step_that_fails_does_not_end_the_job_in_its_records(place: Path) -> None:
    """The environment went away: who enters is told so, and `ps` is told nothing."""
    (place / "env/bin/python").unlink()
    done = inside(place, "touch here")
    assert done.returncode == 1
    assert "is gone" in done.stderr
    assert not (place / "run/exit").exists()
    assert not list(place.rglob("here"))


def test_a_run_without_the_mark_is_refused(place: Path) -> None:
    """A script of an older rvstate would run its program once more."""
    write(place, mark="true")
    done = inside(place, "touch here")
    assert done.returncode == 1
    assert "older rvstate" in done.stderr
    assert not list(place.rglob("ran")) + list(place.rglob("here"))


@pytest.mark.parametrize("value", ["a\nrv_enter\nb", "rv_enter"])
def test_the_mark_in_a_value_or_a_command_never_runs_the_program(place: Path, value: str) -> None:
    """The first such line ends it; cut inside a quoted value, nothing at all is done."""
    write(place, f"export ODD={quote(value)}", command=f"sh -c {quote(value)}")
    done = inside(place, 'printf "%s" "$ODD"')
    assert done.returncode != 0 or done.stdout == value
    assert not list(place.rglob("behind"))


@pytest.mark.parametrize("value", ODD)
def test_odd_words_arrive_as_they_are(place: Path, value: str) -> None:
    """The line is a file: nothing on the way takes it apart."""
    assert inside(place, f"printf %s {quote(value)}").stdout == value


def test_start_up_files_are_read_and_their_noise_is_not_heard(place: Path) -> None:
    """What a batch job's login environment is made of; and the job's own paths stay in front."""
    (place / "home/.bash_profile").write_text("echo noise; export FROM_LOGIN=1 PATH=/mine:$PATH\n")
    done = inside(place, 'echo "$FROM_LOGIN $PATH"')
    assert done.stdout.startswith(f"1 {place}/env/bin:/mine:")


def test_a_session_of_sshd_gets_what_slurm_said(place: Path) -> None:
    """sshd starts with an environment of its own; editors begin at home."""
    exports = place / "run/.exports-1"
    exports.write_text("export SLURM_JOB_ID='41'\nexport CUDA_VISIBLE_DEVICES='0,1'\n")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "home"),
        "SSH_ORIGINAL_COMMAND": 'echo "$RV_JOB_ID $CUDA_VISIBLE_DEVICES $SECRET $PWD"',
    }
    argv = ["bash", str(place / "lib/inside.sh"), str(place / "run"), "session", str(exports)]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd="/", check=False)
    assert done.stdout == f"41 0,1 hunter2 {place}/home\n", done.stderr
