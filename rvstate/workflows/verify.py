"""Walk what rvstate keeps on scratch and compare it with its manifests; no pyinfra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rvstate import desired
from rvstate.errors import RvstateError
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.model.verified import Verified
from rvstate.script import Script
from rvstate.workflows.session import Session


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk came to.

    Args:
        label: The account, for people.
        found: Each thing that was walked.
        remote_commands: How many remote commands it took.
        stamped: Whether the dates of the verification could be written.
    """

    label: str
    found: tuple[Verified, ...]
    remote_commands: int
    stamped: bool = True

    @property
    def damaged(self) -> tuple[Verified, ...]:
        """What is to be mended."""
        return tuple(thing for thing in self.found if thing.state == "damaged")


def verify(session: Session, tell: Callable[[str], None]) -> Verification:
    """Walk all of it with one remote command.

    Args:
        session: Which account.
        tell: Told what is being walked, in a few words.

    Raises:
        RvstateError: The walk did not come to its end.
    """
    tell(f"walking what is kept at {session.label}")
    reading = Reading(tell)
    status = session.transport.stream(script(session), None, reading.feed)
    if status != 0:
        raise RvstateError(
            f"The walk over {session.label} ended early.", "Run `rvstate verify` again."
        )
    return Verification(
        session.label, tuple(reading.found), session.transport.commands, reading.stamped
    )


def script(session: Session) -> Script:
    """The one remote command of a verification."""
    digest = desired.env_file(Layout(SYMBOLIC), session.state.variables()).digest
    library = desired.script_set(Layout(SYMBOLIC)).path.name
    return Script("verify", (session.scratch, session.home, digest, library))


class Reading:
    """The answer of `remote/verify.sh`, read while it comes.

    Args:
        tell: Told what is walked.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._total = 0
        self.found: list[Verified] = []
        self.stamped = True

    def feed(self, data: bytes) -> None:
        """Take what came."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, _, value = line.decode("utf-8", "surrogateescape").partition(" ")
            self._line(word, value.replace("\x01", "\n"))

    def _line(self, word: str, value: str) -> None:
        if word == "total":
            self._total = int(value)
        elif word == "unstamped":
            self.stamped = False
        elif word == "at":
            kind, _, path = value.partition(" ")
            self.found.append(Verified(kind, path, "unknown"))
            self._tell(f"{len(self.found)} of {self._total}: {kind} {self.found[-1].name}")
        elif self.found:
            self.found[-1] = _with(self.found[-1], word, value)


def _with(thing: Verified, word: str, value: str) -> Verified:
    match word:
        case "missing" | "changed" | "added" | "unreadable":
            example = (word, value.removeprefix("./"))
            return replace(thing, examples=(*thing.examples, example))
        case "count":
            missing, changed, added, unreadable = map(int, value.split())
            return replace(
                thing, missing=missing, changed=changed, added=added, unreadable=unreadable
            )
        case "why":
            return replace(thing, reason=value)
        case "is":
            return replace(thing, state=value)
        case _:
            return thing
