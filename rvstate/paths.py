"""Absolute paths on the cluster, and names made safe for one path component."""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata

from rvstate.errors import ConfigError

_MAX_COMPONENT = (
    80  # documented length of a branch directory (configuration, "workspace isolation")
)


class RemotePath(str):
    """An absolute POSIX path without control characters, as text.

    `~` and `$HOME` are not expanded anywhere in rvstate: quoting them would kill their meaning, so
    the home directory is resolved once, by the look.

    Raises:
        ConfigError: The text is relative, or holds a control character.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> RemotePath:
        """Check the text and take out `//`, `.` and `..`."""
        if not text.startswith("/"):
            raise ConfigError(f"{text!r} is not an absolute path.", "Write it from / on.")
        if any(unicodedata.category(c) == "Cc" for c in text):
            raise ConfigError(
                f"The path {text!r} holds a control character.", "Rename the file or directory."
            )
        normal = posixpath.normpath(text)
        return super().__new__(cls, "/" + normal.lstrip("/"))

    def __truediv__(self, part: str) -> RemotePath:
        return RemotePath(posixpath.join(self, part.lstrip("/")))

    @property
    def name(self) -> str:
        """The last component."""
        return posixpath.basename(self)

    @property
    def parent(self) -> RemotePath:
        """The directory above."""
        return RemotePath(posixpath.dirname(self))

    def is_below(self, other: str) -> bool:
        """Whether this path is `other` or inside it."""
        above = other.rstrip("/")
        return self == (above or "/") or self.startswith(above + "/")


def component(name: str) -> str:
    """Make one safe path component out of a project or branch name.

    `/` becomes `--`, other characters than letters, digits, `.`, `_`, `-` are dropped, and at most
    80 characters remain.  The result is injective: where something was dropped or cut, or where a
    name holds `--` itself, `-x` and a short digest of the full name are appended; a name that ends
    like that by itself, or looks like a detached HEAD's directory, gets a digest as well.  (A
    digest without the `x` would be mistaken for the date in `exp-20240115`, and the other way
    round.)

    Args:
        name: Any text, for example `feature/foo`.

    Returns:
        For example `feature--foo`; never empty, never starting with `-` or `.`.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "", name.replace("/", "--")).lstrip("-.")
    reversible = "--" not in name and safe.replace("--", "/") == name
    plain = safe and len(safe) <= _MAX_COMPONENT and not safe.endswith("-") and safe != "_default"
    taken = safe.startswith("detached-") or re.search(r"(?:\A|-)x[0-9a-f]{8}\Z", safe)
    if reversible and plain and not taken:
        return safe
    # surrogatepass, unlike surrogateescape, gives every text bytes of its own.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[: _MAX_COMPONENT - 10]}-x{digest}".lstrip("-")
