"""The scheduler `process`: jobs as process groups on this machine (the process door).

It takes the same batch script as sbatch, keeps walltime, runs a few jobs at once in order, survives
logout, and knows a process by boot id and start time.  GPUs and several nodes it refuses by name.

    python -m rvstate.process submit DIRECTORY [--OPTION=VALUE]... SCRIPT
    python -m rvstate.process list|active DIRECTORY
    python -m rvstate.process stop DIRECTORY JOB
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rvstate.errors import ParseError, RvstateError, SubmitError, UnsupportedError
from rvstate.slurm import duration
from rvstate.slurm.states import FINISHED, JobState

_GRACE = (
    10.0  # seconds between SIGTERM and SIGKILL, as Slurm's KillWait (30 by default) but shorter
)
_POLL = 0.1
_REFUSED = {
    "gres": "GPUs",
    "gpus": "GPUs",
    "nodes": "several nodes",
    "array": "job arrays",
}

# Who and where the user is, and how this machine reaches the network: what a login would set.
_KEPT = frozenset(
    {
        *("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "XDG_RUNTIME_DIR"),
        *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("https_proxy", "http_proxy", "no_proxy", "all_proxy"),
        *("CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"),
        *("SSL_CERT_DIR", "SSL_CERT_FILE"),
    }
)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that a recycled number is not taken for."""

    pid: int
    boot: str
    start: str

    @property
    def alive(self) -> bool:
        """Whether it is still the same process and runs."""
        return _boot() == self.boot and _start(self.pid) == self.start


@dataclass(frozen=True, slots=True)
class LocalJob:
    """One job of this scheduler; times in seconds since 1970."""

    job: int
    name: str
    state: JobState
    exit_code: int | None
    submitted: float
    started: float | None
    ended: float | None


def submit(directory: Path, script: Path, said: Sequence[str] = ()) -> int:
    """Take a batch script; it starts when there is room, and goes on when we end.

    Args:
        directory: Where this scheduler keeps its jobs.
        script: A batch script with `#SBATCH` lines.
        said: Options that go over those lines, as on sbatch's command line.

    Returns:
        The job's number.

    Raises:
        UnsupportedError: It asks for what one machine does not have.
        SubmitError: It is not a batch script.
    """
    options = _options(script.read_text("utf-8", "surrogateescape"))
    options |= dict(_option(word) for word in said)
    for option, what in _REFUSED.items():
        if option in options and not (option == "nodes" and options[option] == "1"):
            raise UnsupportedError(
                f"This machine has no scheduler for {what} (--{option}={options[option]}).",
                "Run it on a cluster: `rvstate init` connects to one.",
            )
    home = _new_directory(directory)
    job = int(home.name)
    name = options.get("job-name", script.name)
    values = {"%j": str(job), "%x": name, "%%": "%"}
    places = {
        key: re.sub("%[jx%]", lambda m: values[m.group()], options.get(key, ""))
        for key in ("output", "error")
    }
    seconds = duration.parse_slurm(options["time"]) if "time" in options else None
    record = {
        "job": job,
        "name": name,
        "script": str(script),
        "output": places["output"] or str(home / "output"),
        "error": places["error"],
        "seconds": seconds,
        "submitted": time.time(),
        "dependency": options.get("dependency", ""),
        "comment": options.get("comment", ""),
    }
    _write(home / "job.json", record)
    _detach([sys.executable, "-m", "rvstate.process", "supervise", str(home)])
    return job


def _options(text: str) -> dict[str, str]:
    """The `#SBATCH` lines before the first command, as sbatch reads them."""
    if not text.startswith("#!"):
        raise SubmitError("A batch script must begin with #!.", "See man sbatch.")
    found = {}
    for line in text.splitlines():
        if line.startswith("#SBATCH "):
            (word, *_) = shlex.split(line.removeprefix("#SBATCH "))
            key, value = _option(word)
            found[key] = value
        elif line and not line.startswith("#"):
            break
    return found


