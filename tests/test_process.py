import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rvstate import process
from rvstate.errors import SubmitError, UnsupportedError
from rvstate.slurm.states import FINISHED, JobState

PATIENCE = 30.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A scheduler's directory; what still runs in it is ended afterwards."""
    directory = tmp_path / "process"
    yield directory
    for job in process.jobs(directory):
        if job.state not in FINISHED:
            process.stop(directory, job.job)


def script(folder: Path, body: str, *options: str) -> Path:
    path = folder / f"job-{len(list(folder.iterdir()))}.sh"
    lines = [f"#SBATCH --{option}" for option in ("job-name=t", *options)]
    path.write_text("\n".join(("#!/bin/bash", *lines, body)) + "\n")
    return path


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def state(place: Path, job: int) -> JobState:
    return next(found.state for found in process.jobs(place) if found.job == job)


def ended(place: Path, job: int) -> process.LocalJob:
    until(lambda: state(place, job) in FINISHED)
    return next(found for found in process.jobs(place) if found.job == job)


def test_a_job_writes_its_log_and_its_exit_code_is_kept(place: Path, tmp_path: Path) -> None:
    """Output and error go where #SBATCH says, %x and %j filled in; the code is the program's."""
    options = (f"output={tmp_path}/%x-%j.out", f"error={tmp_path}/%x-%j.err")
    text = script(tmp_path, "echo out; echo err >&2; exit 7", *options)
    job = process.submit(place, text)
    found = ended(place, job)
    assert (found.state, found.exit_code) == (JobState.FAILED, 7)
    assert (tmp_path / f"t-{job}.out").read_text() == "out\n"
    assert (tmp_path / f"t-{job}.err").read_text() == "err\n"


