"""Runs remote scripts on this machine, whole or killed half way, and makes projects to send."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvstate.model.project import Tree, difference
from rvstate.script import Answer, Script, read_answer

ODD_NAMES = (
    "with space",
    "-dash",
    "line\nbreak",
    "donn\udce9es",
    "quo'te\"s",
    "$HOME",
    "a\\b",
    "*",
)
KILLED = -9
TIDY_ENV = {"LC_ALL": "C", "USER": "me"}


@dataclass(frozen=True)
class Ran:
    """How a script ended."""

    status: int
    answer: Answer | None
    errors: str

    @property
    def lines(self) -> list[str]:
        """What it printed outside any section."""
        assert self.answer is not None, self.errors
        return [x for x in self.answer.body.decode("utf-8", "replace").splitlines() if x]


def run(script: Script, *, env: Mapping[str, str] | None = None, dies_at: int | None = None) -> Ran:
    """Run a script as the login node does.

    Args:
        script: What travels.
        env: Variables on top of a clean environment.
        dies_at: Kill the whole group with SIGKILL before the n-th command.
    """
    text = script.text
    shell = ["sh"]
    if dies_at is not None:
        # dash has no DEBUG trap; bash has, also in functions and subshells (set -T)
        shell = ["bash", "--posix"]
        at = f"rv_n=$((rv_n+1)); [ $rv_n -ne {dies_at} ] || kill -9 0"
        text = f"rv_n=0\nset -T\ntrap '{at}' DEBUG\n{text}"
    done = subprocess.run(
        [*shell, "-c", text.encode("utf-8", "surrogateescape")],
        input=script.data,
        capture_output=True,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **TIDY_ENV, **(env or {})},
    )
    errors = done.stderr.decode("utf-8", "replace")
    answer = None if done.returncode < 0 else read_answer(script.nonce, done.stdout, errors)
    return Ran(done.returncode, answer, errors)


def age_locks(folder: Path) -> None:
    """Make a lock whose owner died before it said who it is look as old as one would be."""
    for lock in folder.rglob("lock"):
        if lock.is_dir() and not (lock / "owner").exists():
            os.utime(lock, (1, 1))


def contents(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Every file and link below a folder: kind and bytes."""
    found = {}
    for directory, names, files in os.walk(folder):
        for name in (*files, *(n for n in names if os.path.islink(os.path.join(directory, n)))):
            path = os.path.join(directory, name)
            key = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[key] = ("l", os.fsencode(os.readlink(path)))
            else:
                kind = "x" if os.stat(path).st_mode & 0o100 else "f"
                with open(path, "rb") as file:
                    found[key] = (kind, file.read())
    return found


def write(root: Path, files: Mapping[str, str | None], *, executable: bool = False) -> None:
    """Write files below a root; None removes one."""
    for name, text in files.items():
        path = os.path.join(root, name)
        if text is None:
            os.unlink(path)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", errors="surrogateescape") as file:
            file.write(text)
        if executable:
            os.chmod(path, 0o755)


