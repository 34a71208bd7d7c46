"""An allocation held for people: it ends when they left, and some time after they vanished."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rvstate import assets, holding

Until = Callable[..., None]
NODE = os.uname().nodename


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run's directory, and our scripts."""
    for name in ("lib", "rv/logs", "run", "snapshot", "home"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("job", "inside", "hold"):
        (tmp_path / f"lib/{name}.sh").write_text(assets.job_scripts()[f"{name}.sh"])
    steps = (
        f". {tmp_path}/lib/job.sh || exit 1",
        f"rv_begin {tmp_path}/rv {tmp_path}/run rv-up",
        f"rv_directory {tmp_path}/snapshot '' ''",
        "rv_enter",
    )
    (tmp_path / "run/job.sh").write_text("\n".join(steps) + "\n")
    return tmp_path


@pytest.fixture(params=["sh", "bash"])
def hold(request: pytest.FixtureRequest, place: Path) -> Iterator[Callable[..., Holder]]:
    """Starts the holder."""
    made: list[Holder] = []

    def start(patience: int, mode: str = "end", idle: int = 1800) -> Holder:
        words = (str(place / "run"), str(patience), mode, str(idle))
        argv = [request.param, str(place / "lib/hold.sh"), *words]
        made.append(Holder(place, subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)))
        return made[-1]

    yield start
    for holder in made:
        holder.process.kill()
        holder.process.wait()


class Holder:
    """A holder under way."""

    def __init__(self, place: Path, process: subprocess.Popen[str]) -> None:
        self.place = place
        self.process = process

    @property
    def word(self) -> str:
        """What it says."""
        state = self.place / "run/hold/state"
        found = holding.read(state.read_text()) if state.exists() else None
        return found.word if found is not None else ""


class Visitor:
    """Somebody in a shell of the job, on a terminal of their own."""

    def __init__(self, place: Path) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            env = {"PATH": os.environ["PATH"], "HOME": str(place / "home"), "RV_JOB_ID": "41"}
            argv = ["bash", str(place / "lib/inside.sh"), str(place / "run"), "shell", "dumb"]
            os.execvpe("bash", argv, env)

    def type(self, line: str) -> None:
        """Type a line, once the shell has asked for one."""
        seen = b""
        while not seen.endswith((b"# ", b"$ ")):
            assert select.select([self.master], [], [], 30)[0], seen
            seen += os.read(self.master, 1024)
        os.write(self.master, line.encode() + b"\n")

    def vanish(self) -> None:
        """The connection goes away: the terminal is hung up."""
        os.close(self.master)

    def status(self) -> int:
        """Its exit status, at its end."""
        end = time.monotonic() + 30
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            assert time.monotonic() < end, "the shell did not end"
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(found[1])


def test_leaving_the_shell_ends_it(place: Path, hold: Callable[..., Holder], until: Until) -> None:
    """At once and without an error, whatever the shell's own status was."""
    holder = hold(600)
    until(lambda: holder.word == "ready", "ready")
    visitor = Visitor(place)
    until(lambda: holder.word == "inside", "inside")
    visitor.type("exit 7")
    assert visitor.status() == 7
    assert holder.process.wait(30) == 0


def test_a_lost_connection_ends_it_after_a_while(
    place: Path, hold: Callable[..., Holder], until: Until
) -> None:
    """It waits for somebody to come back, and says when it ends; then it ends, and says why."""
    holder = hold(3)
    until(lambda: holder.word == "ready", "ready")
    visitor = Visitor(place)
    until(lambda: holder.word == "inside", "inside")
    visitor.vanish()
    visitor.status()
    until(lambda: holder.word == "lost", "lost")
    assert not (place / "run/hold/left").exists()
    _, errors = holder.process.communicate(timeout=30)
    assert holder.process.returncode == 0
    assert "nobody was inside for 3 seconds" in errors


def test_who_comes_back_is_waited_for(
    place: Path, hold: Callable[..., Holder], until: Until
) -> None:
    """And a shell that is killed is no shell that was left."""
    holder = hold(600)
    until(lambda: holder.word == "ready", "ready")
    first = Visitor(place)
    until(lambda: holder.word == "inside", "inside")
    os.kill(first.pid, 9)
    first.vanish()
    first.status()
    until(lambda: holder.word == "lost", "lost")
    second = Visitor(place)
    until(lambda: holder.word == "inside", "inside")
    second.type("exit")
    assert second.status() == 0
    assert holder.process.wait(30) == 0


def test_somebody_who_types_nothing_is_told_apart(
    place: Path, hold: Callable[..., Holder], until: Until
) -> None:
    """A laptop may have vanished without a word; the first letter says that it has not."""
    holder = hold(600, "end", 12)
    until(lambda: holder.word == "ready", "ready")
    visitor = Visitor(place)
    until(lambda: holder.word == "inside", "inside")
    until(lambda: holder.word == "idle", "idle", 60)
    visitor.type("true")
    until(lambda: holder.word == "inside", "inside again")
    visitor.type("exit")
    visitor.status()
    assert holder.process.wait(30) == 0


def test_it_goes_on_while_somebody_else_is_inside(
    place: Path, hold: Callable[..., Holder], until: Until
) -> None:
    """The last shell that is left ends it, not the first."""
    holder = hold(600)
    until(lambda: holder.word == "ready", "ready")
    one, two = Visitor(place), Visitor(place)
    marks = lambda: list((place / "run/hold").glob("in.*"))  # noqa: E731
    until(lambda: len(marks()) == 2, "both are inside")
    one.type("exit")
    one.status()
    until(lambda: not (place / "run/hold/left").exists(), "somebody is still inside")
    assert holder.process.poll() is None
    two.type("exit")
    two.status()
    assert holder.process.wait(30) == 0


def test_nobody_ever_came(hold: Callable[..., Holder]) -> None:
    """The laptop went away while the job waited."""
    holder = hold(1)
    _, errors = holder.process.communicate(timeout=30)
    assert holder.process.returncode == 0
    assert "nobody was inside" in errors


def test_kept_on_purpose(place: Path, hold: Callable[..., Holder], until: Until) -> None:
    """Leaving ends nothing, and that is said."""
    holder = hold(600, "keep")
    until(lambda: holder.word == "ready", "ready")
    visitor = Visitor(place)
    until(lambda: holder.word == "inside", "inside")
    visitor.type("exit")
    visitor.status()
    until(lambda: holder.word == "kept", "kept")
    assert holder.process.poll() is None


def test_a_requeued_job_begins_anew(place: Path, hold: Callable[..., Holder], until: Until) -> None:
    """What an earlier attempt left behind neither ends nor keeps it."""
    (place / "run/hold").mkdir()
    (place / "run/hold/left").write_text("0\n")
    (place / f"run/hold/in.{NODE}.1").write_text("")
    holder = hold(600)
    until(lambda: holder.word == "ready", "ready")
    assert not list((place / "run/hold").glob("in.*"))
    assert holder.process.poll() is None


def test_in_a_run_that_is_not_held_nothing_is_left_behind(place: Path) -> None:
    """`rvstate ssh` into any other run."""
    visitor = Visitor(place)
    visitor.type("exit 3")
    assert visitor.status() == 3
    assert not (place / "run/hold").exists()
