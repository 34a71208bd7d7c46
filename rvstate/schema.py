"""Plain tables (from TOML) as frozen dataclasses, unknown keys refused by name; pure.

The dataclasses' own annotations are the schema: `str`, `bool`, `int`, `float`, `X | None`,
`tuple[X, ...]`, `dict[str, X]`, `Literal`, `Any`, and other dataclasses.  Nothing is converted into
something that means another thing: `"7"` is no number, `1` is not true.  No message shows a value,
for it may be a secret.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from functools import cache
from typing import Any

from rvstate.errors import ConfigError, nearest

Table = dict[str, Any]


@cache
def keys(kind: Any) -> dict[str, Any]:
    """The keys of a table and their types, in order; none where `kind` is no table."""
    return typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}


def build(kind: type[Any], table: Any, name: str, at: tuple[str, ...] = ()) -> Any:
    """An instance of the dataclass `kind`.

    Args:
        kind: The dataclass.
        table: What was read.
        name: Where it was read, for messages.
        at: The keys that lead to this table.

    Raises:
        ConfigError: An unknown or missing key, or a value of another type.
    """
    if not isinstance(table, dict):
        raise _wrong(at, name, "a table", table)
    known = keys(typing.cast("Any", kind))
    for key in table:
        if key not in known:
            raise unknown_key((*at, key), known, name)
    values = {k: _value(known[k], v, name, (*at, k)) for k, v in table.items()}
    for field in dataclasses.fields(kind):
        needed = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if needed and field.name not in values:
            path = ".".join((*at, field.name))
            raise ConfigError(f"{path} is missing in {name}.", "Add it.")
    return kind(**values)


def unknown_key(path: tuple[str, ...], known: Iterable[str], name: str) -> ConfigError:
    """The error for a key that nobody knows, with the nearest that somebody does."""
    near = nearest(path[-1], known)
    hint = f"Did you mean {near}?" if near else f"Known here: {', '.join(sorted(known))}."
    return ConfigError(f"{'.'.join(path)} in {name} is not a key that rvstate knows.", hint)


def read_text(kind: Any, text: str, name: str) -> Any:
    """A value from an environment variable or a command line, read as its key's type wants it.

    Args:
        kind: The type.
        text: What was given; a list is written with commas.
        name: How messages call it.

    Raises:
        ConfigError: The text cannot be such a value.
    """
    kinds = _alternatives(kind)
    if str in kinds:
        return text
    if bool in kinds:
        found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() in found:
            return found[text.lower()]
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                continue
    for one in kinds:
        if typing.get_origin(one) is tuple:
            return [part.strip() for part in text.split(",") if part.strip()]
        if typing.get_origin(one) is typing.Literal and text in typing.get_args(one):
            return text
    raise ConfigError(f"{name} is wrong: it should be {_words(kind)}.", "Mend or unset it.")


def _value(kind: Any, value: Any, name: str, at: tuple[str, ...]) -> Any:
    kinds = _alternatives(kind)
    if value is None and type(None) in kinds:
        return None
    for one in kinds:
        if _fits(one, value):
            return _made(one, value, name, at)
    raise _wrong(at, name, _words(kind), value)


def _fits(kind: Any, value: Any) -> bool:
    """Whether the outermost form is right; what is inside is judged, with its place, by `_made`."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return True
    if kind is bool or kind is str:
        return isinstance(value, kind)
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(
            value, bool
        )
    if origin is tuple:
        return isinstance(value, (list, tuple))
    if origin is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(kind)
    return isinstance(value, dict) and (origin is dict or dataclasses.is_dataclass(kind))


def _made(kind: Any, value: Any, name: str, at: tuple[str, ...]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is float:
        return float(value)
    if origin is tuple:
        return tuple(
            _value(args[0], part, name, (*at, str(number))) for number, part in enumerate(value)
        )
    if origin is dict:
        return {key: _value(args[1], part, name, (*at, key)) for key, part in value.items()}
    if dataclasses.is_dataclass(kind):
        return build(typing.cast("type[Any]", kind), value, name, at)
    return value


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return typing.get_args(kind)
    return (kind,)


def _wrong(at: tuple[str, ...], name: str, wanted: str, value: Any) -> ConfigError:
    found = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    has = found.get(type(value), "a list" if isinstance(value, (list, tuple)) else "a table")
    remedy = "Mend that value."
    if wanted.startswith("a text") and has in ("a number", "true or false"):
        remedy = "Put the value in quotes."
    what = ".".join(at) or "it"
    return ConfigError(f"{what} in {name} is wrong: it should be {wanted}, not {has}.", remedy)


def _words(kind: Any) -> str:
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    found = []
    for one in _alternatives(kind):
        origin = typing.get_origin(one)
        if one in names:
            found.append(names[one])
        elif origin is typing.Literal:
            found.append(f"one of {', '.join(map(str, typing.get_args(one)))}")
        elif origin is tuple:
            found.append("a list")
        elif one is not type(None):
            found.append("a table")
    return " or ".join(found)
