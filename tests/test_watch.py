"""`sync watch`: what is pushed when, by a clock that the tests turn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import pytest

from rvstate.config import load
from rvstate.state import State
from rvstate.transport import Local
from rvstate.workflows import watch
from rvstate.workflows.session import Session
from rvstate.workflows.watch import Pushed, Trouble
from tests.runkit import git as run_git
from tests.runkit import repository, write

DROPPED = Trouble("The connection was cut.", "Check the network.", 1)


@dataclass
class World:
    """A tree that changes at given moments, a cluster that may not answer, and a clock.

    A push takes `takes` seconds, and sends what the tree holds when it begins.
    """

    changes: dict[float, str] = field(default_factory=dict)
    answers: list[Trouble | None] = field(default_factory=list)
    takes: float = 0.0
    time: float = 0.0
    there: str = "nothing"
    pushes: list[tuple[float, str]] = field(default_factory=list)
    attended: list[bool] = field(default_factory=list)
    login_at: float = 0.0
    unreadable: Callable[[float], bool] = lambda _: False

    def now(self) -> float:
        """The time."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        assert seconds > 0
        self.time += seconds
        assert self.time < 10_000, "nothing happens any more"

    @property
    def tree(self) -> str:
        """What the tree holds now."""
        past = [text for at, text in self.changes.items() if at <= self.time]
        return past[-1] if past else "first"

    def look(self) -> watch.State:
        """As `watch.look`."""
        if self.unreadable(self.time):
            raise FileNotFoundError(2, "No such file or directory", "HEAD")
        return "main", self.tree

    def push(self, attended: bool) -> Pushed | Trouble:
        """As `watch.push`."""
        self.attended.append(attended)
        sent = self.tree
        self.time += self.takes
        trouble = self.answers.pop(0) if self.answers else None
        if trouble is not None:
            return trouble
        files = () if sent == self.there else (sent,)
        self.there = sent
        self.pushes.append((self.time, sent))
        return Pushed(("main", sent), files, (), "/code")

    def events(self, count: int) -> list[Pushed | Trouble]:
        """The first so many things that happen."""
        logged_in = lambda: self.time >= self.login_at  # noqa: E731 - as short as it can be
        return [*islice(watch.watch(self.look, self.push, logged_in, self), count)]


def test_it_pushes_now_and_when_something_changes() -> None:
    """Soon after the change, and not before."""
    world = World({60: "second"})
    world.events(2)
    assert [text for _, text in world.pushes] == ["first", "second"]
    assert 60 <= world.pushes[1][0] <= 60 + watch.POLL + 2 * watch.QUIET


def test_what_is_saved_in_several_steps_is_pushed_once() -> None:
    """An editor that writes ten files in three seconds makes one push."""
    world = World({60 + n * 0.3: f"step {n}" for n in range(10)})
    world.events(2)
    assert [text for _, text in world.pushes] == ["first", "step 9"]


def test_a_tree_that_never_rests_is_pushed_all_the_same() -> None:
    """A program that writes into it all the time does not keep the rest back for ever."""
    world = World({60 + n * 0.3: f"step {n}" for n in range(1000)})
    world.events(4)
    times = [at for at, _ in world.pushes]
    assert all(b - a <= watch.LONGEST + watch.POLL + 1 for a, b in pairwise(times[1:]))


def test_a_change_during_a_push_is_pushed_next() -> None:
    """Even one that ends where the tree was before: what was sent decides, not when it was."""
    world = World({60: "second", 62: "third"}, takes=5)
    world.events(3)
    assert world.there == "third"

    flipped = World({60: "second", 61.5: "odd", 63: "second"}, takes=5)
    sent: list[str] = []
    push = flipped.push

    def late(attended: bool) -> Pushed | Trouble:
        # this push reads the tree later than the last look before it
        if len(sent) == 1:
            flipped.time = 62.0
        found = push(attended)
        sent.append(flipped.there)
        return found

    list(islice(watch.watch(flipped.look, late, lambda: True, flipped), 3))
    assert sent == ["first", "odd", "second"]


@pytest.mark.parametrize(("takes", "pause"), [(0.01, 1.0), (0.5, 5.0), (8.0, 10.0)])
def test_a_tree_that_takes_long_to_look_at_is_looked_at_less_often(
    takes: float, pause: float
) -> None:
    """But never so rarely that nobody believes it works."""
    world = World()
    looks: list[float] = []

    def slow() -> watch.State:
        looks.append(world.time)
        world.time += takes
        return world.look()

    with pytest.raises(AssertionError, match="nothing happens"):
        list(islice(watch.watch(slow, world.push, lambda: True, world), 2))
    gaps = {round(b - a, 6) for a, b in pairwise(looks)}
    assert gaps == {round(takes + pause, 6)}


def test_nothing_is_pushed_where_nothing_changes() -> None:
    """A quiet tree costs the cluster nothing."""
    world = World()
    with pytest.raises(AssertionError, match="nothing happens"):
        world.events(2)
    assert len(world.pushes) == 1


