"""TOML files as values: the door to pydantic and tomlkit, both loaded only when needed.

Layers, weakest first: site profile, `~/.rv/config.toml`, the project's `[tool.rvstate]` or
`rvstate.toml`, `RVSTATE_*` variables, options.  What was validated once is kept beside the config
under the digest of all layers, so that a command with nothing new to read imports no pydantic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import os
import pickle
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rvstate
from rvstate import assets
from rvstate.errors import ConfigError
from rvstate.model.settings import SECRET_KEYS, Settings
from rvstate.model.site import Site

_LOCAL_SITE = "local"
# What a site profile may say about settings of the user.
_SITE_TABLES = ("defaults",)
_PLAIN_VARIABLES = frozenset({"RVSTATE_CONFIG", "RVSTATE_HOME", "RVSTATE_CLUSTER"})

Table = dict[str, Any]


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

    @property
    def host(self) -> str:
        """The ssh alias, or `@local`."""
        return self.settings.connection.host or "@local"

    @property
    def holds_secret(self) -> bool:
        """Whether the user's own file holds a secret."""
        mine = {key for key, layer in self.sources if layer == str(self.path)}
        return any(f"{table}.{key}" in mine for table, key in SECRET_KEYS)


def home() -> Path:
    """The local state directory: `RVSTATE_HOME`, or `~/.rv`."""
    return Path(os.environ.get("RVSTATE_HOME") or "~/.rv").expanduser().absolute()


def config_path() -> Path:
    """The user's config file: `RVSTATE_CONFIG`, or `config.toml` in the state directory."""
    named = os.environ.get("RVSTATE_CONFIG")
    return Path(named).expanduser().absolute() if named else home() / "config.toml"


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
    texts = [(str(path), _text(path))]
    if project is not None:
        texts += [(str(p), _text(p)) for p in (project / "rvstate.toml", project / "pyproject.toml")]
    asked = _drop_none(dict(options or {}))
    chosen = cluster or os.environ.get("RVSTATE_CLUSTER")
    variables = {
        k: v
        for k, v in os.environ.items()
        if k.startswith("RVSTATE_") and k not in _PLAIN_VARIABLES and not k.startswith("RVSTATE__")
    }
    # another rvstate, another site folder or another text must not find this answer
    own_sites = sorted((home() / "sites").glob("*.toml")) if (home() / "sites").is_dir() else []
    key = repr(
        (rvstate.__version__, assets.site_names(), texts, asked, chosen, sorted(variables.items()))
        + tuple((str(p), p.stat().st_mtime_ns) for p in own_sites)
    )
    kept = home() / "state" / f"config-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    known = _recall(kept)
    if known is not None:
        return known
    config = _load(path, texts, asked, chosen, variables)
    _remember(kept, config)
    return config


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Mend or move the file.") from error