def git(root: Path, *words: str) -> str:
    """Run git there, as nobody in particular."""
    env = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
        "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
    }
    who = (
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.org",
        "-c",
        "protocol.file.allow=always",
    )
    done = subprocess.run(
        ["git", *who, *words], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository(root: Path, files: Mapping[str, str], *, branch: str = "main") -> Path:
    """A repository with one commit."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "--quiet", f"--initial-branch={branch}")
    write(root, files)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "-m", "first")
    return root


def push(
    place: Path,
    source: Path,
    new: Tree,
    old: Tree | None,
    *,
    identity: str = "one",
    formerly: str = "",
) -> Script:
    """What `rvstate run` would send to bring `place` from `old` to `new`."""
    from rvstate import archive

    change = difference(old or Tree(()), new)
    lists: dict[str, tuple[str, ...]] = {}
    if old is None or not change.same_paths:
        lists["files"] = tuple(f"./{file.path}" for file in new.files)
    if old is not None:
        lists["changed"] = tuple(f"./{file.path}" for file in change.changed)
        lists["deleted"] = tuple(f"./{path}" for path in change.deleted)
        lists["emptied"] = tuple(f"./{path}" for path in change.emptied)
    payload = archive.pack(str(source), change.changed, lists)
    state = "-" if old is None else old.state
    args = (str(place / "lock"), "5", str(place), state, new.state, identity, formerly)
    return Script("push", args, payload)


# What a run does not come out of.
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


def until(
    what: Callable[[], object], seconds: float = 180, witness: Callable[[], object] | None = None
) -> None:
    """Wait until a call gives something true; an AssertionError after so many seconds.

    Args:
        what: The call.
        seconds: How long.
        witness: Asked what there is instead, when the time is over.
    """
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, ("it never came true", witness() if witness else None)
        time.sleep(0.3)


def program(name: str) -> str:
    """Where a program that the tests need is."""
    found = shutil.which(name)
    assert found, f"{name} is needed by these tests"
    return found


class Laptop:
    """A machine with rvstate on it and a project in front of the user."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.root = root
        self.home = root / "rv"
        self.home.mkdir(parents=True, mode=0o700)
        if config:
            (self.home / "config.toml").write_text(config)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("RVSTATE_")}
        self.env |= {"RVSTATE_HOME": str(self.home), "GIT_CONFIG_GLOBAL": "/dev/null"}
        # nothing in the background
        self.env["RVSTATE_SCRATCH_KEEPALIVE_SCHEDULE"] = "none"

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start one rvstate command without a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "rvstate", *words],
            cwd=cwd or self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )

    def run(
        self, *words: str, cwd: Path | None = None, status: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run one rvstate command to its end, which must have this exit status (None: any)."""
        process = self.start(*words, cwd=cwd)
        out, err = process.communicate(timeout=180)
        done = subprocess.CompletedProcess(words, process.returncode, out, err)
        assert status is None or done.returncode == status, (words, done.returncode, out, err)
        return done

    def document(self, *words: str, cwd: Path | None = None) -> dict[str, Any]:
        """The JSON document of one command."""
        found: dict[str, Any] = json.loads(self.run(*words, "--json", cwd=cwd).stdout)
        return found

    def submit(self, *words: str, cwd: Path) -> dict[str, Any]:
        """The JSON document of `rvstate run OPTION... -- COMMAND...`, given as one list."""
        done = self.run("run", "--json", *words, cwd=cwd)
        found: dict[str, Any] = json.loads(done.stdout)
        return found | {"said": done.stderr}

    def state(self, run_id: str) -> str:
        """What `ps` says of a run."""
        runs = self.document("ps")["runs"]
        return next((str(run["state"]) for run in runs if run["run_id"] == run_id), "ABSENT")

    def await_state(self, run_id: str, *states: str) -> str:
        """Wait until a run is in one of these states; say what it left behind if it never is."""
        end = time.monotonic() + 300
        while (state := self.state(run_id)) not in states:
            if state in OVER or time.monotonic() > end:
                logs = [self.run("logs", *kind, run_id, status=None) for kind in ((), ("--err",))]
                raise AssertionError((run_id, state, *((x.stdout, x.stderr) for x in logs)))
            time.sleep(0.3)
        return state


class Terminal:
    """`rvstate up`, or another command, in a terminal of its own."""

    def __init__(self, laptop: Laptop, cwd: Path, *words: str, command: str = "up") -> None:
        self.seen = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(
                sys.executable, [sys.executable, "-m", "rvstate", command, *words], laptop.env
            )

    def read(self, seconds: float) -> bool:
        """Take what comes; False at the end."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            self.seen += os.read(self.master, 4096)
        except OSError:
            return False
        return True

    def expect(self, what: str, typed: str = "") -> str:
        """Wait for a text and type an answer; what came before it is given back, and forgotten."""
        end = time.monotonic() + 90
        while what.encode() not in self.seen:
            assert self.read(1), self.seen
            assert time.monotonic() < end, self.seen
        before, _, self.seen = self.seen.partition(what.encode())
        os.write(self.master, typed.encode())
        return before.decode()

    def end(self) -> tuple[int, str]:
        """Its exit code and the last that it said."""
        end = time.monotonic() + 60
        while self.read(1):
            assert time.monotonic() < end, self.seen
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.seen.decode()

    def die(self) -> None:
        """The laptop goes away."""
        os.kill(self.pid, 9)
        os.close(self.master)
        os.waitpid(self.pid, 0)
