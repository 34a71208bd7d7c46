"""From an address to a config file: try the connection, look around, propose, write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rvstate import config as config_door
from rvstate import sshconfig, suggesting
from rvstate.errors import ConfigError
from rvstate.model.settings import Preset
from rvstate.state import State
from rvstate.transport import LOCAL, Ssh
from rvstate.workflows import discover, session
from rvstate.workflows.discover import Discovery
from rvstate.workflows.session import Session


@dataclass(frozen=True, slots=True)
class Looked:
    """What the connection test found, and what follows for settings that nobody has given.

    Args:
        values: The settings so far: "table.key" to value.
        found: The cluster.
        site: The profile in use: given, configured before, or suggested.
        suggested: Whether the profile is our suggestion.
        scratch: The directory to use; None where there is none to be found.
    """

    values: dict[str, Any]
    found: Discovery
    site: str
    suggested: bool
    scratch: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """What came of it: the config file, its keys that changed, and the ssh config if it changed."""

    path: Path
    changed: tuple[str, ...]
    ssh_config: Path | None


def known_hosts(ssh_config: str | None) -> tuple[str, ...]:
    """The host aliases of the user's ssh config, as suggestions."""
    return sshconfig.aliases(_read(ssh_config_path(ssh_config)))


def ssh_config_path(ssh_config: str | None) -> Path:
    """The user's ssh config, or the one that the settings name."""
    return Path(ssh_config or "~/.ssh/config").expanduser()


def address(host: str, user: str | None, ssh_config: str | None) -> str:
    """The address that ssh would connect to for a host; asks nobody but ssh's configuration."""
    return Ssh(host, user, ssh_config).described().get("hostname", host)


def open_account(values: Mapping[str, Any], cluster: str | None, *, interactive: bool) -> Session:
    """The account that the settings would mean, before they are written.

    Raises:
        ConfigError: They would not be valid.
    """
    config = config_door.preview(values, cluster=cluster)
    way = session.transport(config, interactive)
    return Session(config, way, State(config_door.home()))


def look(account: Session, values: Mapping[str, Any], scratch: str | None) -> Looked:
    """Test the connection with the one command that looks around.

    Args:
        account: From `open_account`.
        values: The same settings.
        scratch: The scratch directory that the user named, if any.

    Raises:
        RvstateError: The cluster cannot be reached, or its answer is no answer.
        ConfigError: The user named a scratch directory or an account that is not there.
    """
    found = discover.discover(account, (scratch,) if scratch else ())
    fitting = None
    if account.config.settings.connection.site is None and found.slurm:
        fitting = _fitting_site(account, found)
    site = fitting or account.config.site.name
    _check_account(found, values.get("defaults.account"))
    place = _scratch(account, found, site, scratch)
    return Looked(dict(values), found, site, fitting is not None, place)


def _fitting_site(account: Session, found: Discovery) -> str | None:
    connection = account.config.settings.connection
    reached = connection.hostname or ""
    if not reached and account.config.host != LOCAL:
        reached = address(account.config.host, connection.user, connection.ssh_config)
    sites = {name: config_door.load_site(name) for name in config_door.site_names()}
    return discover.suggest_site(found, reached, sites)


def _check_account(found: Discovery, account: str | None) -> None:
    if account and found.accounts and account not in found.accounts:
        raise ConfigError(
            f"Slurm knows no account {account!r} of yours.",
            f"You may charge: {', '.join(found.accounts)}.",
        )


