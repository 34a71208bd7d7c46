"""The key with which this machine is let into its own jobs, and whom it knows there."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

from rvstate.errors import MissingToolError
from rvstate.transport.child import which


def own_key(folder: Path) -> tuple[Path, str]:
    """This machine's key pair, made the first time.

    Args:
        folder: A private directory.

    Returns:
        The private half's path, and the public half's text.

    Raises:
        MissingToolError: There is no ssh-keygen here.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "id_ed25519"
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            _make(path)
        done = subprocess.run(
            [_keygen(), "-y", "-f", str(path)], capture_output=True, text=True, check=True
        )
    return path, " ".join(done.stdout.split()[:2])


def _make(path: Path) -> None:
    part = path.with_name("new")
    for old in (part, part.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    argv = [_keygen(), "-q", "-t", "ed25519", "-N", "", "-C", "rvstate", "-f", str(part)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    part.with_suffix(".pub").unlink()
    part.replace(path)


def _keygen() -> str:
    found = which("ssh-keygen")
    if not found:
        raise MissingToolError(
            "The program ssh-keygen is not on this machine.",
            "Install OpenSSH's client (Debian: openssh-client), then run this again.",
        )
    return found
