"""Where bytes and inodes are, against what the site allows; one remote command, no pyinfra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rvstate.errors import RvstateError
from rvstate.script import Script
from rvstate.workflows import questions
from rvstate.workflows.questions import Storage
from rvstate.workflows.session import Session


@dataclass(frozen=True, slots=True)
class Place:
    """What one place takes.

    Args:
        kind: `code`, `environment`, `cache`, or a directory of rvstate's own.
        name: Project and branch, or the cache's name; empty where there is only one.
        path: Relative to scratch.
        size: Bytes on disk.
        inodes: Files, directories and links.
    """

    kind: str
    name: str
    path: str
    size: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What there is.

    Args:
        label: The account, for people.
        places: The largest first.
        storage: How full the user's file systems are, by the site's own tool where it has one.
        unreadable: How many directories could not be read, so that the figures are too small.
        remote_commands: How many remote commands it took.
    """

    label: str
    places: tuple[Place, ...]
    storage: tuple[Storage, ...]
    unreadable: int
    remote_commands: int


def usage(session: Session, tell: Callable[[str], None]) -> Usage:
    """Walk all of it with one remote command, and ask the site's tool beside it.

    Raises:
        RvstateError: The account could not be walked.
    """
    tell(f"counting at {session.label}")
    walk = Script("usage", (session.scratch, session.home), public=True)
    answers = questions.ask(session, {"usage": walk.text, **questions.storage_questions(session)})
    answer = answers["usage"].framed
    if answer is None or answer.status != 0:
        raise RvstateError(
            "What is on scratch could not be counted.", "Run `rvstate doctor`, then try again."
        )
    places, unreadable = read(answer.first("places") or answer.body)
    return Usage(
        session.label,
        places,
        questions.storage(answers),
        unreadable,
        session.transport.commands,
    )


def read(body: bytes) -> tuple[tuple[Place, ...], int]:
    """The places and the number of unreadable directories that `remote/usage.sh` tells of."""
    places, unreadable = [], 0
    for line in body.decode("utf-8", "surrogateescape").splitlines():
        size, _, rest = line.partition(" ")
        inodes, _, path = rest.partition(" ")
        if size == "unreadable":
            unreadable = int(inodes)
        elif size.isdigit() and inodes.isdigit():
            places.append(Place(*_named(path), path, int(size), int(inodes)))
    return tuple(sorted(places, key=lambda place: (-place.size, place.path))), unreadable


def _named(path: str) -> tuple[str, str]:
    match path.split("/"):
        case ["rv-workspaces", project, branch]:
            return "code", f"{project}/{branch}"
        case [".rv", "envs", project, ".generations", branch]:
            return "environment", f"{project}/{branch}"
        case [".cache", *name]:
            return "cache", "/".join(name)
        case [*_, name]:
            return name, ""
    raise AssertionError(path)