def test_a_lost_connection_is_waited_for() -> None:
    """With pauses that grow to a minute; what changed meanwhile goes with the first that works."""
    world = World({60: "second", 200: "third"}, answers=[None, *[DROPPED] * 9])
    events = world.events(11)
    pauses = [event.pause for event in events if isinstance(event, Trouble)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert world.there == "third"
    assert len(world.pushes) == 2
    # the first time, waiting is the remedy
    assert [e.remedy for e in events if isinstance(e, Trouble)][:2] == ["", DROPPED.remedy]


def test_the_pause_begins_anew_after_a_push() -> None:
    """The next trouble is another one."""
    answers = [None, DROPPED, DROPPED, None, DROPPED, None]
    world = World({60: "second", 300: "third"}, answers=answers)
    events = world.events(6)
    assert [e.pause for e in events if isinstance(e, Trouble)] == [1, 2, 1]


@pytest.mark.parametrize("status", [3, 64])
def test_what_only_a_change_can_mend_waits_for_one(status: int) -> None:
    """A refusal, or settings that are wrong, are told once and not asked again and again."""
    world = World({60: "bad", 500: "good"}, answers=[None, Trouble("No.", "Mend it.", status)])
    events = world.events(3)
    assert events[1] == Trouble("No.", "Mend it.", status)
    assert [text for _, text in world.pushes] == ["first", "good"]


def test_a_login_is_waited_for_without_asking_the_cluster() -> None:
    """Nobody's telephone rings: this machine alone knows when the login is there."""
    answers = [None, Trouble("It wants a login.", "Run `rvstate login`.", 75)]
    world = World({60: "second"}, answers=answers, login_at=4000)
    world.events(3)
    assert [round(at) >= 4000 for at, _ in world.pushes] == [False, True]
    # a person may be asked only at the beginning
    assert world.attended == [True, False, False]


@pytest.mark.parametrize("status", [1, 3, 64, 75])
def test_a_first_push_that_fails_ends_it(status: int) -> None:
    """Whoever started it is there to be told."""
    world = World(answers=[Trouble("No.", "", status)])
    assert world.events(5) == [Trouble("No.", "", status)]


def test_a_look_that_fails_in_passing_is_not_told() -> None:
    """While git checks something out, files come and go."""
    world = World({62: "second"}, unreadable=lambda now: 60 < now < 63)
    assert [type(event) for event in world.events(2)] == [Pushed, Pushed]


def test_a_look_that_goes_on_failing_is_told_once() -> None:
    """And looking goes on."""
    world = World({95: "second"}, unreadable=lambda now: 60 < now < 100)
    events = world.events(3)
    assert [type(event) for event in events] == [Pushed, Trouble, Pushed]
    assert isinstance(events[1], Trouble)
    assert "HEAD" in events[1].message


def session(folder: Path) -> Session:
    """One that nobody answers."""
    return Session(load(), Local(folder), State(folder / "rv"))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.setenv("RVSTATE_HOME", str(tmp_path / "rv"))


def test_only_what_would_be_sent_counts(tmp_path: Path) -> None:
    """Ignored files do not, by .gitignore or .rvignore; a branch and a mode do."""
    app = repository(tmp_path / "app", {"a.py": "1", ".gitignore": "*.log\n"})
    here = session(tmp_path)
    first = watch.look(here, app)
    write(app, {"x.log": "noise"})
    assert watch.look(here, app) == first
    write(app, {"data.bin": "big", ".rvignore": "data.bin\n"})
    ignoring = watch.look(here, app)
    write(app, {"data.bin": "bigger"})
    assert watch.look(here, app) == ignoring != first
    (app / "a.py").chmod(0o755)
    executable = watch.look(here, app)
    assert executable != ignoring
    run_git(app, "switch", "--quiet", "--create", "other")
    assert watch.look(here, app)[0] == "other"
    assert watch.look(here, app)[1] == executable[1]


def test_a_file_written_again_with_the_same_size_and_date_is_seen(tmp_path: Path) -> None:
    """Contents decide."""
    app = repository(tmp_path / "app", {"a.py": "1"})
    here = session(tmp_path)
    first = watch.look(here, app)
    dates = (app / "a.py").stat()
    write(app, {"a.py": "2"})
    os.utime(app / "a.py", ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert watch.look(here, app) != first


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (
            64,
            b'{"schema": 1, "error": {"message": "No.", "remedy": "Do.", "exit_code": 64}}',
            "No.",
        ),
        (-9, b"", "without a word"),
        (1, b"nonsense", "without a word"),
        (0, b'{"schema": 1}', "without a word"),
    ],
)
def test_what_a_push_says_is_read(
    monkeypatch: pytest.MonkeyPatch, status: int, text: bytes, message: str
) -> None:
    """An error is told as it is; a process that was killed is an error too, never a push."""
    monkeypatch.setattr(watch.process, "output_of", lambda *_: (status, text))
    found = watch.push((), attended=False)
    assert isinstance(found, Trouble)
    assert message in found.message
    assert found.status == status


def test_ctrl_c_during_a_push_leaves_no_process() -> None:
    """It is waited for; what does not end by itself is ended."""
    program = """
import os, signal, sys, threading
from rvstate import process
process._GRACE = 0.2
real = process.subprocess.Popen
def deaf(argv, **more):
    child = real(["/bin/sh", "-c", "trap '' INT; exec sleep 60"], **more)
    print(child.pid, flush=True)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    return child
process.subprocess.Popen = deaf
try:
    process.output_of(("sync", "push"), False)
except KeyboardInterrupt:
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout.split()[0]), 0)
