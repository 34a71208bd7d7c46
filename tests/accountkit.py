"""Drives `rvstate` as a user does, in a process of its own, and looks at what is on the disk."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLUSTER = Path(__file__).parent / "cluster" / "cluster"
RVSTATE = (sys.executable, "-m", "rvstate")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON document and nothing else."""
        found: dict[str, Any] = json.loads(self.output)
        return found

    @property
    def host(self) -> dict[str, Any]:
        """The only host of a converge's document."""
        (host,) = self.json["hosts"]
        assert isinstance(host, dict)
        return host

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """Kind, name and action of every change."""
        return [(c["kind"], c["name"], c["action"]) for c in self.host["changes"]]


@dataclass
class Rv:
    """rvstate with a state directory of its own."""

    state: Path
    path: str = field(default_factory=lambda: os.environ["PATH"])
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command; nobody answers its questions."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RVSTATE_")}
        config = self.state / "config.toml"
        # nothing in the background but in tests of just that
        if not config.exists() or "schedule" not in config.read_text():
            clean["RVSTATE_SCRATCH_KEEPALIVE_SCHEDULE"] = "none"
        settings = {"RVSTATE_HOME": str(self.state), "PATH": self.path, **self.env, **(env or {})}
        return subprocess.Popen(
            [*RVSTATE, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, **settings},
        )

    def run(self, *args: str, env: Mapping[str, str] | None = None) -> Done:
        """Run a command to its end."""
        process = self.start(*args, env=env)
        output, errors = process.communicate(timeout=300)
        return Done(process.returncode, output, errors)

    def converge(self, *args: str) -> Done:
        """`rvstate converge -y --json`, with more."""
        return self.run("converge", "-y", "--json", *args)

    def check(self, *args: str) -> Done:
        """`rvstate converge --check --json`, with more."""
        return self.run("converge", "--check", "--json", *args)

    def config(self, text: str) -> None:
        """Write the config file."""
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "config.toml").write_text(text)


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: kind, mode, owner, date, contents or target, by name."""
    found: dict[str, tuple[object, ...]] = {}
    base = os.fsencode(top)
    for directory, names, files in os.walk(base):
        for name in (b".", *names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            key = os.path.normpath(os.fsdecode(os.path.relpath(path, base)))
            found[key] = (status.st_mode, status.st_uid, status.st_mtime_ns, content)
    return found


def path_with_rsync(folder: Path) -> str | None:
    """A PATH with an rsync: this machine's, or that of the mini-cluster's tree of packages.

    Args:
        folder: An empty directory for a program of that name, if one is needed.

    Returns:
        The PATH; None where there is none to be had.
    """
    path = os.environ["PATH"]
    if shutil.which("rsync"):
        return path
    done = subprocess.run([sys.executable, CLUSTER, "packages"], capture_output=True, text=True)
    trees = done.stdout.split()
    if done.returncode != 0 or not trees:
        return None
    packages = Path(trees[-1])
    loader = next(packages.glob("usr/lib/*/ld-linux*.so.*"))
    folder.chmod(0o755)
    program = folder / "rsync"
    program.write_text(
        f'#!/bin/sh\nexec {loader} --library-path {loader.parent} {packages}/usr/bin/rsync "$@"\n'
    )
    program.chmod(0o755)
    return f"{folder}:{path}"
