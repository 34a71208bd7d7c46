"""TOML as plain tables: read, merged, and written."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path

from rvstate.config.values import home
from rvstate.errors import ConfigError
from rvstate.schema import Table
from rvstate.state import write_private


def read_text(path: Path) -> str | None:
    """A file of settings; None where there is none."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Mend or move the file.") from error


def read_toml(path: Path) -> Table:
    """A file of another program's settings; empty where there is none."""
    return parse(str(path), read_text(path))


def parse(name: str, text: str | None) -> Table:
    """TOML as a table; `name` is for the message about what is no TOML."""
    if text is None:
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.", "Mend that line.") from error


def as_table(value: object, name: str, key: str) -> Table:
    """The value of a key that has to be a table.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(value, dict):
        return value
    raise ConfigError(f"{key} in {name} is not a table.", f"Write [{key}.NAME].")


def merge(tables: Iterable[Table]) -> Table:
    """Tables laid over each other, the last one on top; nothing of them is shared."""
    merged: Table = {}
    for table in tables:
        for key, value in table.items():
            if isinstance(value, dict):
                merged[key] = merge((merged.get(key, {}), value))
            else:
                merged[key] = value
    return merged


def drop_none(table: Table) -> Table:
    """Without keys that have no value, and without tables that have no keys then."""
    found: Table = {}
    for key, value in table.items():
        if isinstance(value, dict):
            value = drop_none(value)
            if not value:
                continue
        if value is not None:
            found[key] = value
    return found


def without_empty(table: Table) -> Table:
    """Without empty tables, which say the same as none."""
    found = {k: without_empty(v) if isinstance(v, dict) else v for k, v in table.items()}
    return {k: v for k, v in found.items() if v != {}}


def toml(table: Table, head: str = "") -> str:
    """A table as TOML, tables of tables under headings of their own.

    Args:
        table: Plain values.
        head: A comment for the beginning, as lines that start with `#`.
    """
    import tomlkit

    return head + tomlkit.dumps(table)


def write(path: Path, text: str) -> None:
    """Put a private file (0600) in place, at once or not at all; a link stays a link."""
    write_private(path.resolve(), text)


def private_home() -> None:
    """Make the state directory, and let nobody else look into it."""
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
