"""Careful edits of the user's own file, which keeps its comments, order and everything else."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rvstate import schema
from rvstate.config.checks import check_layer
from rvstate.config.layers import lay
from rvstate.config.text import as_table, parse, private_home, read_text, without_empty, write
from rvstate.config.values import Config, Layer, config_path, home
from rvstate.errors import ConfigError, nearest
from rvstate.model.settings import Preset, Settings
from rvstate.schema import Table


def key_type(key: str) -> Any:
    """The type of a `table.key`, or of a `presets.NAME.key`.

    Raises:
        ConfigError: There is no such key.
    """
    table, *between, rest = place(key)
    tables = schema.keys(Settings)
    known = schema.keys(Preset if table == "presets" and between else tables.get(table))
    if rest in known:
        return known[rest]
    if table == "presets" and between:
        raise schema.unknown_key((key,), (f"presets.{between[0]}.{k}" for k in known), "a preset")
    every = [f"{t}.{k}" for t in tables for k in schema.keys(tables[t])]
    near = nearest(key, every)
    raise ConfigError(
        f"{key} is not a key that rvstate knows.",
        f"Did you mean {near}?" if near else "`rvstate config --explain` lists all of them.",
    )


def place(key: str) -> tuple[str, ...]:
    """The tables and the key that a `table.key` names; the name of a preset may hold dots."""
    table, _, rest = key.partition(".")
    name, dot, last = rest.rpartition(".")
    return (table, name, last) if table == "presets" and dot else (table, rest)


def raw(cluster: str | None = None) -> Table:
    """The user's own file as it is written, or its table of one cluster; unchecked."""
    path = config_path()
    table = parse(str(path), read_text(path))
    if cluster is None:
        return table
    found = as_table(table.get("clusters", {}), str(path), "clusters").get(cluster, {})
    return as_table(found, str(path), f"clusters.{cluster}")


def set_keys(
    values: Mapping[str, Any], *, cluster: str | None = None, more: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Set keys in the user's own file, which keeps its comments, order and everything else.

    Args:
        values: "table.key" to value; None removes the key.
        cluster: Set them in `[clusters.NAME]`.
        more: Keys of no table, such as `default_cluster`.

    Returns:
        The keys whose value changed; where there is none, the file is not written.

    Raises:
        ConfigError: The file would not be valid with them; it is left as it is.
    """
    wanted = _wanted(values, cluster, more)
    with _edit_lock():
        path = config_path()
        after, changed = change(path, read_text(path) or "", wanted)
        if not changed:
            return ()
        lay(path, [(str(path), after)], {}, cluster, {})
        private_home()
        write(path, after)
    return tuple(".".join(key) for key in changed)


def change(
    path: Path, before: str, wanted: Mapping[tuple[str, ...], Any]
) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """A file's text with keys set, and those whose value changed.

    Args:
        path: The file, for messages.
        before: Its text.
        wanted: Path of tables and key, to value; None removes the key.

    Raises:
        ConfigError: It is no TOML, or written in a way that cannot be edited safely.
    """
    table = parse(str(path), before)
    changed = {k: v for k, v in wanted.items() if _get(table, k) != _plain(v)}
    if not changed:
        return before, ()
    after = _edited(before, changed)
    for where, value in changed.items():
        _put(table, where, _plain(value))
    if without_empty(parse(str(path), after)) != without_empty(table):
        raise ConfigError(
            f"{path} is written in a way that cannot be edited safely.",
            f"Set {', '.join('.'.join(k) for k in changed)} there by hand.",
        )
    return after, tuple(changed)


def differences(values: Mapping[str, Any], table: Table) -> tuple[tuple[str, Any, Any], ...]:
    """Keys whose value would change: the key, what it is set to, and what it was (or None).

    Args:
        values: "table.key" to value.
        table: What there is, as `raw` reads it.
    """
    rows = ((key, value, _get(table, place(key))) for key, value in values.items())
    return tuple(row for row in rows if row[2] != _plain(row[1]))


def wrong(key: str, value: Any, name: str) -> str:
    """Why a key cannot have this value, in one sentence; empty where it can.

    Args:
        key: A "table.key".
        value: What it would be set to.
        name: Where the value is from, for the sentence.
    """
    table: Table = {}
    _put(table, place(key), _plain(value))
    try:
        check_layer(Layer(name, table))
    except ConfigError as error:
        return error.message
    return ""


def preview(values: Mapping[str, Any], *, cluster: str | None = None) -> Config:
    """The settings that would be in force after `set_keys`; nothing is written.

    Raises:
        ConfigError: The file would not be valid.
    """
    path = config_path()
    text = read_text(path) or ""
    parse(str(path), text)
    return lay(path, [(str(path), _edited(text, _wanted(values, cluster)))], {}, cluster, {})


def _wanted(
    values: Mapping[str, Any], cluster: str | None, more: Mapping[str, Any] | None = None
) -> dict[tuple[str, ...], Any]:
    for key in values:
        key_type(key)
    prefix = ("clusters", cluster) if cluster else ()
    wanted = {(*prefix, *place(key)): value for key, value in values.items()}
    return wanted | {(key,): value for key, value in (more or {}).items()}


@contextlib.contextmanager
def _edit_lock() -> Iterator[None]:
    private_home()
    with (home() / "config.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _edited(text: str, changed: Mapping[tuple[str, ...], Any]) -> str:
    import tomlkit

    document: Any = tomlkit.parse(text)
    for key, value in changed.items():
        table = document
        for number, part in enumerate(key[:-1]):
            if part not in table:
                if value is None:
                    break
                # `[clusters]` itself holds nothing, so only the innermost gets a heading
                table[part] = tomlkit.table(is_super_table=number < len(key) - 2)
            table = table[part]
        else:
            if value is None:
                table.pop(key[-1], None)
            else:
                table[key[-1]] = _plain(value)
    return tomlkit.dumps(document)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _get(table: Table, path: Iterable[str]) -> Any:
    found: Any = table
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _put(table: Table, path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        table = table.setdefault(part, {})
    if value is None:
        table.pop(path[-1], None)
    else:
        table[path[-1]] = value
