"""Medians of whole commands, warm, on a mini-cluster of the benchmark's own."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "cluster"))
from fixture import Cluster  # noqa: E402

BIN = Path(sys.executable).parent


class Bench:
    """A cluster, a state directory, and a stop watch."""

    def __init__(self, *, peers: bool, runs: int) -> None:
        self.peers = peers
        self.runs = runs
        self.home = Path(tempfile.mkdtemp(prefix="rvstate-bench-"))
        self.path = os.environ["PATH"]

    def __enter__(self) -> Bench:
        self.cluster = Cluster(self.home / "cluster")
        # one short directory for the peers' own control sockets
        self.sockets = Path(tempfile.mkdtemp(prefix="rvb-"))
        self.config("abc1de")
        return self

    def __exit__(self, *_: object) -> None:
        for user in (self.user, *(f"u{i:02}aa" for i in range(1, 21))):
            argv = [*self.ssh_argv(user), "-O", "exit", "rv-far"]
            subprocess.run(argv, capture_output=True, check=False)
        self.cluster.down()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def config(self, user: str) -> None:
        """Point rvstate at an account of the cluster, through the delaying address."""
        self.user = user
        (self.home / "rv").mkdir(exist_ok=True)
        (self.home / "rv" / "config.toml").write_text(
            f'[connection]\nhost = "rv-far"\nuser = "{user}"\nsite = "uva"\n'
            f'ssh_config = "{self.cluster.ssh_config}"\n'
        )

    def clusters(self, users: list[str]) -> None:
        """Point rvstate at several accounts, each a cluster named after its user."""
        tables = "".join(f'[clusters.{user}.connection]\nuser = "{user}"\n' for user in users)
        (self.home / "rv" / "config.toml").write_text(
            f'[connection]\nhost = "rv-far"\nsite = "uva"\n'
            f'ssh_config = "{self.cluster.ssh_config}"\n{tables}'
        )

    @property
    def env(self) -> dict[str, str]:
        """The environment of everything that is timed."""
        path = os.pathsep.join((str(BIN), self.path))
        # nothing runs in the background while something is measured
        own = {"RVSTATE_HOME": str(self.home / "rv"), "RVSTATE_SCRATCH_KEEPALIVE_SCHEDULE": "none"}
        return {**os.environ, "PATH": path, **own}

    def ssh_argv(self, user: str) -> list[str]:
        """A bare ssh over a warm connection: the limit for everything."""
        return [
            "ssh",
            *("-F", str(self.cluster.ssh_config), "-l", user),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=10m"),
            *("-o", f"ControlPath={self.sockets}/%C"),
        ]

    def run(self, *argv: str, cwd: Path | None = None, **env: str) -> str:
        """Run a command that must succeed."""
        done = subprocess.run(
            argv, env={**self.env, **env}, cwd=cwd, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def seconds(self, *argv: str, cwd: Path | None = None, runs: int | None = None) -> float:
        """Median seconds of a command, after one run that warms up."""
        self.run(*argv, cwd=cwd)
        taken = []
        for _ in range(runs or self.runs):
            begun = time.perf_counter()
            self.run(*argv, cwd=cwd)
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def once(self, *argv: str, cwd: Path | None = None, **env: str) -> float:
        """Seconds of a command that cannot be repeated as it is."""
        begun = time.perf_counter()
        self.run(*argv, cwd=cwd, **env)
        return time.perf_counter() - begun
