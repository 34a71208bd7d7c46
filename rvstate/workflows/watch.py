"""`sync push` whenever the tree changes.

The tree is looked at as a push looks at it, by git and with what the last look saw, so what would
not be sent does not count, and no system's notifications can be lost, overflow or be missing (they
are on network file systems).  Each push is a `sync push` of its own, so settings count as they are
by then, and days of watching leave nothing behind in this process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rvstate import git, process
from rvstate.errors import (
    EXIT_FAILED,
    EXIT_NOT_AUTHENTICATED,
    EXIT_REFUSED,
    EXIT_USAGE,
    RvstateError,
)
from rvstate.transport import Ssh
from rvstate.workflows.session import Session

POLL = 1.0  # seconds between two looks at a quiet tree
QUIET = 0.4  # seconds in which nothing may change before a push
LONGEST = 10.0  # seconds after which a tree that never rests is pushed all the same
FAILING = 5  # looks in a row that must fail before that is told
_SHARE = 10  # a look at a large tree takes at most that part of the time ...
_RAREST = 10.0  # ... but comes after so many seconds at the latest
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts to reach the cluster

State = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push: what was sent and removed, and where the code is.

    Args:
        state: Branch and state of the tree that was sent, which may be older than the tree by now.
        sent: Paths below the project's root.
        removed: Paths that are not there any more.
        code: The directory on the cluster.
    """

    state: State
    sent: tuple[str, ...]
    removed: tuple[str, ...]
    code: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something failed.

    Args:
        message: What, in one sentence.
        remedy: What to do; may be empty.
        status: The exit code of that trouble.
        pause: Seconds until the next attempt; None where only a change (or, where a login is
            needed, that login) can help.
    """

    message: str
    remedy: str
    status: int
    pause: float | None = None


class Clock:
    """The time, and waiting for it; tests bring their own."""

    def now(self) -> float:
        """Seconds, by a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def look(session: Session, directory: Path) -> State:
    """The branch and the state of what would be sent, as of now."""
    project = git.inspect(directory, dict(session.state.firsts()))
    seen = session.state.seen(project.root)
    scan = git.scan(project, seen)
    if scan.seen != seen:
        session.state.keep_seen(project.root, scan.seen)
    return project.branch_component, scan.tree.state


def push(options: tuple[str, ...], attended: bool) -> Pushed | Trouble:
    """Push once, by a process of its own.

    Args:
        options: Which account, as command-line options.
        attended: Whether a person may be asked for a login.
    """
    status, text = process.output_of(("sync", "push", "--json", *options), attended)
    try:
        found = json.loads(text)
        if "error" in found:
            return Trouble(found["error"]["message"], found["error"]["remedy"], status)
        state = (found["branch"], found["state"])
        return Pushed(state, tuple(found["sent"]), tuple(found["removed"]), found["code"])
    except (ValueError, KeyError):
        return Trouble(f"The push ended without a word (exit code {status}).", "", status)


def login_is_there(session: Session) -> bool:
    """Whether the shared connection is up; asks this machine only, so that nobody is rung up."""
    return not isinstance(session.transport, Ssh) or session.transport.connected()


def watch(
    look: Callable[[], State],
    push: Callable[[bool], Pushed | Trouble],
    logged_in: Callable[[], bool],
    clock: Clock,
) -> Iterator[Pushed | Trouble]:
    """Push now and after every change; ends only where the first push fails.

    Args:
        look: The state of the tree; may fail while git or an editor is in the middle of something.
        push: Pushes once; a person may be asked for a login only the first time.
        logged_in: Whether a connection that needed a person is there again.
        clock: The time.

    Yields:
        Each push that sent or removed something, the first one, and each trouble.
    """
    first = push(True)
    yield first
    if isinstance(first, Trouble):
        return
    done, pause, failed = first.state, _FIRST_PAUSE, 0
    while True:
        began = clock.now()
        state = _look(look)
        if isinstance(state, Trouble):
            failed += 1
            if failed == FAILING:
                yield state
            clock.sleep(POLL)
            continue
        failed = 0
        if state == done:
            took = clock.now() - began
            clock.sleep(min(max(POLL, _SHARE * took), _RAREST))
            continue
        state = _quiet(look, clock, state)
        # what changes from here on differs from what is sent, and is seen by the next look
        found = push(False)
        if isinstance(found, Pushed):
            done, pause = found.state, _FIRST_PAUSE
            if found.sent or found.removed:
                yield found
        elif found.status in (EXIT_REFUSED, EXIT_USAGE):
            done = state
            yield found
        elif found.status == EXIT_NOT_AUTHENTICATED:
            yield found
            while not logged_in():
                clock.sleep(POLL)
        else:
            # the first time, waiting is the remedy
            remedy = found.remedy if pause > _FIRST_PAUSE else ""
            yield Trouble(found.message, remedy, found.status, pause)
            clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _look(look: Callable[[], State]) -> State | Trouble:
    try:
        return look()
    except RvstateError as error:
        return Trouble(error.message, error.remedy, error.exit_code)
    except OSError as error:
        return Trouble(f"The project cannot be read: {error}.", "", EXIT_FAILED)


def _quiet(look: Callable[[], State], clock: Clock, state: State) -> State:
    """Wait until nothing changes any more; what an editor saves in several steps is one change."""
    end = clock.now() + LONGEST
    while clock.now() < end:
        clock.sleep(QUIET)
        again = _look(look)
        if again == state:
            break
        if not isinstance(again, Trouble):
            state = again
    return state
