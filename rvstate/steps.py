"""The changes of one kind as the one script that makes them; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rvstate.model.layout import Layout
from rvstate.model.plan import Action, Change
from rvstate.model.resources import (
    CacheLink,
    Directory,
    EnvFile,
    Environment,
    Kept,
    Schedule,
    ScriptSet,
    ShellBlock,
    Tool,
)
from rvstate.script import Script
from rvstate.shell import printf_b

# How long a script waits for another rvstate on the same account, in seconds.
_PATIENCE = "20"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one change: `error` is empty where it was made."""

    change: Change
    error: str = ""
    note: str = ""


def script(
    kind: str, changes: tuple[Change, ...], layout: Layout, *, remove_originals: bool = False
) -> Script:
    """The script that makes all changes of one kind.

    Args:
        kind: One of `resources.KINDS` but `config`, which is not the cluster's.
        changes: They are answered in this order.
        layout: The account's paths.
        remove_originals: Whether a migration's original is removed once verified again.
    """
    lock = (layout.rv / "lock", _PATIENCE)
    match kind:
        case "directory":
            return Script("directories", (*lock, *_each(changes, _directory)))
        case "cache":
            fixed = (layout.originals, "yes" if remove_originals else "no")
            return Script("caches", (*lock, *fixed, *_each(changes, _cache)))
        case "shell" | "env" | "scripts":
            return Script("write", (*lock, *_each(changes, _files)))
        case "tool":
            (change,) = changes
            assert isinstance(change.resource, Tool)
            module = change.resource.module or ""
            return Script("tool", (*lock, change.resource.directory, module))
        case "environment":
            return Script(
                "heal",
                (
                    _PATIENCE,
                    layout.tools,
                    layout.scratch_caches / "uv",
                    *_each(changes, _environment),
                ),
            )
        case "schedule":
            (change,) = changes
            assert isinstance(change.resource, Schedule)
            return Script("schedule", (*lock, *_schedule(change.resource), *_tables(change)))
        case _:
            raise AssertionError(kind)


def _each(changes: tuple[Change, ...], words: object) -> tuple[str, ...]:
    assert callable(words)
    return tuple(word for change in changes for word in words(change))


def _directory(change: Change) -> tuple[str, ...]:
    assert isinstance(change.resource, Directory)
    mode = change.resource.mode
    if mode is not None:
        return (f"{mode:o}", change.resource.path)
    return ("group" if change.resource.group else "-", change.resource.path)


def _cache(change: Change) -> tuple[str, ...]:
    resource = change.resource
    if isinstance(resource, Kept):
        return ("remove", resource.path, resource.record, "")
    assert isinstance(resource, CacheLink)
    former = change.detail[0] if change.action is Action.UPDATE else ""
    word = change.action.word
    if change.action is Action.MIGRATE and resource.shared:
        word = "share"
    return (word, resource.path, resource.target, former)


def _environment(change: Change) -> tuple[str, ...]:
    assert isinstance(change.resource, Environment)
    return (change.resource.path,)


def _files(change: Change) -> tuple[str, ...]:
    match change.resource:
        case ShellBlock(path=path):
            expected, text = change.detail
            return (path, expected, "-", _contents(text))
        case EnvFile(path=path, text=text):
            return (path, "any", "600", _contents(text))
        case ScriptSet(path=path, files=files):
            return tuple(
                word
                for name, _, text in files
                for word in (path / name, "any", "755", _contents(text))
            )
        case _:
            raise AssertionError(change.kind)


def _schedule(wanted: Schedule) -> tuple[str, ...]:
    return (wanted.path, wanted.how or "-", wanted.time or "-", _contents(wanted.program))


def _tables(change: Change) -> Iterator[str]:
    for number, word in enumerate(change.detail):
        yield _contents(word) if number % 4 == 3 else word


def _contents(text: str) -> str:
    return printf_b(text.encode("utf-8", "surrogateescape"))


def results(kind: str, changes: tuple[Change, ...], output: str, errors: str) -> tuple[Result, ...]:
    """What became of each change, from what the script printed.

    Args:
        kind: As for `script`.
        changes: As for `script`.
        output: The script's answer, outside any section.
        errors: Its standard error, for a change that it never came to.
    """
    said: dict[int, tuple[str, str]] = {}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        number, _, more = rest.partition(" ")
        if word in ("done", "failed") and number.isdigit():
            said[int(number)] = (word, more.strip())
    width = _width(kind, changes)
    last = _reason(errors)
    found = []
    at = 0
    for change, count in zip(changes, width, strict=True):
        parts = [said.get(n, ("failed", last)) for n in range(at, at + count)]
        at += count
        error = next((_plain(more) for word, more in parts if word == "failed"), "")
        found.append(Result(change, error, "" if error else parts[0][1]))
    return tuple(found)


def _width(kind: str, changes: tuple[Change, ...]) -> list[int]:
    if kind == "scripts":
        return [len(c.resource.files) for c in changes if isinstance(c.resource, ScriptSet)]
    return [1] * len(changes)


def _reason(errors: str) -> str:
    """Why a script came to none of its changes: our own words rather than noise around them."""
    lines = [line.strip() for line in errors.split("\n") if line.strip()]
    ours = [line for line in lines if line.startswith("rvstate: ")]
    return (ours or lines or ["the script ended early; run converge again"])[-1]


# What the system says where there is no room, in strerror(3)'s words.
_FULL = ("No space left on device", "Disk quota exceeded")


def _plain(reason: str) -> str:
    plain = reason.removeprefix("rvstate: ") or "no reason given"
    if any(words in plain for words in _FULL) and "converge" not in plain:
        plain += "; free space or files there, then run converge again"
    return plain
