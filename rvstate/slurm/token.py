"""A job's comment: the token that says which run it is, and the user's own words behind it."""

from __future__ import annotations

import re

from rvstate.errors import ConfigError

_MARK = "rvstate:"
_RUN = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


def comment(run_id: str, words: str = "") -> str:
    """A job's comment: the run's token, and behind it what the user says.

    Args:
        run_id: The run.
        words: As `check` lets them pass.
    """
    return f"{_MARK}{run_id} {words}".rstrip()


def token(text: str) -> str:
    """The token that begins a job's comment; empty where there is none.

    Args:
        text: As squeue prints it.
    """
    first = text.partition(" ")[0]
    return first if first.startswith(_MARK) else ""


def of_run(run_id: str) -> str:
    """The token of a run."""
    return f"{_MARK}{run_id}"


def words(text: str) -> str:
    """What the user says in a job's comment."""
    return text.partition(" ")[2] if token(text) else text


def check(text: str) -> None:
    """Refuse words that could be taken for a token, or that break a row of squeue's.

    Raises:
        ConfigError: They hold a line break or another control character, or the id of a run.
    """
    if not text.isprintable():
        raise ConfigError(
            f"The comment {text!r} holds a character that cannot be printed.", "Remove it."
        )
    if _RUN.search(text):
        raise ConfigError(
            f"The comment {text!r} holds the id of a run, by which rvstate knows its jobs.",
            "Name the run by its job or its name instead.",
        )
