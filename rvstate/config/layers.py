"""All layers, checked and laid over each other.

Weakest first: site profile, `~/.rv/config.toml` and its table of the chosen cluster, the
project's `[tool.rvstate]` or `rvstate.toml`, `RVSTATE_*` variables, options.  Every layer is read
and checked each time: that takes a few milliseconds, and nothing kept can be stale.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rvstate import schema
from rvstate.config.checks import check_layer, check_project
from rvstate.config.sites import load_site
from rvstate.config.text import as_table, drop_none, merge, parse, read_text
from rvstate.config.values import Config, Layer, config_path
from rvstate.errors import ConfigError, nearest
from rvstate.model.settings import SECRET_KEYS, Preset, Settings
from rvstate.model.site import Site
from rvstate.schema import Table

_LOCAL_SITE = "local"
# Variables with a meaning of their own, which are no settings.
_PLAIN_VARIABLES = frozenset({"RVSTATE_CONFIG", "RVSTATE_HOME", "RVSTATE_CLUSTER"})


def load(
    *,
    options: Mapping[str, Any] | None = None,
    cluster: str | None = None,
    project: Path | None = None,
) -> Config:
    """All layers, validated and laid over each other.

    Args:
        options: What the command line said, as nested tables; None values are left out.
        cluster: Which `[clusters.NAME]`; default `RVSTATE_CLUSTER`, then `default_cluster`.
        project: The project's root directory, whose own configuration counts too.

    Raises:
        ConfigError: A file cannot be read, or holds a key or value that is wrong.
    """
    path = config_path()
    texts = [(str(path), read_text(path))]
    if project is not None:
        texts += [
            (str(p), read_text(p)) for p in (project / "rvstate.toml", project / "pyproject.toml")
        ]
    chosen = cluster or os.environ.get("RVSTATE_CLUSTER")
    variables = {
        k: v
        for k, v in os.environ.items()
        if k.startswith("RVSTATE_") and k not in _PLAIN_VARIABLES and not k.startswith("RVSTATE__")
    }
    return lay(path, texts, drop_none(dict(options or {})), chosen, variables)


def lay(
    path: Path,
    texts: list[tuple[str, str | None]],
    options: Table,
    chosen: str | None,
    variables: dict[str, str],
) -> Config:
    """Texts laid over each other: the first is the user's own file, the others the project's."""
    mine = parse(str(path), texts[0][1])
    clusters = as_table(mine.pop("clusters", {}), str(path), "clusters")
    default = mine.pop("default_cluster", None)
    if default is not None and not isinstance(default, str):
        raise ConfigError(f"default_cluster in {path} is not a text.", "Put it in quotes.")
    for name, table in clusters.items():
        check_layer(Layer(f"{path} [clusters.{name}]", as_table(table, str(path), "clusters")))
    layers = [Layer(str(path), mine), *_cluster_layer(path, clusters, chosen or default)]
    stages: list[Layer] = []
    for name, text in texts[1:]:
        table = parse(name, text)
        if name.endswith("pyproject.toml"):
            table = as_table(table.get("tool", {}), name, "tool").get("rvstate", {})
        declared = as_table(table, name, "tool.rvstate").pop("stages", None)
        if declared:
            stages.append(Layer(name, as_table(declared, name, "stages")))
        if table:
            layers.append(Layer(name, table))
            check_project(layers[-1])
    layers += [Layer(name, table) for name, table in _variable_layers(variables)]
    layers.append(Layer("options", options))
    for layer in layers:
        check_layer(layer)
    merged = merge(layer.table for layer in layers)
    site = load_site(_site_name(merged))
    profile = Layer(f"site profile {site.name}", _of_site(site))
    settings = schema.build(Settings, merge((profile.table, merged)), "the merged configuration")
    secret = any(_has_secret(table) for table in (mine, *clusters.values()))
    sources = _sources((profile, *layers))
    return Config(settings, site, path, chosen or default, sources, secret, tuple(stages))


def cluster_names() -> tuple[str, ...]:
    """The names of the `[clusters.NAME]` tables in the user's own file.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = config_path()
    clusters = parse(str(path), read_text(path)).get("clusters", {})
    return tuple(as_table(clusters, str(path), "clusters"))


def _cluster_layer(path: Path, clusters: Table, chosen: str | None) -> Iterator[Layer]:
    if chosen is None:
        return
    if chosen not in clusters:
        near = nearest(chosen, clusters)
        known = f"Did you mean {near}?" if near else f"Known: {', '.join(clusters) or 'none'};"
        raise ConfigError(
            f"There is no cluster {chosen!r} in {path}.",
            f"{known} To add it, write [clusters.{chosen}.connection] there.",
        )
    yield Layer(f"{path} [clusters.{chosen}]", clusters[chosen])


def _of_site(site: Site) -> Table:
    """What a site profile says about settings of the user."""
    return drop_none(
        {
            "defaults": dataclasses.asdict(site.defaults),
            "paths": {"scratch": site.paths.scratch},
            "modules": dataclasses.asdict(site.modules),
            "presets": {name: _set(preset) for name, preset in (site.presets or {}).items()},
        }
    )


def _set(preset: Preset) -> Table:
    """The keys of a preset that say something."""
    usual = Preset()
    table = dataclasses.asdict(preset)
    return {key: value for key, value in table.items() if value != getattr(usual, key)}


def _has_secret(table: Table) -> bool:
    return any(isinstance(table.get(t), dict) and table[t].get(key) for t, key in SECRET_KEYS)


def _site_name(merged: Table) -> str:
    connection = merged.get("connection", {})
    if connection.get("site"):
        return str(connection["site"])
    return "generic" if connection.get("host") else _LOCAL_SITE


def _variable_layers(variables: dict[str, str]) -> list[tuple[str, Table]]:
    """`RVSTATE_DEFAULTS_TIME=1h` as a table, its value read as the key's type wants it."""
    layers = []
    tables = schema.keys(Settings)
    every = [f"RVSTATE_{t}_{k}".upper() for t in tables for k in schema.keys(tables[t])]
    for name, text in sorted(variables.items()):
        rest = name.removeprefix("RVSTATE_").lower()
        table = next((t for t in tables if rest.startswith(f"{t}_")), None)
        key = rest[len(table) + 1 :] if table else ""
        if table is not None and key in schema.keys(tables[table]):
            value = schema.read_text(schema.keys(tables[table])[key], text, f"The variable {name}")
            layers.append((name, {table: {key: value}}))
            continue
        # other programs may have variables of that prefix; a slip of the pen is told
        near = nearest(name, every, 0.6 if table else 0.85)
        if table is not None or near:
            raise ConfigError(
                f"The variable {name} sets nothing that rvstate knows.",
                f"Did you mean {near}?" if near else "Unset it.",
            )
    return layers


def _sources(layers: tuple[Layer, ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for layer in layers:
        for table, keys in layer.table.items():
            for key, value in keys.items() if isinstance(keys, dict) else ():
                found[f"{table}.{key}"] = layer.name
                # a preset has keys of its own
                for inner in value if isinstance(value, dict) else ():
                    found[f"{table}.{key}.{inner}"] = layer.name
    return tuple(sorted(found.items()))
