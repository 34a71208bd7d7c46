"""The text of an ssh client configuration: which hosts it names, and our one marked block; pure.

ssh takes the first value that it meets for each keyword (ssh_config(5)), so our block goes to the
top, before any `Host *`, and ends with `Match all`, so that what follows means what it meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def option(keyword: str, value: str) -> str:
    """One line of such a file, or what `ssh -o` takes; a value with blanks stands in quotes.

    Raises:
        ConfigError: A value that cannot stand in such a file.
    """
    if re.search(r"[\n\r\0]", value) or ('"' in value and keyword != "ProxyCommand"):
        raise ConfigError(
            f"{value!r} cannot be written into an ssh configuration.",
            "Use a path without quotes and line breaks.",
        )
    # the rest of the line is the command, for a shell to split
    bare = keyword == "ProxyCommand" or not re.search(r"\s", value)
    return f"{keyword}={value}" if bare else f'{keyword}="{value}"'


def block(alias: str, options: Mapping[str, str]) -> str:
    """A `Host` block.

    Args:
        alias: The name after `Host`.
        options: Keyword to value.

    Raises:
        ConfigError: As `option`.
    """
    lines = [option(key, value).replace("=", " ", 1) for key, value in options.items()]
    return "\n".join((f"Host {alias}", *(f"    {line}" for line in lines))) + "\n"


def _hosts(body: str) -> dict[str, str]:
    pieces = re.split(r"^(?=Host )", body.removesuffix(_LAST), flags=re.M)
    return {p.split("\n", 1)[0].removeprefix("Host ").strip(): p for p in pieces if p.strip()}
