"""A command on the login node, as if it ran here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rvstate.errors import ConfigError
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
    if terminal:
        return session.transport.terminal(script)
    return session.transport.stream(script, standard_input(), show)


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
