"""TOML files as values, and careful edits of the user's own (the door to tomlkit, for edits only).

Layers, weakest first: site profile, `~/.rv/config.toml` and its table of the chosen cluster, the
project's `[tool.rvstate]` or `rvstate.toml`, `RVSTATE_*` variables, options.  Every layer is read
and checked each time: that takes a few milliseconds, and nothing kept can be stale.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvstate import assets, schema
from rvstate.errors import ConfigError, RvstateError, nearest
from rvstate.model.settings import SECRET_KEYS, SECURITY, Settings
from rvstate.model.site import CLOCKS, MODES, TOUCH_POLICIES, Site
from rvstate.schema import Table
from rvstate.slurm import duration
from rvstate.state import write_private

_LOCAL_SITE = "local"
# Variables with a meaning of their own, which are no settings.
_PLAIN_VARIABLES = frozenset({"RVSTATE_CONFIG", "RVSTATE_HOME", "RVSTATE_CLUSTER"})
_OWN_KEYS = ("clusters", "default_cluster")
_MAY = ("allowed", "forbidden", "unknown")
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
        texts += [
            (str(p), _text(p)) for p in (project / "rvstate.toml", project / "pyproject.toml")
        ]
    chosen = cluster or os.environ.get("RVSTATE_CLUSTER")
    variables = {
        k: v
        for k, v in os.environ.items()
        if k.startswith("RVSTATE_") and k not in _PLAIN_VARIABLES and not k.startswith("RVSTATE__")
    }
    return _load(path, texts, _drop_none(dict(options or {})), chosen, variables)


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Mend or move the file.") from error


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
    if default is not None and not isinstance(default, str):
        raise ConfigError(f"default_cluster in {path} is not a text.", "Put it in quotes.")
    for name, table in clusters.items():
        _check_layer(Layer(f"{path} [clusters.{name}]", _table(table, str(path), "clusters")))
    layers = [Layer(str(path), mine), *_cluster_layer(path, clusters, chosen or default)]
    for name, text in texts[1:]:
        table = _parse(name, text)
        if name.endswith("pyproject.toml"):
            table = _table(table.get("tool", {}), name, "tool").get("rvstate", {})
        if _table(table, name, "tool.rvstate").pop("stages", None) or table:
            layers.append(Layer(name, table))
    layers += [Layer(name, table) for name, table in _variable_layers(variables)]
    layers.append(Layer("options", options))
    for layer in layers:
        _check_layer(layer)
    merged = _merge(layer.table for layer in layers)
    site = load_site(_site_name(merged))
    profile = Layer(f"site profile {site.name}", _of_site(site))
    settings = schema.build(Settings, _merge((profile.table, merged)), "the merged configuration")
    secret = any(_has_secret(table) for table in (mine, *clusters.values()))
    sources = _sources((profile, *layers))
    return Config(settings, site, path, chosen or default, sources, secret)


def cluster_names() -> tuple[str, ...]:
    """The names of the `[clusters.NAME]` tables in the user's own file.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = config_path()
    clusters = _parse(str(path), _text(path)).get("clusters", {})
    return tuple(_table(clusters, str(path), "clusters"))


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
    return _drop_none(
        {
            "defaults": dataclasses.asdict(site.defaults),
            "paths": {"scratch": site.paths.scratch},
            "modules": dataclasses.asdict(site.modules),
        }
    )


def _has_secret(table: Table) -> bool:
    return any(isinstance(table.get(t), dict) and table[t].get(key) for t, key in SECRET_KEYS)


def _check_layer(layer: Layer) -> None:
    """Raise ConfigError for the first thing in it that cannot be right."""
    for key in layer.table:
        if key not in schema.keys(Settings):
            raise schema.unknown_key((key,), (*schema.keys(Settings), *_OWN_KEYS), layer.name)
    settings = schema.build(Settings, layer.table, layer.name)
    connection, paths = settings.connection, settings.paths
    for key, text in (("host", connection.host), ("user", connection.user)):
        if text is not None and (not text or text.startswith("-") or not text.isprintable()):
            raise _bad(f"connection.{key}", layer, "a name", "Give a name, for example rivanna.")
    for key, text in (("host", connection.host), ("hostname", connection.hostname)):
        if text is not None and (" " in text or text.startswith("-")):
            raise _bad(f"connection.{key}", layer, "one name without blanks", "Mend it.")
    for key, text in (("scratch", paths.scratch), ("home", paths.home)):
        if text is not None and not text.startswith(("/", "{home}", "{state}")):
            raise _bad(f"paths.{key}", layer, "an absolute path", "Write it from / on.")
    if connection.ssh_config is not None and not connection.ssh_config.startswith(("/", "~")):
        raise _bad("connection.ssh_config", layer, "an absolute path", "Write it from / or ~ on.")
    if settings.scratch_keepalive.mode not in (None, *MODES):
        raise _bad("scratch_keepalive.mode", layer, f"one of {', '.join(MODES)}", "Mend it.")
    if settings.defaults.time is not None:
        _check_time(settings.defaults.time, layer)
    if settings.defaults.cpus is not None and settings.defaults.cpus < 1:
        raise _bad("defaults.cpus", layer, "at least 1", "Mend it.")
    _check_notifications(settings, layer)


