"""What the layers come to, and where the files of this machine are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvstate import schema
from rvstate.model.settings import SECRET_KEYS, Preset, Settings
from rvstate.model.site import Site
from rvstate.schema import Table

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings: its name for people and what it says."""

    name: str
    table: Table


@dataclass(frozen=True, slots=True)
class Config:
    """The settings in force, the site, and where they came from.

    `cluster` is the name of the `[clusters.NAME]` table in use, or None.
    """

    settings: Settings
    site: Site
    path: Path
    cluster: str | None
    sources: tuple[tuple[str, str], ...]
    """("connection.host", layer) for every key that some layer set."""
    holds_secret: bool = False
    """Whether the user's own file holds a secret, in a cluster's table that is not in use too."""
    stages: tuple[Layer, ...] = ()
    """The table `stages` of each file of the project that has one, unread."""

    @property
    def host(self) -> str:
        """The ssh alias, or `@local`."""
        return self.settings.connection.host or "@local"


@dataclass(frozen=True, slots=True)
class Explained:
    """One key: the value in force, masked where it is a secret, and the layer that set it."""

    key: str
    value: Any
    layer: str
    secret: bool


def home() -> Path:
    """The local state directory: `RVSTATE_HOME`, or `~/.rv`."""
    return Path(os.environ.get("RVSTATE_HOME") or "~/.rv").expanduser().absolute()


def config_path() -> Path:
    """The user's config file: `RVSTATE_CONFIG`, or `config.toml` in the state directory."""
    named = os.environ.get("RVSTATE_CONFIG")
    return Path(named).expanduser().absolute() if named else home() / "config.toml"


def scratch_template(config: Config) -> str:
    """The scratch directory as the look fills it in, `{user}` and `{home}` left to it."""
    return (config.settings.paths.scratch or config.site.paths.scratch).replace(
        "{state}", str(home())
    )


def home_template(config: Config) -> str:
    """The account's home directory; empty for the login's own."""
    if config.settings.paths.home:
        return config.settings.paths.home
    return str(home() / "local" / "home") if config.site.scheduler == "process" else ""


def explain(config: Config) -> tuple[Explained, ...]:
    """Every key with the value in force and the layer that set it, in the order of the tables.

    Of presets only the keys that some layer set.
    """
    layers = dict(config.sources)
    rows = []
    for table, kind in schema.keys(Settings).items():
        for key in schema.keys(kind):
            name = f"{table}.{key}"
            secret = (table, key) in SECRET_KEYS
            value = getattr(getattr(config.settings, table), key)
            shown = "(set)" if secret and value else value
            rows.append(Explained(name, shown, layers.get(name, DEFAULT), secret))
    for preset, values in config.settings.presets.items():
        for key in schema.keys(Preset):
            name = f"presets.{preset}.{key}"
            if name in layers:
                rows.append(Explained(name, getattr(values, key), layers[name], False))
    return tuple(rows)
