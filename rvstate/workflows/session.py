"""What every command starts with: settings, the way to the account, local state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvstate import config as config_door
from rvstate.config import Config
from rvstate.state import State
from rvstate.transport import LOCAL, Local, Ssh, Transport


@dataclass(frozen=True, slots=True)
class Session:
    """One account, seen from this machine."""

    config: Config
    transport: Transport
    state: State

    @property
    def scratch(self) -> str:
        """Template of the scratch directory."""
        return config_door.scratch_template(self.config)

    @property
    def home(self) -> str:
        """The account's home directory; empty for the login's own."""
        return config_door.home_template(self.config)

    @property
    def label(self) -> str:
        """How output names the account."""
        user = self.config.settings.connection.user
        return f"{user}@{self.config.host}" if user else self.config.host


def open_session(
    options: Mapping[str, Any] | None = None,
    *,
    cluster: str | None = None,
    project: Path | None = None,
    interactive: bool = False,
) -> Session:
    """Read the settings and choose the transport; connects nowhere yet.

    Args:
        options: Settings from the command line, as nested tables.
        cluster: Which `[clusters.NAME]`.
        project: The project's root.
        interactive: Whether a person may be asked for a second factor.
    """
    config = config_door.load(options=options, cluster=cluster, project=project)
    return Session(config, transport(config, interactive), State(config_door.home()))


def transport(config: Config, interactive: bool) -> Transport:
    """The way to the account that the settings name."""
    if config.host == LOCAL:
        own = config.site.scheduler == "process"
        home = Path(config_door.home_template(config)) if own else None
        if home is not None:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Local(home)
    connection = config.settings.connection
    return Ssh(
        config.host, connection.user, connection.ssh_config, interactive, connection.hostname
    )