def _recall(path: Path) -> Config | None:
    """A kept answer, if it is ours alone; anything odd means: validate again."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                return None
            found = pickle.load(file)  # noqa: S301 - our own file, owner and mode just checked
    except Exception:  # noqa: BLE001 - a damaged cache is not an error of the user's
        return None
    return found if isinstance(found, Config) else None


def _remember(path: Path, config: Config) -> None:
    # no room or no right to keep it costs a tenth of a second next time, nothing else
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in path.parent.glob("config-*"):
            old.unlink(missing_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            pickle.dump(config, file)
        part.replace(path)


def _load(
    path: Path,
    texts: list[tuple[str, str | None]],
    options: Table,
    chosen: str | None,
    variables: dict[str, str],
) -> Config:
    mine = _parse(str(path), texts[0][1])
    clusters = _table(mine.pop("clusters", {}), str(path), "clusters")
    default = mine.pop("default_cluster", None)
    chosen = chosen or default
    layers = [Layer(str(path), mine)]
    if chosen is not None:
        if chosen not in clusters:
            raise ConfigError(
                f"There is no cluster {chosen!r} in {path}.",
                f"Known: {', '.join(clusters) or 'none'}; add [clusters.{chosen}.connection].",
            )
        layers.append(Layer(f"{path} [clusters.{chosen}]", clusters[chosen]))
    for name, text in texts[1:]:
        table = _parse(name, text)
        if name.endswith("pyproject.toml"):
            table = table.get("tool", {}).get("rvstate", {})
        table.pop("stages", None)
        if table:
            layers.append(Layer(name, table))
    layers += [Layer(name, table) for name, table in _variable_layers(variables)]
    layers.append(Layer("options", options))
    for layer in layers:
        _validate(Settings, layer.table, layer.name)
    merged = _merge(layer.table for layer in layers)
    site = load_site(_site_name(merged))
    base = _drop_none({"defaults": dataclasses.asdict(site.defaults)})
    profile = Layer(f"site profile {site.name}", base)
    merged = _merge((base, merged))
    settings = _validate(Settings, merged, "the merged configuration")
    return Config(settings, site, path, chosen, _sources((profile, *layers)))


def _site_name(merged: Table) -> str:
    connection = merged.get("connection", {})
    if connection.get("site"):
        return str(connection["site"])
    return "generic" if connection.get("host") else _LOCAL_SITE


def load_site(name: str) -> Site:
    """A site profile: the user's own `sites/NAME.toml` in the state directory, or one of ours.

    Raises:
        ConfigError: There is none of that name, or it is wrong.
    """
    own = home() / "sites" / f"{name}.toml"
    if own.is_file():
        return _site(own.read_text("utf-8"), str(own))
    text = assets.site(name)
    if text is None:
        near = difflib.get_close_matches(name, assets.site_names(), 1)
        raise ConfigError(
            f"There is no site profile {name!r}.",
            f"Did you mean {near[0]}?" if near else f"Known: {', '.join(assets.site_names())}.",
        )
    return _site(text, f"site profile {name}")


def _site(text: str, name: str) -> Site:
    site = _validate(Site, _parse(name, text), name)
    return site


def _parse(name: str, text: str | None) -> Table:
    if text is None:
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.", "Mend that line.") from error


def _table(value: object, name: str, key: str) -> Table:
    if isinstance(value, dict):
        return value
    raise ConfigError(f"{key} in {name} is not a table.", f"Write [{key}.NAME].")


def _validate(kind: type[Any], table: Table, name: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        raise _explain(kind, error.errors(include_input=False), name) from None


def _explain(kind: type[Any], errors: list[Any], name: str) -> ConfigError:
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_keys(kind, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(sorted(known))}."
        return ConfigError(f"{where} in {name} is not a key that rvstate knows.", hint)
    if first["type"] == "missing":
        return ConfigError(f"{where} is missing in {name}.", "Add it.")
    message = first["msg"].removeprefix("Input should be ")
    return ConfigError(f"{where} in {name} is wrong: it should be {message}.", "Mend that value.")


def _known_keys(kind: type[Any], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        found = _field_types(kind).get(str(part))
        if found is None:
            return []
        kind = found
    return list(_field_types(kind)) if dataclasses.is_dataclass(kind) else []


def _field_types(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}


def _variable_layers(variables: dict[str, str]) -> list[tuple[str, Table]]:
    """`RVSTATE_DEFAULTS_TIME=1h` as a table, its value read as the key's type wants it."""
    layers = []
    tables = _field_types(Settings)
    for name, text in sorted(variables.items()):
        rest = name.removeprefix("RVSTATE_").lower()
        table = next((t for t in tables if rest.startswith(f"{t}_")), None)
        key = rest[len(table) + 1 :] if table else ""
        kinds = _field_types(tables[table]) if table else {}
        if table is None or key not in kinds:
            every = [f"RVSTATE_{t}_{k}".upper() for t in tables for k in _field_types(tables[t])]
            near = difflib.get_close_matches(name, every, 1)
            raise ConfigError(
                f"The variable {name} sets nothing that rvstate knows.",
                f"Did you mean {near[0]}?" if near else "Unset it.",
            )
        layers.append((name, {table: {key: _typed(text, kinds[key], name)}}))
    return layers


def _typed(text: str, kind: Any, name: str) -> Any:
    args = typing.get_args(kind)
    if kind is str or (isinstance(kind, types.UnionType) and str in args):
        return text
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise ConfigError(
            f"The variable {name} holds {text!r}, which is not a number, true or false.",
            "Mend or unset it.",
        ) from None


def _merge(tables: Any) -> Table:
    merged: Table = {}
    for table in tables:
        for key, value in table.items():
            if isinstance(value, dict):
                merged[key] = _merge((merged.get(key, {}), value))
            else:
                merged[key] = value
    return merged


def _drop_none(table: Table) -> Table:
    found: Table = {}
    for key, value in table.items():
        if isinstance(value, dict):
            value = _drop_none(value)
            if not value:
                continue
        if value is not None:
            found[key] = value
    return found


def _sources(layers: tuple[Layer, ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for layer in layers:
        for table, keys in layer.table.items():
            for key in keys if isinstance(keys, dict) else ():
                found[f"{table}.{key}"] = layer.name
    return tuple(sorted(found.items()))


def scratch_template(config: Config) -> str:
    """The scratch directory as the look fills it in, `{user}` and `{home}` left to it."""
    text = config.settings.paths.scratch or config.site.paths.scratch
    return text.replace("{state}", str(home()))


def home_template(config: Config) -> str:
    """The account's home directory; empty for the login's own."""
    if config.settings.paths.home:
        return config.settings.paths.home
    return str(home() / "local" / "home") if config.site.scheduler == "process" else ""