# An address without what a shell, a line of curl's settings or a header could take for its own.
_URL = re.compile(r"https://[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]+")
_LOOPBACK = re.compile(r"http://(?:127\.[0-9.]+|localhost|\[::1\])(?::[0-9]+)?(?:/\S*)?")
_ADDRESS = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+")


def _check_notifications(settings: Settings, layer: Layer) -> None:
    told, receiver = settings.notifications, settings.receiver
    for key, text in (("notifications.url", told.url), ("receiver.chat_url", receiver.chat_url)):
        plain = text is not None and _URL.fullmatch(text.replace("http://", "https://", 1))
        if text is not None and not (plain and (_URL.fullmatch(text) or _LOOPBACK.fullmatch(text))):
            wanted = "an https address (http only on this machine itself)"
            raise _bad(key, layer, wanted, "For example https://notify.example.org/.")
    for key, text in (
        ("notifications.email", told.email),
        ("receiver.sender", receiver.sender),
        ("receiver.recipient", receiver.recipient),
    ):
        if text is not None and not (_ADDRESS.fullmatch(text) and text.isprintable()):
            raise _bad(key, layer, "one mail address", "For example abc1de@example.org.")
    if receiver.smtp_security not in SECURITY:
        raise _bad("receiver.smtp_security", layer, f"one of {', '.join(SECURITY)}", "Mend it.")


def _check_time(text: str, layer: Layer) -> None:
    try:
        duration.parse(text)
    except RvstateError as error:
        raise _bad("defaults.time", layer, "a walltime", "For example 2h or 2:59:00.") from error


def _bad(key: str, layer: Layer, wanted: str, remedy: str) -> ConfigError:
    return ConfigError(f"{key} in {layer.name} is wrong: it should be {wanted}.", remedy)


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
    known = site_names()
    if name not in known:
        near = nearest(name, known)
        raise ConfigError(
            f"There is no site profile {name!r}.",
            f"Did you mean {near}?" if near else f"Known: {', '.join(known)}.",
        )
    own = _own_site(name)
    text = _text(own)
    if text is not None:
        return read_site(text, str(own))
    return read_site(assets.site(name) or "", f"site profile {name}")


def _own_site(name: str) -> Path:
    return home() / "sites" / f"{name}.toml"


def site_names() -> tuple[str, ...]:
    """The names of all site profiles, the user's own included."""
    folder = home() / "sites"
    own = {path.stem for path in folder.glob("*.toml")} if folder.is_dir() else set()
    return tuple(sorted({*assets.site_names(), *own}))


def site_text(name: str) -> tuple[str, str]:
    """A profile as it is written, and where that is.

    Raises:
        ConfigError: There is none of that name.
    """
    load_site(name)
    own = _own_site(name)
    text = _text(own)
    if text is not None:
        return text, str(own)
    return assets.site(name) or "", "shipped with rvstate"


def read_site(text: str, name: str) -> Site:
    """A site profile from its text.

    Args:
        text: TOML.
        name: Where it comes from, for messages.

    Raises:
        ConfigError: It is wrong.
    """
    site: Site = schema.build(Site, _parse(name, text), name)
    rules = (
        ("purge.clock", site.purge.clock, CLOCKS),
        ("purge.touch_policy", site.purge.touch_policy, TOUCH_POLICIES),
        ("purge.mode", site.purge.mode, MODES),
        ("scheduling.remote_cron", site.scheduling.remote_cron, _MAY),
        ("scheduling.scrontab", site.scheduling.scrontab, _MAY),
        ("scheduling.after_job", site.scheduling.after_job, _MAY),
        ("scheduler", site.scheduler, ("slurm", "process")),
    )
    for key, value, allowed in rules:
        if value not in allowed:
            raise ConfigError(
                f"{key} in {name} is {value!r}, which means nothing.",
                f"Use one of {', '.join(allowed)}.",
            )
    return site


