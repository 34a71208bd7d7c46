"""The question to put to `remote/probe.sh`, and its answer as values."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from rvstate.errors import ProbeError
from rvstate.model.layout import SYMBOLIC, Account, Layout
from rvstate.model.observed import (
    Entry,
    ObservedState,
    Original,
    Present,
    Space,
    Tree,
    Unreadable,
)
from rvstate.model.resources import (
    CacheLink,
    DesiredState,
    Directory,
    EnvFile,
    Resource,
    ScriptSet,
    ShellBlock,
    Tool,
)
from rvstate.paths import RemotePath
from rvstate.script import Answer, Script

Question = tuple[str, str]


def questions(desired: DesiredState) -> tuple[Question, ...]:
    """What must be known to compare with `desired`, each question once."""
    asked: dict[Question, None] = {}
    for resource in desired.resources:
        asked.update(dict.fromkeys(_about(resource)))
    return tuple(asked)


def _about(resource: Resource) -> Iterable[Question]:
    match resource:
        case Directory():
            yield "stat", resource.path
        case CacheLink():
            yield "stat", resource.path.parent
            yield "stat", resource.path
            yield "stat", resource.target
            yield "tree", resource.path
            yield "space", resource.target
            yield "space", resource.path.parent
            yield "tool", "rsync"
            yield "records", Layout(SYMBOLIC).originals
        case ShellBlock():
            yield "stat", resource.path
            yield "text", resource.path
            yield "digest", resource.path
        case EnvFile():
            yield "stat", resource.path
            yield "digest", resource.path
        case ScriptSet():
            for name, _, _ in resource.files:
                yield "digest", resource.path / name
        case Tool():
            yield "tool", resource.program
        case _:
            return


def script(scratch: str, home: str, asked: tuple[Question, ...]) -> Script:
    """The look as a script.

    Args:
        scratch: Template of the scratch directory, with `{user}` and `{home}`.
        home: Absolute path of the home directory there; empty for the login's own.
        asked: The questions.
    """
    return Script("probe", (scratch, home, *(word for question in asked for word in question)))


def read(answer: Answer, asked: tuple[Question, ...]) -> ObservedState:
    """The answer to `asked` as values.

    Raises:
        ProbeError: The script failed, or an answer is not of the form it should have.
    """
    if answer.status != 0:
        raise ProbeError(
            f"The look at the account failed: {answer.errors.strip() or 'no reason given'}",
            "Run `rvstate doctor`.",
        )
    account, skew = _account(answer.first("account"))
    real = _Roots(account)
    entries = _entries(answer.first("stats"))
    digests: dict[str, str] = {}
    texts: dict[str, str] = {}
    trees: dict[str, Tree] = {}
    spaces: dict[str, Space] = {}
    tools: dict[str, str] = {}
    originals: list[Original] = []
    for header, body in answer.sections:
        word, _, number = header.partition(" ")
        if not number:
            continue
        value = asked[int(number)][1]
        path = real(value)
        text = body.decode("utf-8", "surrogateescape")
        if word == "unreadable":
            entries[path] = Unreadable(text)
        elif word == "digest":
            digests[path] = text.strip()
        elif word == "text":
            texts[path] = text
        elif word == "tree":
            trees[path] = _tree(text)
        elif word == "space":
            spaces[path] = _space(text)
        elif word == "tool":
            tools[value] = text
        elif word == "record" and (original := _original(text)):
            originals.append(original)
    return ObservedState(
        account, entries, digests, texts, trees, spaces, tools, tuple(originals), skew
    )


class _Roots:
    """Symbolic roots made real."""

    def __init__(self, account: Account) -> None:
        self._roots = ((SYMBOLIC.home, account.home), (SYMBOLIC.scratch, account.scratch))

    def __call__(self, path: str) -> str:
        for symbol, root in self._roots:
            if path == symbol or path.startswith(symbol + "/"):
                return root + path[len(symbol) :]
        return path


def _account(body: bytes) -> tuple[Account, int]:
    found = dict(
        line.split(" ", 1)
        for line in body.decode("utf-8", "surrogateescape").splitlines()
        if " " in line
    )
    try:
        account = Account(
            user=found["user"],
            uid=int(found["uid"]),
            home=RemotePath(found["home"]),
            scratch=RemotePath(found["scratch"]),
            shell=found["shell"],
            node=found["node"],
        )
        return account, round(int(found["clock"]) - time.time())
    except (KeyError, ValueError) as error:
        raise ProbeError(
            f"The look did not say who we are on the cluster ({error}).", "Run `rvstate doctor`."
        ) from error


def _entries(body: bytes) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    fields = body.rstrip(b"\n").split(b"\0")
    for head, target in zip(fields[::2], fields[1::2], strict=False):
        match head.decode("utf-8", "surrogateescape").split(" ", 5):
            case [kind, mode, uid, size, after, path]:
                known = kind if kind in "fdl" else "o"
                link = target.decode("utf-8", "surrogateescape")
                entries[path] = Present(
                    known, int(mode, 8) & 0o7777, int(uid), int(size), link, after
                )
            case _:
                raise ProbeError(
                    f"The look answered {head!r}, which is not a file's state.",
                    "Run `rvstate doctor`.",
                )
    return entries


def _tree(text: str) -> Tree:
    head, _, foreign = text.partition("\n")
    size, entries = (head.split() + ["0", "0"])[:2]
    # the directory itself is no entry
    return Tree(int(size), max(int(entries) - 1, 0), foreign.strip("\n"))


def _space(text: str) -> Space:
    rows = [row.split() for row in text.splitlines() if row.strip()]
    if not rows or len(rows[0]) < 6:
        return Space("", 0, None)
    free = int(rows[0][3]) * 1024
    inodes = None
    if len(rows) > 1 and len(rows[1]) >= 6 and rows[1][3].isdigit() and rows[1][1] != "0":
        inodes = int(rows[1][3])
    return Space(" ".join(rows[0][5:]), free, inodes)


def _original(text: str) -> Original | None:
    found = dict(re.findall(r"^(\w+) (.*)$", text, re.M))
    if found.get("state") != "aside":
        return None
    return Original(
        found["record"],
        found["original"],
        found["target"],
        int(found["bytes"]),
        int(found["entries"]),
        int(found["made"]),
    )
