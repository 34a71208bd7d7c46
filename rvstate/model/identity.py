"""By what a project is known again: clones are one project, namesakes are not; pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

# scheme://user:password@host:port/path
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@]*@)?(\[[^\]]+\]|[^/:]+)(?::\d*)?/(.*)", re.S)
# user@host:path, which is none where a slash stands before the colon (git-clone(1), "GIT URLS")
_SCP = re.compile(r"(?:[^/:@]*@)?([^/:]{2,}):(.*)", re.S)


def normalised(url: str) -> str | None:
    """`host/path` of a remote's URL, the same for every way of writing it; None for a local path.

    Neither scheme, login nor port tell repositories of one server apart, and a login may be secret.
    """
    found = None if url.startswith("file:") else _URL.fullmatch(url) or _SCP.fullmatch(url)
    if found is None:
        return None
    path = re.sub(r"/+", "/", found[2]).strip("/").removeprefix("~/").removesuffix(".git")
    return f"{found[1].lower()}/{path.rstrip('/')}" if path else None


def identities(urls: Iterable[str], first: str | None, prefix: str) -> tuple[str, ...]:
    """What a repository is known by, each a digest; nothing where it has neither commit nor remote.

    A shallow clone does not know the first commit, a copy without remotes no URL: one in common is
    enough.

    Args:
        urls: Its remotes' URLs.
        first: The first commit of its line of history, or None where that is not known.
        prefix: Where in the repository the project lies.
    """
    names = sorted({name for name in map(normalised, urls) if name is not None})
    return tuple(digest(f"{name} {prefix}") for name in ([first] if first else []) + names)


def digest(text: str) -> str:
    """One identity, as it is kept beside the code on the cluster."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
