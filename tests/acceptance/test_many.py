"""Twenty accounts at once: side by side, few logins at a time, and each for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rvstate.transport import Ssh

pytestmark = pytest.mark.cluster

USERS = tuple(f"u{number:02}aa" for number in range(1, 21))
KINDS = ("--only", "directory,cache,shell")


@pytest.fixture
def many(remote: Callable[..., Any], cluster: Any) -> Iterator[Any]:
    """Rvstate with a [clusters.NAME] table for each of twenty users, nobody connected."""
    found = remote()
    tables = "".join(f'[clusters.{user}.connection]\nuser = "{user}"\n' for user in USERS)
    found.config(
        '[connection]\nhost = "rv-login"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n{tables}'
    )
    ways = [Ssh("rv-login", user, str(cluster.ssh_config)) for user in USERS]
    for way in ways:
        way.disconnect()
    yield found
    for way in ways:
        way.disconnect()


def hosts(many: Any, *words: str) -> list[dict[str, Any]]:
    """The hosts of `converge --all --json`."""
    done = many.run("converge", "--all", "--json", *KINDS, *words)
    found: list[dict[str, Any]] = done.json["hosts"]
    return found


def test_twenty_accounts_are_converged_and_then_nothing(many: Any, cluster: Any) -> None:
    """Every account is made as declared with one login of its own; a second run changes none."""
    mark = cluster.logins()["mark"]

    made = hosts(many, "-y")

    assert len(made) == len(USERS)
    assert all(host["verified"] for host in made)
    assert all(host["recap"]["changed"] > 20 for host in made)
    assert cluster.logins(mark)["accepted"] == dict.fromkeys(USERS, 1)
    link = cluster.exec("readlink", "/home/u20aa/.cache/huggingface").stdout.strip()
    assert link == "/scratch/u20aa/.cache/huggingface"

    again = hosts(many, "--check")

    assert [host["changes"] for host in again] == [[]] * len(USERS)
    assert [host["remote_commands"] for host in again] == [1] * len(USERS)


def test_an_account_in_trouble_stops_alone(many: Any, cluster: Any) -> None:
    """A host that is not there and an account that is refused do not hold the others."""
    text = (many.state / "config.toml").read_text()
    many.config(
        text + '[clusters.nowhere.connection]\nhost = "rv-nowhere.invalid"\nuser = "u01aa"\n'
    )
    cluster.run_as("u02aa", "sh", "-c", "mkdir -p ~/.cache && echo mine >~/.cache/pip")

    found = {host["host"]: host for host in hosts(many, "-y")}

    assert "cannot be resolved" in found["u01aa@rv-nowhere.invalid"]["error"]["message"]
    assert found["u02aa@rv-login"]["recap"]["refused"] == 1
    assert found["u02aa@rv-login"]["recap"]["changed"] == 0
    assert found["u03aa@rv-login"]["verified"] is True
    assert cluster.exec("cat", "/home/u02aa/.cache/pip").stdout == "mine\n"
