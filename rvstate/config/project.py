"""Careful edits of a project's own settings, which travel with its code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvstate.config.checks import check_layer, check_project
from rvstate.config.edit import change, place
from rvstate.config.text import as_table, parse, read_text, read_toml
from rvstate.config.values import Layer
from rvstate.errors import ConfigError
from rvstate.schema import Table

_PYPROJECT = ("tool", "rvstate")


def project_file(root: Path) -> tuple[Path, tuple[str, ...]]:
    """Where a project's settings are, or would be: the file, and the tables above them in it.

    Args:
        root: The project's root.

    Raises:
        ConfigError: A file is no TOML.
    """
    shared = root / "pyproject.toml"
    tools = as_table(read_toml(shared).get("tool", {}), str(shared), "tool")
    # the stronger layer of the two, where both are there
    return (shared, _PYPROJECT) if "rvstate" in tools else (root / "rvstate.toml", ())


def raw_project(root: Path) -> Table:
    """A project's settings as they are written; unchecked."""
    path, above = project_file(root)
    table = parse(str(path), read_text(path))
    for key in above:
        table = as_table(table.get(key, {}), str(path), key)
    return table


def set_project_keys(root: Path, values: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
    """Set keys in a project's settings; comments, order and all else of the file stay.

    Args:
        root: The project's root.
        values: "table.key" to value; None removes the key.

    Returns:
        The file, and the keys whose value changed; where there is none, it is not written.

    Raises:
        ConfigError: A project may not set that, or the file would not be valid; it is left alone.
    """
    path, above = project_file(root)
    wanted = {(*above, *place(key)): value for key, value in values.items()}
    after, changed = change(path, read_text(path) or "", wanted)
    if not changed:
        return path, ()
    table: Any = parse(str(path), after)
    for key in above:
        table = table[key]
    known = {key: value for key, value in table.items() if key != "stages"}
    check_project(Layer(str(path), known))
    check_layer(Layer(str(path), known))
    _write(path.resolve(), after)
    return path, tuple(".".join(key[len(above) :]) for key in changed)


def _write(path: Path, text: str) -> None:
    """Put a file in place at once or not at all, with the mode that it had."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, "utf-8")
        if path.exists():
            part.chmod(path.stat().st_mode & 0o7777)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}.", "Mend that, then run this again."
        ) from error