def keep_site(name: str, text: str, *, replace: bool = False) -> Path:
    """Keep a site profile of the user's own, checked.

    Raises:
        ConfigError: The text is wrong, or there is one of that name and `replace` is not set.
    """
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise ConfigError(
            f"{name!r} cannot be the name of a site profile.",
            "Use letters, digits, dashes and underscores.",
        )
    read_site(text, f"the draft of {name}")
    path = _own_site(name)
    if path.exists() and not replace:
        raise ConfigError(f"{path} is there already.", "Use --force to replace it.")
    _private_home()
    write(path, text)
    return path


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


def explain(config: Config) -> tuple[Explained, ...]:
    """Every key with the value in force and the layer that set it, in the order of the tables."""
    layers = dict(config.sources)
    rows = []
    for table, kind in schema.keys(Settings).items():
        for key in schema.keys(kind):
            name = f"{table}.{key}"
            secret = (table, key) in SECRET_KEYS
            value = getattr(getattr(config.settings, table), key)
            shown = "(set)" if secret and value else value
            rows.append(Explained(name, shown, layers.get(name, DEFAULT), secret))
    return tuple(rows)


def key_type(key: str) -> Any:
    """The type of a `table.key`.

    Raises:
        ConfigError: There is no such key.
    """
    table, _, rest = key.partition(".")
    tables = schema.keys(Settings)
    if table in tables and rest in schema.keys(tables[table]):
        return schema.keys(tables[table])[rest]
    every = [f"{t}.{k}" for t in tables for k in schema.keys(tables[t])]
    near = nearest(key, every)
    raise ConfigError(
        f"{key} is not a key that rvstate knows.",
        f"Did you mean {near}?" if near else "`rvstate config --explain` lists all of them.",
    )


def raw(cluster: str | None = None) -> Table:
    """The user's own file as it is written, or its table of one cluster; unchecked."""
    path = config_path()
    table = _parse(str(path), _text(path))
    if cluster is None:
        return table
    found = _table(table.get("clusters", {}), str(path), "clusters").get(cluster, {})
    return _table(found, str(path), f"clusters.{cluster}")


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
        before = _text(path) or ""
        table = _parse(str(path), before)
        changed = {k: v for k, v in wanted.items() if _get(table, k) != _plain(v)}
        if not changed:
            return ()
        after = _edited(before, changed)
        for place, value in changed.items():
            _put(table, place, _plain(value))
        if _without_empty(_parse(str(path), after)) != _without_empty(table):
            raise ConfigError(
                f"{path} is written in a way that cannot be edited safely.",
                f"Set {', '.join('.'.join(k) for k in changed)} there by hand.",
            )
        _load(path, [(str(path), after)], {}, cluster, {})
        _private_home()
        write(path, after)
    return tuple(".".join(key) for key in changed)


def preview(values: Mapping[str, Any], *, cluster: str | None = None) -> Config:
    """The settings that would be in force after `set_keys`; nothing is written.

    Raises:
        ConfigError: The file would not be valid.
    """
    path = config_path()
    text = _text(path) or ""
    _parse(str(path), text)
    return _load(path, [(str(path), _edited(text, _wanted(values, cluster)))], {}, cluster, {})


def _wanted(
    values: Mapping[str, Any], cluster: str | None, more: Mapping[str, Any] | None = None
) -> dict[tuple[str, ...], Any]:
    for key in values:
        key_type(key)
    prefix = ("clusters", cluster) if cluster else ()
    wanted = {(*prefix, *key.split(".", 1)): value for key, value in values.items()}
    return wanted | {(key,): value for key, value in (more or {}).items()}


def write(path: Path, text: str) -> None:
    """Put a private file (0600) in place, at once or not at all; a link stays a link."""
    write_private(path.resolve(), text)


def _private_home() -> None:
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)


@contextlib.contextmanager
def _edit_lock() -> Iterator[None]:
    _private_home()
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


def _without_empty(table: Table) -> Table:
    found = {k: _without_empty(v) if isinstance(v, dict) else v for k, v in table.items()}
    return {k: v for k, v in found.items() if v != {}}


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


def toml(table: Table, head: str = "") -> str:
    """A table as TOML, tables of tables under headings of their own.

    Args:
        table: Plain values.
        head: A comment for the beginning, as lines that start with `#`.
    """
    import tomlkit

    return head + tomlkit.dumps(table)
