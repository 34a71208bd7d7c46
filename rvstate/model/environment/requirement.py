"""Requirements (PEP 508) as text that compares: one way to write each; pure."""

from __future__ import annotations

import re

from rvstate.errors import ConfigError

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = rf"\[\s*(?P<extras>(?:{_NAME}(?:\s*,\s*{_NAME})*)?)\s*\]"
_HEAD = re.compile(rf"(?P<name>{_NAME})\s*(?:{_EXTRAS})?\s*")
# https://packaging.python.org, "Version specifiers"
_CLAUSE = re.compile(r"(===|==|~=|!=|<=|>=|<|>)\s*([^\s,;()]+)")
_ADDRESS = re.compile(r"(?:git|hg|svn|bzr)\+[a-z+]+://\S+|https?://\S+")
_ARCHIVES = (".whl", ".zip", ".tar.gz")
_PASSWORD = re.compile(r"://[^/\s@]*:(?!\$\{)[^/\s@]+@|://(?!\$\{)[^/\s@:]{20,}@")
_MARKER = re.compile(
    r"\s*(\"[^\"]*\"|'[^']*'|===|==|~=|!=|<=|>=|<|>|\(|\)|[A-Za-z_][A-Za-z0-9_.]*)"
)


def plain(name: str) -> str:
    """A package's name as all tools compare it (https://packaging.python.org, "Names")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(text: str) -> str:
    """The name that a requirement is about, as all tools compare it.

    Args:
        text: A requirement as `requirement` gives it.
    """
    match = _HEAD.match(text)
    assert match is not None, text
    return plain(match["name"])


def requirement(text: str, by: str) -> str:
    """A requirement in the one way in which equal ones are equal text.

    Args:
        text: As PEP 508 has it: `Name[extra] >=1,<2; marker` or `Name @ ADDRESS`.
        by: What names it, for messages.

    Raises:
        ConfigError: It is none, is a path, or holds a password.
    """
    refuse_password(text, by)
    body = text.strip()
    match = _HEAD.match(body)
    if match is None or "\n" in body or "\0" in body or match["name"].endswith(_ARCHIVES):
        raise _none(text, by)
    extras = sorted({plain(e) for e in re.split(r"[\s,]+", match["extras"] or "") if e})
    head = plain(match["name"]) + (f"[{','.join(extras)}]" if extras else "")
    rest = body[match.end() :]
    if rest.startswith("@"):
        # a space ends the address, for one may hold a semicolon
        address, _, marker = rest[1:].strip().partition(" ")
        if not _ADDRESS.fullmatch(address) or (marker and not marker.lstrip().startswith(";")):
            raise _none(text, by)
        head += f" @ {address}"
        marker = marker.lstrip().removeprefix(";")
        return head + (f" ; {_marker(marker, text, by)}" if marker.strip() else "")
    wanted, _, marker = rest.partition(";")
    head += _clauses(wanted, text, by)
    return head + (f"; {_marker(marker, text, by)}" if marker.strip() else "")


def _clauses(wanted: str, text: str, by: str) -> str:
    wanted = wanted.strip()
    if wanted.startswith("(") and wanted.endswith(")"):
        wanted = wanted[1:-1].strip()
    if not wanted:
        return ""
    found = []
    # a comma at the end is allowed by those who read it
    for clause in re.split(r"\s*,\s*", wanted.removesuffix(",").strip()):
        match = _CLAUSE.fullmatch(clause.strip())
        if match is None:
            raise _none(text, by)
        found.append(f"{match[1]}{match[2].lower()}")
    return ",".join(sorted(set(found)))


def _marker(marker: str, text: str, by: str) -> str:
    words, at, marker = [], 0, marker.strip()
    while at < len(marker):
        match = _MARKER.match(marker, at)
        if match is None:
            raise _none(text, by)
        word = match[1]
        if word.startswith("'") and '"' not in word:
            word = f'"{word[1:-1]}"'
        words.append(word)
        at = match.end()
    return " ".join(words)


def refuse_password(text: str, by: str) -> None:
    """Raise where an address holds a password or token, which would be written down.

    Raises:
        ConfigError: It does.
    """
    if _PASSWORD.search(text):
        raise ConfigError(
            f"An address in {by} holds a password, which would lie in every recipe and log.",
            "Take it out, and put it into ~/.netrc on the cluster.",
        )


def _none(text: str, by: str) -> ConfigError:
    shown = " ".join(text.split())[:80]
    if re.match(r"\s*\.{0,2}/", text) or text.strip().endswith(_ARCHIVES):
        return ConfigError(
            f"{shown!r} in {by} is a path, and a layer is made of packages that have a name.",
            "Put a package of the project into the base environment's requirements.",
        )
    if text.lstrip().startswith("-"):
        return ConfigError(
            f"{shown!r} in {by} is an option, not a package.", "Write it into options."
        )
    return ConfigError(
        f"{shown!r} in {by} is not a requirement.", 'Write it as "NAME", "NAME==VERSION" or so.'
    )


def split_requirements(text: str) -> tuple[str, ...]:
    """Requirements that are separated by commas, where those may hold commas, too.

    A comma ends one where a name follows, outside brackets and quotes: `a[x,y]>=1,<2,b`.

    Args:
        text: As it was written on a command line.
    """
    found, start, depth, quote = [], 0, 0, ""
    for at, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
        elif char == "," and depth <= 0 and re.match(r"\s*(?:[A-Za-z0-9]|$)", text[at + 1 :]):
            found.append(text[start:at].strip())
            start = at + 1
    found.append(text[start:].strip())
    return tuple(one for one in found if one)
