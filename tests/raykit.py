"""Ray for the mini-cluster's Python, and a network of its own to run it in.

Ray and what it needs come from wherever pip is configured to look.  That is some 170 MB, so it is
kept in a cache outside the clone (RVSTATE_RAY_CACHE, or ~/.cache/rvstate-ray), with a line in
`source` that says what it is, or why there is none.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PYTHON = "3.11"  # Debian 12's, which the cluster has with --python=debian
_WANTED = (
    ("ray[data]>=2.52", "pip", "virtualenv", "uv"),
    ("packaging==23.2",),
    ("packaging==24.0",),
)
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of unshare(2)
_GET_FLAGS, _SET_FLAGS, _SET_ADDRESS = 0x8913, 0x8914, 0x8916  # netdevice(7)
_ADDRESS = "192.0.2.77"  # of documentation (RFC 5737), so nobody's


def cache() -> Path:
    """Where the wheels are kept."""
    default = Path.home() / ".cache" / "rvstate-ray"
    return Path(os.environ.get("RVSTATE_RAY_CACHE") or default)


def wheels() -> Path | None:
    """A directory with Ray and all that it needs, or None where pip's sources have none."""
    folder = cache() / "wheels"
    if not folder.is_dir():
        cache().mkdir(parents=True, exist_ok=True)
        part = cache() / f".part-{os.getpid()}"
        try:
            if not all(_fetched(part, wanted) for wanted in _WANTED):
                return None
            with contextlib.suppress(OSError):
                # where somebody else was faster, theirs is as good
                part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    found = next(folder.glob("ray-*.whl"), None)
    if found is None:
        _say(f"not run: {folder} has no wheel of Ray")
        return None
    _say(f"Ray {found.name.split('-')[1]}, a wheel from pip's configured sources")
    return folder


def _fetched(folder: Path, wanted: tuple[str, ...]) -> bool:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted]
    more = (f"--python-version={PYTHON}", "--only-binary=:all:", "--disable-pip-version-check")
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    if done.returncode:
        why = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        _say(f"not run: pip's configured sources have no {wanted[0]} ({(why or ['?'])[-1]})")
    return done.returncode == 0


def _say(text: str) -> None:
    (cache() / "source").write_text(f"real Ray on two nodes: {text}\n")


@contextlib.contextmanager
def own_network() -> Iterator[bool]:
    """A network in which there is only loopback, for all that is started meanwhile.

    Ray listens on every address of a machine.  Here nobody else can reach it.  Where such a network
    cannot be made, which takes root, the machine's own is used; False says so.
    """
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(_NEW_NETWORK) != 0:
            yield False
            return
        try:
            _loopback()
            yield True
        finally:
            if libc.setns(before, _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "the way back to the machine's network is lost")
    finally:
        os.close(before)


def _loopback() -> None:
    """Switch it on: in a new network it is off.

    It gets one more address: of a machine with none but 127.0.0.1 Slurm takes no name for known
    (AI_ADDRCONFIG of getaddrinfo(3)).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(any_socket, _GET_FLAGS, asked))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | 1))
        address = socket.inet_aton(_ADDRESS)
        more = struct.pack("16sHH4s8x", b"lo:0", socket.AF_INET, 0, address)
        fcntl.ioctl(any_socket, _SET_ADDRESS, more)
