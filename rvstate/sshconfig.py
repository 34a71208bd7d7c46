"""The text of an ssh client configuration: which hosts it names, and our one marked block; pure.

ssh takes the first value that it meets for each keyword (ssh_config(5)), so our block goes to the
top, before any `Host *`, and ends with `Match all`, so that what follows means what it meant.
"""

from __future__ import annotations

import re

from rvstate import rcblock
from rvstate.errors import ConfigError

_HOST = re.compile(r"^[ \t]*host(?:[ \t]+|[ \t]*=[ \t]*)(.*)$", re.I | re.M)
_PLAIN = re.compile(r"[A-Za-z0-9._:@%+-]+")
_LAST = "Match all\n"


def aliases(text: str) -> tuple[str, ...]:
    """The names that `Host` lines give, patterns left out, each once."""
    words = (word.strip('"') for line in _HOST.findall(text) for word in line.split())
    return tuple(dict.fromkeys(w for w in words if not re.search(r"[*?!#]", w)))


def with_host(text: str, alias: str, hostname: str, user: str | None) -> str:
    """The whole text with our block naming one host; other hosts in the block stay.

    Args:
        text: The file as it is; everything outside the block stays byte for byte.
        alias: The name after `Host`.
        hostname: The address.
        user: The user's name there, or None to say none.

    Raises:
        ConfigError: A value that cannot stand in such a file.
        RefusedError: The block's markers are damaged.
    """
    for value in filter(None, (alias, hostname, user)):
        if not _PLAIN.fullmatch(value) or value.startswith("-"):
            raise ConfigError(
                f"{value!r} cannot be written into an ssh configuration.",
                "Use letters, digits, dots and dashes.",
            )
    found = rcblock.find(text)
    body = found.body if isinstance(found, rcblock.Block) else ""
    hosts = _hosts(body)
    lines = [f"Host {alias}", f"    HostName {hostname}"]
    hosts[alias] = "\n".join([*lines, *([f"    User {user}"] if user else [])]) + "\n"
    whole = "".join(hosts.values()) + _LAST
    if isinstance(found, rcblock.Missing):
        return rcblock.replace("", whole) + (f"\n{text}" if text else "")
    return rcblock.replace(text, whole)


def _hosts(body: str) -> dict[str, str]:
    pieces = re.split(r"^(?=Host )", body.removesuffix(_LAST), flags=re.M)
    return {p.split("\n", 1)[0].removeprefix("Host ").strip(): p for p in pieces if p.strip()}