def _option(word: str) -> tuple[str, str]:
    key, _, value = word.removeprefix("--").partition("=")
    return key, value


def _new_directory(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = max((int(p.name) for p in directory.iterdir() if p.name.isdigit()), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            # mkdir decides between two that submit at once
            (directory / str(number)).mkdir(mode=0o700)
            return directory / str(number)


def _detach(argv: list[str]) -> None:
    """Start a process that no terminal and no parent takes with it."""
    subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def supervise(home: Path) -> None:
    """Wait for this job's turn, run it, write down how it ended."""
    record = json.loads((home / "job.json").read_text())
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _write(home / "supervisor.json", asdict(this_process()))
    while not stopped and not (home / "stop").exists():
        may = _may_start(home, record.get("dependency", ""))
        if may is None:
            stopped = True
        elif may and _my_turn(home):
            break
        else:
            time.sleep(_POLL)
    if stopped or (home / "stop").exists():
        _end(home, JobState.CANCELLED, None)
        return
    process = _start_job(home, record)
    limit = None if record["seconds"] is None else time.monotonic() + record["seconds"]
    state = None
    while process.poll() is None:
        if state is None and (stopped or (home / "stop").exists()):
            state = JobState.CANCELLED
        elif state is None and limit is not None and time.monotonic() > limit:
            state = JobState.TIMEOUT
        else:
            time.sleep(_POLL)
            continue
        _end_group(process)
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    ended = state or (JobState.COMPLETED if code == 0 else JobState.FAILED)
    _end(home, ended, code)


def _my_turn(home: Path) -> bool:
    """Whether fewer than the allowed number of earlier jobs are still under way."""
    room = max(1, (os.cpu_count() or 1) // 2)
    earlier = [
        other
        for other in home.parent.iterdir()
        if other.name.isdigit() and int(other.name) < int(home.name)
    ]
    return sum(_under_way(other) for other in earlier) < room


def _may_start(home: Path, dependency: str) -> bool | None:
    """Whether the jobs that this one follows have ended as it wants; None where one did not.

    Args:
        home: The job's directory.
        dependency: As sbatch's `--dependency`: `afterok:1:2,afterany:3`.
    """
    ready = True
    for part in filter(None, dependency.split(",")):
        when, *others = part.split(":")
        for other in others:
            found = _job(home.parent / other)
            if found is None or found.state not in FINISHED:
                # what is not there is never taken for ended; the job can be stopped
                ready = False
            elif when != "afterany" and (when == "afterok") != (found.state is JobState.COMPLETED):
                return None
    return ready


def _under_way(home: Path) -> bool:
    if (home / "end.json").exists():
        return False
    found = _read(home / "supervisor.json")
    if found is None:
        # just submitted; one that never came up does not block the others for long
        submitted = (_read(home / "job.json") or {}).get("submitted", 0)
        return bool(time.time() - submitted < 10)
    return Process(**found).alive


def _start_job(home: Path, record: dict[str, Any]) -> subprocess.Popen[bytes]:
    # as with sbatch --export=NONE, nothing that happened to be set decides about the job
    env = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith("LC_")}
    env["RV_JOB_ID"] = str(record["job"])
    output = Path(record["output"])
    output.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as files:
        out = files.enter_context(output.open("ab"))
        err = files.enter_context(Path(record["error"]).open("ab")) if record["error"] else out
        process = subprocess.Popen(
            ["bash", record["script"]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=env,
            start_new_session=True,
        )
    identity = asdict(identify(process.pid))
    _write(home / "process.json", identity | {"started": time.time()})
    return process


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group, SIGKILL to what is left of it."""
    _signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # a group that has ended needs no signal
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _end(home: Path, state: JobState, code: int | None) -> None:
    _write(home / "end.json", {"state": state.value, "exit_code": code, "ended": time.time()})
    script = (_read(home / "job.json") or {}).get("script", "")
    after = Path(script).parent / "notify" / "after.sh"
    if after.is_file():
        # what Slurm does by --dependency=afterany
        _detach(["bash", str(after), state.value, "" if code is None else str(code)])


def jobs(directory: Path) -> tuple[LocalJob, ...]:
    """Every job of this scheduler, oldest first."""
    homes = [p for p in directory.iterdir() if p.name.isdigit()] if directory.is_dir() else []
    found = (_job(home) for home in sorted(homes, key=lambda p: int(p.name)))
    return tuple(job for job in found if job is not None)


def listing(directory: Path, active: bool = False) -> list[str]:
    """One line for each job: number, state, script, comment, name; scripts look runs up in them.

    Args:
        directory: The scheduler's own.
        active: Whether jobs that have ended are left out.
    """
    lines = []
    for job in jobs(directory):
        if active and job.state in FINISHED:
            continue
        record = _read(directory / str(job.job) / "job.json") or {}
        told = (record.get("script", ""), record.get("comment", ""))
        lines.append(f"{job.job} {job.state} {' '.join(told)} {job.name}")
    return lines


def _job(home: Path) -> LocalJob | None:
    record = _read(home / "job.json")
    if record is None:
        return None
    end = _read(home / "end.json")
    process = _read(home / "process.json")
    started = process["started"] if process else None
    base = (record["job"], record["name"])
    if end is not None:
        state = JobState(end["state"])
        return LocalJob(*base, state, end["exit_code"], record["submitted"], started, end["ended"])
    if _under_way(home):
        state = JobState.RUNNING if process else JobState.PENDING
    else:
        # its supervisor died without a word (reboot, kill -9): nobody knows how it ended
        state = JobState.NODE_FAIL
    return LocalJob(*base, state, None, record["submitted"], started, None)


def stop(directory: Path, job: int) -> None:
    """End a job: its whole group, waiting or running."""
    home = directory / str(job)
    (home / "stop").touch()
    if _under_way(home):
        return
    process = _read(home / "process.json")
    if process is not None and not (home / "end.json").exists():
        process.pop("started")
        known = Process(**process)
        if known.alive:
            _signal_group(known.pid, signal.SIGTERM)


def _write(path: Path, value: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(value))
    part.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ParseError(f"{path} is damaged: {error}.", "Remove that job's directory.") from error
    assert isinstance(found, dict)
    return found


def output_of(words: Sequence[str], attended: bool) -> tuple[int, bytes]:
    """Run another rvstate at the same terminal, with its standard error on ours.

    Args:
        words: Its command line.
        attended: Whether it may ask a person; without, its standard input is empty.

    Returns:
        Its exit status, and what it wrote to standard output.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "rvstate", *words],
        stdin=None if attended else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        # Ctrl-C at the terminal reached it as well: it ends what it began, and says so
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode, output


def identify(pid: int) -> Process:
    """A process that runs now, as it can be known later."""
    return Process(pid, _boot(), _start(pid))


def this_process() -> Process:
    """This process, as others can know it later."""
    return identify(os.getpid())


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    if path.exists():
        return path.read_text().strip()
    return subprocess.run(
        ["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False
    ).stdout.strip()


def _start(pid: int) -> str:
    """When a process started, in the system's own unit; empty where there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        # a zombie has ended, though nobody has asked for its status yet
        return "" if fields[0] == "Z" else fields[19]
    return subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()


def main(words: list[str]) -> int:
    """What `remote/submit.sh` and a detached supervisor call."""
    try:
        match words:
            case ["submit", directory, *said, script]:
                print(submit(Path(directory), Path(script), said))  # noqa: T201 - as sbatch --parsable
            case ["stop", directory, job]:
                stop(Path(directory), int(job))
            case ["list" | "active" as word, directory]:
                for line in listing(Path(directory), word == "active"):
                    print(line)  # noqa: T201 - read by submit.sh and prune.sh
            case ["supervise", home]:
                supervise(Path(home))
            case _:
                raise SubmitError(f"unknown call {words}", "This is not for use by hand.")
    except RvstateError as error:
        print(f"{error.message} {error.remedy}", file=sys.stderr)  # noqa: T201 - read by submit.sh
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