def _scratch(account: Session, found: Discovery, site: str, named: str | None) -> str | None:
    if named:
        path = named.replace("{user}", found.user).replace("{home}", found.home)
        place = found.place(path)
        if place is None or not place.writable:
            raise ConfigError(
                f"{path} is not a directory on the cluster that you can write to.",
                _ways(found) or "Name one that exists.",
            )
        return place.path
    template = account.config.settings.paths.scratch
    configured = any(
        key == "paths.scratch" and not layer.startswith("site profile")
        for key, layer in account.config.sources
    )
    if not configured or not template:
        template = config_door.load_site(site).paths.scratch
    wanted = template.replace("{user}", found.user).replace("{home}", found.home)
    if configured or account.config.site.scheduler == "process":
        return wanted
    place = found.place(wanted)
    if place and place.writable:
        return place.path
    return next((p.path for p in found.places if p.writable), None)


def _ways(found: Discovery) -> str:
    paths = [place.path for place in found.places if place.writable]
    return f"There are: {', '.join(paths)}." if paths else ""


def complete(looked: Looked) -> dict[str, Any]:
    """The settings with what the look adds; a site's own scratch is not written down again."""
    values = dict(looked.values)
    if looked.suggested:
        values["connection.site"] = looked.site
    usual = config_door.load_site(looked.site).paths.scratch
    usual = usual.replace("{user}", looked.found.user).replace("{home}", looked.found.home)
    if looked.scratch and looked.scratch != usual and "{state}" not in usual:
        values["paths.scratch"] = looked.scratch
    return values


def write(
    values: Mapping[str, Any], *, cluster: str | None = None, ssh_block: bool = False
) -> Written:
    """Write the settings, and the ssh config's block where that was agreed to.

    Args:
        values: "table.key" to value.
        cluster: The `[clusters.NAME]` that they belong to.
        ssh_block: Whether the host becomes an alias in the ssh config.

    Raises:
        ConfigError: A file cannot be read, written, or would not be valid.
        RefusedError: The ssh config's block is damaged.
    """
    planned = _ssh_change(values) if ssh_block else None
    whole = config_door.raw()
    more: dict[str, Any] = {}
    if cluster and "default_cluster" not in whole and "connection" not in whole:
        more["default_cluster"] = cluster
    changed = config_door.set_keys(values, cluster=cluster, more=more)
    if planned is not None:
        config_door.write(*planned)
    return Written(config_door.config_path(), changed, planned[0] if planned else None)


def offered(account: Session, looked: Looked) -> dict[str, Preset]:
    """Presets that fit what the cluster reports, without those whose names are taken.

    Args:
        account: From `open_account`.
        looked: What was found.
    """
    found = looked.found
    site = config_door.load_site(looked.site)
    known = {*account.config.settings.presets, *(site.presets or {})}
    presets = suggesting.suggested(found.partitions, found.nodes, site)
    return {name: preset for name, preset in presets.items() if name not in known}


def preset_keys(presets: Mapping[str, Preset]) -> dict[str, Any]:
    """Presets as settings: "presets.NAME.key" to value, without what says nothing."""
    usual = Preset()
    return {
        f"presets.{name}.{field.name}": value
        for name, preset in presets.items()
        for field in fields(preset)
        if (value := getattr(preset, field.name)) != getattr(usual, field.name)
    }


def new_token() -> str:
    """A secret that signs events: 64 hexadecimal digits, 256 bits."""
    from secrets import token_hex

    return token_hex(32)


def _ssh_change(values: Mapping[str, Any]) -> tuple[Path, str] | None:
    host, hostname = values.get("connection.host"), values.get("connection.hostname")
    if not host or not hostname or host == hostname:
        raise ConfigError(
            "A block in the ssh configuration needs an alias and an address.",
            "Give both, for example --host rivanna --hostname login.hpc.virginia.edu.",
        )
    path = ssh_config_path(values.get("connection.ssh_config"))
    before = _read(path)
    after = sshconfig.with_host(before, host, hostname, values.get("connection.user"))
    return (path, after) if after != before else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "strict")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}).", "Mend it, or do without it."
        ) from error


def here() -> bool:
    """Whether this machine is itself a login node: Slurm's own programs are on it."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    return any((Path(folder) / "sbatch").is_file() for folder in folders if folder)
