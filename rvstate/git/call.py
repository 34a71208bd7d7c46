"""Asking the program git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from rvstate.errors import ConfigError


def ask(root: Path, *words: str, quiet: bool = False, data: bytes = b"", none: int = 0) -> str:
    """What git prints; nothing where it fails and `quiet`.

    Args:
        root: Where it is asked.
        words: What it is asked.
        quiet: Whether a failure says nothing.
        data: Its standard input.
        none: The exit status that is no failure either.

    Raises:
        ConfigError: git is missing or failed.
    """
    try:
        # core.quotePath and the like do not matter: names are asked for with -z
        done = subprocess.run(
            ["git", *words],
            cwd=root,
            env=environment(),
            input=data,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        if quiet:
            return ""
        raise ConfigError(
            "The program git is not on this machine.", "Install git, then run this again."
        ) from None
    if done.returncode not in (0, none):
        if quiet:
            return ""
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConfigError(f"git {words[0]} failed in {root}: {said}", "Mend the repository.")
    return done.stdout.decode("utf-8", "surrogateescape")


def names(root: Path, *words: str) -> list[str]:
    """The names that git prints with `-z`, as `ask`."""
    return [name for name in ask(root, *words).split("\0") if name]


def environment() -> dict[str, str]:
    """The variables that git is to have, so that it answers for the repository that is asked."""
    # neither a user's language nor a hook's variables may change what is printed
    kept = {k: v for k, v in os.environ.items() if k not in _GIT_VARIABLES}
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


# Set while git runs a hook, they would point every question at that hook's repository (git(1)).
_GIT_VARIABLES: frozenset[str] = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}
)