def test_jobs_run_in_the_order_of_submission(place: Path, tmp_path: Path) -> None:
    """With room for one, the second waits for the first, which shows in its state."""
    room = max(1, (os.cpu_count() or 1) // 2)
    gate = tmp_path / "gate"
    first = [
        process.submit(place, script(tmp_path, f"while ! [ -e {gate} ]; do sleep 0.05; done"))
        for _ in range(room)
    ]
    later = process.submit(place, script(tmp_path, "true"))
    until(lambda: all(state(place, job) is JobState.RUNNING for job in first))
    assert state(place, later) is JobState.PENDING
    gate.touch()
    assert ended(place, later).state is JobState.COMPLETED
    started = {job.job: job.started or 0 for job in process.jobs(place)}
    assert started[later] > max(started[job] for job in first)


def test_walltime_ends_the_whole_group(place: Path, tmp_path: Path) -> None:
    """At the limit the program and its children get TERM, and the state is TIMEOUT."""
    body = f"sleep 300 & echo $! >{tmp_path}/child; trap 'exit 9' TERM; wait"
    job = process.submit(place, script(tmp_path, body, "time=00:00:01"))
    assert ended(place, job).state is JobState.TIMEOUT
    child = int((tmp_path / "child").read_text())
    until(lambda: process._start(child) == "")


@pytest.mark.slow
def test_what_ignores_term_is_killed(place: Path, tmp_path: Path, monkeypatch: object) -> None:
    """A program that does not listen does not stay."""
    body = f"trap '' TERM; echo up >{tmp_path}/up; while :; do sleep 0.1; done"
    job = process.submit(place, script(tmp_path, body))
    until(lambda: (tmp_path / "up").exists())
    process.stop(place, job)
    assert ended(place, job).state is JobState.CANCELLED


def test_a_waiting_job_that_is_stopped_never_runs(place: Path, tmp_path: Path) -> None:
    """Cancelling ahead of time leaves no trace of the program."""
    room = max(1, (os.cpu_count() or 1) // 2)
    first = [process.submit(place, script(tmp_path, "sleep 300")) for _ in range(room)]
    later = process.submit(place, script(tmp_path, f"touch {tmp_path}/ran"))
    process.stop(place, later)
    assert ended(place, later).state is JobState.CANCELLED
    for job in first:
        process.stop(place, job)
        assert ended(place, job).state is JobState.CANCELLED
    assert not (tmp_path / "ran").exists()


def test_a_job_outlives_the_shell_and_session_that_submitted_it(
    place: Path, tmp_path: Path
) -> None:
    """Closing the terminal (hang-up of the whole session) ends no job."""
    gate = tmp_path / "gate"
    text = script(tmp_path, f"while ! [ -e {gate} ]; do sleep 0.05; done; echo done")
    shell = subprocess.Popen(
        [sys.executable, "-m", "rvstate.process", "submit", str(place), str(text)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    job = int(shell.communicate()[0])
    until(lambda: state(place, job) is JobState.RUNNING)
    try:
        os.killpg(shell.pid, signal.SIGHUP)
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing of that session is left, which is the point
    assert state(place, job) is JobState.RUNNING
    gate.touch()
    assert ended(place, job).state is JobState.COMPLETED


def test_a_dead_supervisor_is_no_success_and_its_job_can_be_ended(
    place: Path, tmp_path: Path
) -> None:
    """kill -9 of what watches a job: the state says so, and stop still reaches the job."""
    job = process.submit(place, script(tmp_path, f"echo $$ >{tmp_path}/pid; sleep 300"))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    home = place / str(job)
    until(lambda: (home / "process.json").exists())
    os.kill(json.loads((home / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    until(lambda: state(place, job) is JobState.NODE_FAIL)
    process.stop(place, job)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: process._start(pid) == "")


def test_a_recycled_number_is_not_taken_for_the_job(place: Path, tmp_path: Path) -> None:
    """A process of the same number but another start, or of another boot, is never signalled."""
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        real = process.Process(bystander.pid, process._boot(), process._start(bystander.pid))
        assert real.alive
        assert not process.Process(bystander.pid, process._boot(), "1").alive
        assert not process.Process(bystander.pid, "another-boot", real.start).alive
        home = place / "1"
        home.mkdir(parents=True)
        record = {"job": 1, "name": "t", "script": "x", "submitted": 0.0}
        (home / "job.json").write_text(json.dumps(record))
        stale = {"pid": bystander.pid, "boot": process._boot(), "start": "1"}
        (home / "supervisor.json").write_text(json.dumps(stale))
        (home / "process.json").write_text(json.dumps(stale | {"started": 1.0}))
        assert state(place, 1) is JobState.NODE_FAIL
        process.stop(place, 1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("gres=gpu:a100:1", "GPUs"),
        ("gpus=2", "GPUs"),
        ("nodes=2", "several nodes"),
        ("array=0-3", "job arrays"),
    ],
)
def test_what_one_machine_has_not_is_refused_by_name(
    place: Path, tmp_path: Path, option: str, says: str
) -> None:
    """Nothing is pretended: the refusal names what is missing, and no job is made."""
    with pytest.raises(UnsupportedError, match=says):
        process.submit(place, script(tmp_path, "true", option))
    assert process.jobs(place) == ()


def test_a_job_follows_others(place: Path, tmp_path: Path) -> None:
    """It starts when they have ended as it wants; one that can never start is cancelled."""
    gate = tmp_path / "gate"
    first = process.submit(place, script(tmp_path, f"while ! [ -e {gate} ]; do sleep 0.05; done"))
    good = process.submit(place, script(tmp_path, "exit 3", f"dependency=afterok:{first}"))
    never = process.submit(place, script(tmp_path, "true", f"dependency=afterok:{good}"))
    other = f"dependency=afternotok:{good},afterany:{first}:{never}"
    mend = process.submit(place, script(tmp_path, "true", other))
    until(lambda: state(place, first) is JobState.RUNNING)
    assert [state(place, job) for job in (good, never, mend)] == [JobState.PENDING] * 3
    gate.touch()
    assert ended(place, mend).state is JobState.COMPLETED
    assert ended(place, good).exit_code == 3
    assert (ended(place, never).state, ended(place, never).started) == (JobState.CANCELLED, None)


def test_a_waiting_job_can_be_stopped(place: Path, tmp_path: Path) -> None:
    """One that follows what is not there waits, and is never taken for ready."""
    job = process.submit(place, script(tmp_path, "true", "dependency=afterany:77"))
    until(lambda: (place / str(job) / "supervisor.json").exists())
    assert state(place, job) is JobState.PENDING
    process.stop(place, job)
    assert ended(place, job).state is JobState.CANCELLED


def test_options_beside_the_script_go_over_its_own(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on sbatch's command line; the listing has comments, and a job is ended by its number."""
    text = script(tmp_path, "true", "dependency=afterany:1", "comment='rvstate:x y'")
    assert process.main(["submit", str(place), "--dependency=afterok:77", str(text)]) == 0
    job = int(capsys.readouterr().out)
    assert json.loads((place / str(job) / "job.json").read_text())["dependency"] == "afterok:77"
    assert process.listing(place)[0].split()[3:5] == ["rvstate:x", "y"]
    until(lambda: (place / str(job) / "supervisor.json").exists())
    assert process.main(["stop", str(place), str(job)]) == 0
    assert ended(place, job).state is JobState.CANCELLED


def test_one_node_is_what_this_machine_is(place: Path, tmp_path: Path) -> None:
    """--nodes=1 is no reason to refuse."""
    job = process.submit(place, script(tmp_path, "true", "nodes=1"))
    assert ended(place, job).state is JobState.COMPLETED


def test_a_text_that_is_no_script_is_refused(place: Path, tmp_path: Path) -> None:
    """As sbatch does."""
    path = tmp_path / "no-script"
    path.write_text("echo hello\n")
    with pytest.raises(SubmitError):
        process.submit(place, path)


def test_nothing_leaks_in_from_the_submitting_shell(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that happens to be set here does not decide about the job."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    job = process.submit(place, script(tmp_path, f"env >{tmp_path}/seen; echo $HOME"))
    assert ended(place, job).state is JobState.COMPLETED
    seen = (tmp_path / "seen").read_text()
    assert f"RV_JOB_ID={job}\n" in seen
    assert not any(name in seen for name in ("CUDA_VISIBLE", "SLURM_JOB", "PYTHONPATH"))


def test_many_submitted_at_once_get_numbers_of_their_own(place: Path, tmp_path: Path) -> None:
    """No number is given twice, so no job is lost."""
    text = script(tmp_path, "true")
    command = [sys.executable, "-m", "rvstate.process", "submit", str(place), str(text)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(4)
    ]
    numbers = [int(one.communicate()[0]) for one in running]
    assert sorted(numbers) == [1, 2, 3, 4]
    for number in numbers:
        assert ended(place, number).state is JobState.COMPLETED
    lines = process.listing(place)
    assert [line.split()[:2] for line in lines] == [[str(n), "COMPLETED"] for n in (1, 2, 3, 4)]
    assert all(str(text) in line for line in lines)
