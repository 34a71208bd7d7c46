"""What every way to an account has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rvstate.errors import CutError, ProbeError
from rvstate.script import Answer, Input, Script

LOCAL = "@local"


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished remote command: exit status, standard output, standard error."""

    status: int
    output: bytes
    errors: str


class Running(Protocol):
    """A command under way."""

    def result(self, timeout: float | None = None) -> Completed:
        """Wait for its end; `timeout` in seconds."""

    def cancel(self) -> None:
        """End it here; whoever began it does not want its answer any more."""


class Transport(Protocol):
    """A way to an account."""

    name: str
    commands: int
    heard: Callable[[str], None] | None
    """Told each line that a command of `execute` says on standard error, while it runs."""

    def begin(self, script: Script) -> Running:
        """Start a script and come back at once."""

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for a script that was begun."""

    def run(self, script: Script) -> Answer:
        """Run a script to its end."""

    def execute(self, command: str, data: bytes | Input = b"") -> Completed:
        """Run one command line of a POSIX shell with `data` on its standard input."""

    def stream(self, script: Script, source: int | None, sink: Callable[[bytes], object]) -> int:
        """Run a script that shows what it does as it happens; see `Ssh.stream`."""

    def terminal(self, script: Script) -> int:
        """Run a script with a terminal of its own; see `Ssh.terminal`."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that already ended, in the place of one under way."""

    done: Completed

    def result(self, timeout: float | None = None) -> Completed:
        """What it came to."""
        return self.done

    def cancel(self) -> None:
        """It has ended already."""


def nothing_ran(host: str, said: str) -> ProbeError:
    """The error for a login node that ran no command, with what came instead."""
    lines = said.strip().splitlines()
    return ProbeError(
        f"{host} ran no command for us; it said: {lines[-1] if lines else '(nothing)'}",
        f"Check that `ssh {host} true` works and that the account has a login shell.",
    )


def whole_text(done: Completed) -> str:
    """Both outputs of a command, for people."""
    return done.output.decode("utf-8", "replace") + done.errors


def cut(host: str) -> CutError:
    """The error for a connection that ended before its command did."""
    return CutError(
        f"The connection to {host} was cut in the middle.",
        "Run the command again: every step can be repeated.",
    )
