"""The `cluster` fixture: one mini-cluster for the whole test session (see README.md)."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parent / "cluster"
EX_UNAVAILABLE = 69
UP_SECONDS = 900  # the first time packages are fetched; without that `up` gives up by itself


class UnavailableError(Exception):
    """No cluster can run here; the message says why."""


class Cluster:
    """A running mini-cluster."""

    def __init__(self, state: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.state = state
        self.ssh_config = state / "ssh_config"
        self._env = {**os.environ, **(env or {}), "CLUSTER_STATE": str(state)}
        # pid 1 inside ends when the other end of its standard input is closed: should these tests
        # be killed, the cluster is gone, too
        end, self._hold = os.pipe()
        try:
            self._up(end, options)
        except BaseException:
            os.close(self._hold)
            raise
        finally:
            os.close(end)
        self.facts: dict[str, Any] = json.loads(self.cli("status", "--json").stdout)

    def _up(self, end: int, options: tuple[str, ...]) -> None:
        command = [sys.executable, str(PROGRAM), "up", "--tied", *options]
        up = subprocess.run(
            command, env=self._env, stdin=end, capture_output=True, text=True, timeout=UP_SECONDS
        )
        if up.returncode == EX_UNAVAILABLE:
            raise UnavailableError(up.stderr.strip().splitlines()[-1])
        if up.returncode:
            raise RuntimeError(f"cluster up: exit {up.returncode}\n{up.stdout}{up.stderr}")

    def down(self) -> None:
        """End it and remove its state directory."""
        self.cli("down", "--wipe")
        os.close(self._hold)

    def cli(
        self, *argv: str, check: bool = True, stdin: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the cluster program with these arguments."""
        return _run([sys.executable, str(PROGRAM), *argv], check, stdin, timeout, self._env)

    def exec(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        return self.cli("exec", *argv, **options)

    def run_as(self, user: str, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as a user, without ssh."""
        return self.cli("as", user, *argv, **options)

    def ssh(
        self,
        command: str,
        *,
        user: str = "abc1de",
        host: str = "rv-login",
        options: tuple[str, ...] = ("-o", "BatchMode=yes"),
        check: bool = True,
        stdin: str = "",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command by ssh."""
        argv = ["ssh", "-F", str(self.ssh_config), *options, "-l", user, host, command]
        return _run(argv, check, stdin, timeout, dict(os.environ))

    def reset(self) -> None:
        """Heal, cancel all jobs, empty all users' files, crontabs, mail and counters."""
        self.cli("reset")

    def latency(self, what: float | str) -> None:
        """Set the round trip of the far addresses in ms, or a fault of the network."""
        self.cli("latency", str(what))

    def stats(self) -> dict[str, float]:
        """Count connections, bytes and turns through the far addresses."""
        counts: dict[str, float] = json.loads(self.cli("latency", "stats").stdout)
        return counts

    def logins(self, since: str = "") -> dict[str, Any]:
        """Count accepted logins and sessions since the mark of an earlier answer."""
        counts: dict[str, Any] = json.loads(self.cli("logins", "--since", since).stdout)
        return counts

    def fault(self, kind: str, *arguments: str) -> None:
        """Break something; `heal` and `reset` mend it."""
        self.cli("fault", kind, *arguments)

    def heal(self) -> None:
        """Undo every fault."""
        self.cli("heal")

    def mail(self) -> list[dict[str, Any]]:
        """Tell what was given to a mail program."""
        text = self.exec("sh", "-c", "cat /var/spool/cluster-mail/* 2>/dev/null || true").stdout
        return [json.loads(line) for line in text.splitlines()]


def _run(
    argv: list[str], check: bool, stdin: str, timeout: float, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=timeout, env=env
    )
    if check and done.returncode:
        raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def required() -> bool:
    """Tell whether a missing cluster is a failure, as in CI, rather than a skip."""
    return os.environ.get("CI") == "true" or os.environ.get("RVSTATE_REQUIRE_CLUSTER") == "1"


def start(*options: str, env: Mapping[str, str] | None = None) -> Cluster:
    """Bring up a cluster with its own state directory and addresses; skip if that cannot be."""
    # /tmp, since pytest's own directories are too deep for the sockets of ssh masters
    state = Path(tempfile.mkdtemp(prefix="rvstate-cluster-"))
    try:
        return Cluster(state, *options, env=env)
    except BaseException as e:
        shutil.rmtree(state)
        if not isinstance(e, UnavailableError):
            raise
        if required():
            pytest.fail(str(e), pytrace=False)
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Bring up one mini-cluster for the session; taken down however the session ends."""
    running = start()
    try:
        yield running
    finally:
        running.down()
