"""rDVC's settings as rvstate's: what they come to, what has no counterpart, and what stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvstate import config as config_door
from rvstate import rdvc
from rvstate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Import:
    """One file of rDVC, and where it goes.

    Args:
        source: The file, which is only read.
        target: Our file that would be written.
        values: "table.key" to value, without what is set there already.
        changes: Those that would change: key, value, and None.
        left: What has no counterpart, or is set otherwise already, and why.
    """

    source: Path
    target: Path
    values: dict[str, Any]
    changes: tuple[tuple[str, Any, Any], ...]
    left: tuple[tuple[str, str], ...]
    keep: Callable[[Mapping[str, Any]], object]


def imports(here: Path, root: Path | None) -> tuple[Import, ...]:
    """What there is to import: the user's own file, and the one of the project.

    Args:
        here: Where the user stands.
        root: The project's root, or None.

    Raises:
        ConfigError: There is neither, or one cannot be read.
    """
    found = []
    mine = Path(os.environ.get("GLOBAL_RDVC_CONFIG") or "~/.config/rdvc/config.toml").expanduser()
    if mine.is_file():
        table = config_door.raw()
        target = config_door.config_path()
        found.append(_import(mine, target, table, config_door.set_keys, project=False))
    theirs = _above(here)
    if theirs is not None and root is not None:
        table, (target, _) = config_door.raw_project(root), config_door.project_file(root)

        def keep(values: Mapping[str, Any]) -> object:
            return config_door.set_project_keys(root, values)

        found.append(_import(theirs, target, table, keep, project=True))
    if not found:
        raise ConfigError(
            f"There is neither {mine} nor .rdvc/config.toml in {here} or above it.",
            "Stand in the project that rDVC was set up for, or name the file: GLOBAL_RDVC_CONFIG.",
        )
    return tuple(found)


def _above(here: Path) -> Path | None:
    places = (folder / ".rdvc" / "config.toml" for folder in (here, *here.parents))
    return next((path for path in places if path.is_file()), None)


def _import(
    source: Path,
    target: Path,
    table: dict[str, Any],
    keep: Callable[[Mapping[str, Any]], object],
    *,
    project: bool,
) -> Import:
    translated = rdvc.translated(config_door.read_toml(source), project=project)
    why = {k: config_door.wrong(k, v, str(source)) for k, v in translated.values.items()}
    unfit = tuple((key, text) for key, text in why.items() if text)
    fit = {key: value for key, value in translated.values.items() if not why[key]}
    changes = config_door.differences(fit, table)
    # what is configured already stays
    other = {key for key, _, before in changes if before is not None}
    stays = tuple((key, f"{target} has another value, which stays") for key in sorted(other))
    values = {key: value for key, value in fit.items() if key not in other}
    rest = tuple(change for change in changes if change[0] not in other)
    return Import(source, target, values, rest, (*translated.left, *unfit, *stays), keep)
