"""What is found, in words; pure."""

from __future__ import annotations

import posixpath

from rvstate.model.observed import Absent, Entry, Present, Unreadable
from rvstate.shell import quote


def describe(entry: Entry) -> str:
    """What an entry is, in words."""
    match entry:
        case Absent():
            return "absent"
        case Unreadable(door):
            return f"behind {door}, which may not be entered"
        case Present(type="l", target=target):
            return f"a link to {target}"
        case Present(type="d", mode=mode):
            return f"a directory, mode {mode:04o}"
        case Present(type="f", mode=mode):
            return f"a file, mode {mode:04o}"
        case _:
            return "a special file"


def destination(path: str, link: Present) -> str:
    """Where a link's own text leads: absolute, and without `.`, `..` and doubled slashes."""
    absolute = posixpath.normpath(posixpath.join(posixpath.dirname(path), link.target))
    return "/" + absolute.lstrip("/")


def move_away(path: str) -> str:
    """How to make room where something of the user's is in the way."""
    return f"move it away: mv {quote(path)} {quote(path + '.mine')}"
