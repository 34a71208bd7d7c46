"""A command on the login node, as if it ran here."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from rvstate.errors import ConfigError, CutError
from rvstate.script import Script
from rvstate.workflows.session import Session


def execute(session: Session, command: Sequence[str], *, terminal: bool = False) -> int:
    """Run it; its input, output and errors are ours.

    Args:
        session: Which account.
        command: One word is a line of shell; several are a program and its arguments.
        terminal: Whether it gets a terminal of its own.

    Returns:
        Its exit status.

    Raises:
        ConfigError: The command is empty.
        RvstateError: The account cannot be reached, or the connection was cut.
    """
    if not command or not command[0].strip():
        raise ConfigError("There is no command to run.", "For example: rvstate exec squeue --me")
    form = "string" if len(command) == 1 else "words"
    script = Script("execute", (form, *command))
    with users_own():
        if terminal:
            return session.transport.terminal(script)
        return session.transport.stream(script, standard_input(), show)


@contextlib.contextmanager
def users_own() -> Iterator[None]:
    """What runs in the block is the user's own: nobody here knows whether it may be repeated."""
    try:
        yield
    except CutError as error:
        raise CutError(
            error.message, "What was started may still run there: look before you start it again."
        ) from error


def standard_input() -> int | None:
    """The descriptor of our own standard input; None where there is none."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, ValueError, OSError):
        return None  # there is none: closed, or a test's


def show(data: bytes) -> None:
    """Write to our own standard output, whole and at once."""
    while data:
        data = data[os.write(1, data) :]
