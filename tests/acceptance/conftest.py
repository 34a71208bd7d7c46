"""Accounts on the mini-cluster, rvstate pointed at them, and a witness without its code."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from accountkit import Rv

from rvstate.transport import Ssh


@dataclass
class Remote(Rv):
    """Rvstate for one user of the cluster.

    Args:
        cluster: The mini-cluster.
        user: The account.
        alias: The login node's name in the cluster's ssh config.
    """

    cluster: Any = None
    user: str = "abc1de"
    alias: str = "rv-login"

    @property
    def home(self) -> str:
        return f"/home/{self.user}"

    @property
    def scratch(self) -> str:
        return f"/scratch/{self.user}"

    @property
    def transport(self) -> Ssh:
        return Ssh(self.alias, self.user, str(self.cluster.ssh_config))

    def configure(self, more: str = "") -> None:
        self.config(
            f'[connection]\nhost = "{self.alias}"\nuser = "{self.user}"\nsite = "uva"\n'
            f'ssh_config = "{self.cluster.ssh_config}"\n{more}'
        )

    def sh(self, script: str, *words: str) -> str:
        """Run a script as the user, past rvstate and ssh."""
        done = self.cluster.run_as(self.user, "sh", "-c", script, "sh", *words)
        return str(done.stdout)

    def snapshot(self) -> str:
        """The whole account: names, kinds, modes, owners, dates, link targets and contents."""
        script = (
            'find "$@" -printf "%p %y %m %U %G %T@ %l\\0" | sort -z; '
            'find "$@" -type f -print0 | sort -z | xargs -0r sha256sum'
        )
        done = self.cluster.exec("sh", "-c", script, "sh", self.home, self.scratch)
        assert self.home in done.stdout
        return hashlib.sha256(done.stdout.encode()).hexdigest()


@pytest.fixture
def remote(cluster: Any, tmp_path: Path) -> Iterator[Callable[..., Remote]]:
    """Makes rvstate for a user of the freshly reset cluster."""
    cluster.reset()
    made: list[Remote] = []

    def make(user: str = "abc1de", alias: str = "rv-login", more: str = "") -> Remote:
        found = Remote(tmp_path / f"{user}-{len(made)}", cluster=cluster, user=user, alias=alias)
        found.configure(more)
        made.append(found)
        return found

    yield make
    for found in made:
        found.transport.disconnect()


@pytest.fixture
def account(remote: Callable[..., Remote]) -> Remote:
    """Rvstate for abc1de, not connected yet."""
    found = remote()
    found.transport.disconnect()
    return found


@pytest.fixture
def see(cluster: Any) -> Callable[[Remote], Any]:
    """The account through testinfra."""

    def look(found: Remote) -> Any:
        import testinfra

        return testinfra.get_host(
            f"ssh://{found.user}@{found.alias}", ssh_config=str(cluster.ssh_config)
        )

    return look
