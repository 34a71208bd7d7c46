"""The question to put to `remote/probe.sh`, and its answer as values."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable

from rvstate.errors import ProbeError
from rvstate.model.layout import SYMBOLIC, Account, Layout
from rvstate.model.observed import (
    Built,
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
    Environments,
    Resource,
    Schedule,
    ScriptSet,
    ShellBlock,
    Tool,
)
from rvstate.paths import RemotePath
from rvstate.script import Answer, Script

Question = tuple[str, str]

# What `remote/probe.sh` prints of a text, in bytes; it prints one more of a larger file.
_MAX_TEXT = 1 << 20


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
            yield "copied", resource.target
            yield "space", resource.target.parent
            yield "space", resource.path.parent
            yield "tool", "rsync"
            yield "records", Layout(SYMBOLIC).originals
        case ShellBlock():
            yield "stat", resource.path
            yield "text", resource.path
            yield "space", resource.path.parent
        case EnvFile():
            yield "stat", resource.path
            yield "digest", resource.path
        case ScriptSet():
            for name, _, _ in resource.files:
                yield "digest", resource.path / name
        case Tool():
            yield "tool", resource.program
        case Environments():
            yield "environments", resource.path
        case Schedule(here=False):
            yield "schedule", " ".join(resource.asks)
            if resource.program:
                yield "digest", f"{resource.path}/run"
        case _:
            return


def script(scratch: str, home: str, asked: tuple[Question, ...]) -> Script:
    """The look as a script.

    Args:
        scratch: Template of the scratch directory, with `{user}` and `{home}`.
        home: Absolute path of the home directory there; empty for the login's own.
        asked: The questions.
    """
    words = (word for question in asked for word in question)
    return Script("probe", (scratch, home, *words), public=True)


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
    entries = _entries(answer.first("stat_all"))
    digests = _digests(answer.first("rv_sha256"))
    texts: dict[str, str] = {}
    trees: dict[str, Tree] = {}
    copied: dict[str, int] = {}
    spaces = _spaces(answer.first("space_all"))
    tools: dict[str, str] = {}
    originals: list[Original] = []
    strangers: set[str] = set()
    built: dict[str, Built] = {}
    schedule: dict[str, str] = {}
    for header, body in answer.sections:
        word, _, number = header.partition(" ")
        if not number:
            continue
        value = asked[int(number)][1]
        path = real(value)
        text = body.decode("utf-8", "surrogateescape")
        if word == "unreadable":
            entries[path] = Unreadable(text)
        elif word == "text" and len(body) <= _MAX_TEXT:
            texts[path] = text
            digests[path] = hashlib.sha256(body).hexdigest()
        elif word == "stranger":
            strangers.add(path)
        elif word == "tree":
            trees[path] = _tree(text)
        elif word == "copied":
            copied[path] = int(text)
        elif word == "tool" and text.strip():
            tools[value] = text.strip()
        elif word == "environments":
            built.update(environments(text))
        elif word.startswith("schedule-"):
            schedule[word.removeprefix("schedule-")] = text
        elif word == "record" and (original := _original(text)):
            originals.append(original)
    return ObservedState(
        account,
        entries,
        digests,
        texts,
        trees,
        spaces,
        tools,
        tuple(originals),
        skew,
        frozenset(strangers),
        copied,
        built,
        (schedule, {}),
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
        field.strip("\n").split(" ", 1)
        for field in body.decode("utf-8", "surrogateescape").split("\0")
        if " " in field
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


def environments(text: str) -> dict[str, Built]:
    """Each link's path, and behind it digest, interpreter, date and verdict of the last walk."""
    found = {}
    fields = text.split("\0")
    for path, said in zip(fields[::2], fields[1::2], strict=False):
        digest, runs, when, verdict, recipe = (*said.split(" "), "", "", "", "")[:5]
        walked = int(when) if when.isdigit() else None
        found[path] = Built(
            "" if digest == "-" else digest,
            runs == "runs",
            walked,
            verdict == "damaged",
            recipe == "recipe",
        )
    return found


def _tree(text: str) -> Tree:
    head, _, stuck = text.partition("\n")
    size, entries = [*head.split(), "0", "0"][:2]
    # the directory itself is no entry
    return Tree(int(size), max(int(entries) - 1, 0), stuck.strip("\n"))


def _digests(body: bytes) -> dict[str, str]:
    """`sha256sum`'s lines; it puts a backslash before a line whose name it had to escape."""
    found = {}
    for line in body.decode("utf-8", "surrogateescape").split("\n"):
        digest, _, name = line.partition(" ")
        if not name:
            continue
        if digest.startswith("\\"):
            digest, name = digest[1:], name.replace("\\\\", "\\")
        found[name[1:]] = digest
    return found


def _spaces(body: bytes) -> dict[str, Space]:
    """Paths and, in their order, what df says of each; nothing where it left one out."""
    *paths, table = body.decode("utf-8", "surrogateescape").split("\0")
    rows = [line.split(maxsplit=3) for line in table.split("\n") if line.strip()]
    if len(rows) != len(paths):
        return {}
    return {
        path: Space(row[3], int(row[0]) * 1024, _inodes(row[1], row[2]))
        for path, row in zip(paths, rows, strict=True)
        if len(row) == 4 and row[0].isdigit()
    }


def _inodes(total: str, free: str) -> int | None:
    # file systems that make inodes as they need them say 0 of 0, or -
    return int(free) if free.isdigit() and total.isdigit() and total != "0" else None


def _original(text: str) -> Original | None:
    found = dict(re.findall(r"^(\w+) (.*)$", text, re.M))
    try:
        return Original(
            found["record"],
            found["original"],
            found["target"],
            int(found["bytes"]),
            int(found["entries"]),
            int(found["made"]),
            found["state"] != "aside",
        )
    except (KeyError, ValueError):
        # not a record of ours, or one that a full disk cut short: then nothing was renamed yet
        return None
