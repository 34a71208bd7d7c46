"""Tunnels: one process for each, on this machine, that keeps a port forwarded (the tunnel door).

A tunnel is an ssh client of its own that ends in the job; its way there is one session of the
shared connection, which is used and never ended.  `keeper.py` is its process; here it is started,
listed and stopped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rvstate.errors import RefusedError, UnreachableError
from rvstate.process import Process
from rvstate.state import write_private

HERE = "127.0.0.1"
POLL = 0.1  # seconds
GRACE = 3.0  # seconds between SIGTERM and SIGKILL
LAST_WORDS = 10.0  # seconds that ending what is behind a tunnel may take
# What ssh's local command prints once ssh itself listens on the port (ssh_config(5), LocalCommand).
STANDS = "rvstate-stands"
_PATIENCE = 60.0  # seconds until a tunnel must stand
_PORTS = 65535
_PRIVILEGED = 1024  # ports below it are root's (ip(7))


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One tunnel.

    Args:
        port: The port on this machine.
        remote: The port on the node.
        node: The node's name.
        job: The job's id.
        name: The job's name.
        account: How output names the account.
        state: `connecting`, `up`, or `waiting` between two attempts.
        reason: Why it waits.
        what: What is behind it, where that is known (`jupyter`).
    """

    port: int
    remote: int
    node: str
    job: str
    name: str
    account: str
    state: str = "connecting"
    reason: str = ""
    what: str = ""

    @property
    def words(self) -> str:
        """In one line."""
        what = f" {self.what}" if self.what else ""
        reason = f" ({self.reason})" if self.reason else ""
        return (
            f"http://{HERE}:{self.port} -> {self.node}:{self.remote}{what}  "
            f"job {self.job} {self.name}  {self.state}{reason}"
        )

    def document(self) -> dict[str, Any]:
        """As a program reads it."""
        return asdict(self)


def tunnels(folder: Path) -> tuple[Tunnel, ...]:
    """Every tunnel that lives, by port."""
    found = []
    for path in _records(folder):
        record = read(path)
        if record is not None and _lives(record, "process"):
            found.append(Tunnel(**record["tunnel"]))
    return tuple(sorted(found, key=lambda tunnel: tunnel.port))


def sweep(folder: Path) -> None:
    """End what is left of tunnels whose process was killed: an ssh that holds its port."""
    for path in _records(folder):
        record = read(path)
        if record is not None and record.get("process") and not _lives(record, "process"):
            _end_child(record)
            path.unlink(missing_ok=True)


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def is_free(port: int) -> bool:
    """Whether a port of this machine can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # ssh does the same; without it a port that was just given back counts as taken
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HERE, port))
        except OSError:
            return False
        return True


def _is_privileged(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((HERE, port))
        except OSError as error:
            return error.errno == errno.EACCES
        return False


def next_free(port: int) -> int | None:
    """The first free port from `port` on; None where there is none."""
    return next((p for p in range(port, _PORTS + 1) if is_free(p)), None)


def start(
    folder: Path,
    tunnel: Tunnel,
    argv: tuple[str, ...],
    slot: tuple[str, int, str],
    after: tuple[str, ...] = (),
    check: tuple[str, ...] = (),
) -> Tunnel:
    """Start a tunnel's process and wait until it stands; a Ctrl-C meanwhile leaves nothing.

    Args:
        folder: Where the records are.
        tunnel: What it is.
        argv: The ssh command that forwards the port, and ends when it cannot.
        slot: Which place on the shared connection it holds, as `take_slot` takes it.
        after: A command that is run when the tunnel is stopped: it ends what is behind it.
        check: A command that succeeds, without asking the cluster, once the shared connection is
            there again: a login that needs a person is not tried by the clock.

    Raises:
        RefusedError: The port is taken; the remedy has the next free one.
        UnreachableError: It did not come up; its own words are in the message.
    """
    with _one_at_a_time(folder):
        if not is_free(tunnel.port):
            raise taken(folder, tunnel.port, tunnel.remote)
        path = folder / f"{tunnel.port}.json"
        record = {
            "tunnel": asdict(tunnel),
            "argv": list(argv),
            "slot": list(slot),
            "after": list(after),
            "check": list(check),
            "process": None,
            "child": None,
        }
        write_private(path, json.dumps(record))
        process = subprocess.Popen(
            [sys.executable, "-m", "rvstate.tunnel.keeper", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )
        assert process.stderr is not None
        try:
            _await(path, process)
        except BaseException:
            _end_group(process.pid, lambda: process.poll() is None)
            path.unlink(missing_ok=True)
            raise
        finally:
            process.stderr.close()
        return _tunnel(path) or tunnel


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two that start at once would both find a port free."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _await(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            assert process.stderr is not None
            said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            raise UnreachableError(
                f"The tunnel did not come up: {said[-1] if said else 'ssh gave no reason'}",
                "Look with `rvstate ps` whether the job runs, then try again.",
            )
        found = _tunnel(path)
        if found is not None and found.state == "up":
            return
        time.sleep(POLL)
    raise UnreachableError(
        f"The tunnel did not come up within {_PATIENCE:.0f} seconds.", "Try again."
    )


def taken(folder: Path, port: int, remote: int) -> RefusedError:
    """The refusal of a port that is taken, with the next free one."""
    if _is_privileged(port):
        free = next_free(_PRIVILEGED)
        return RefusedError(
            f"Only root may listen on port {port} of this machine.",
            f"Use a higher one: rvstate forward {free}:{remote}",
        )
    owner = next((t for t in tunnels(folder) if t.port == port), None)
    by = f" by the tunnel to {owner.node}:{owner.remote}" if owner else ""
    free = next_free(port)
    way = f"The next free one: rvstate forward {free}:{remote}" if free else "Close something."
    return RefusedError(f"Port {port} of this machine is taken{by}.", way)


def stop(folder: Path, port: int) -> bool:
    """End a tunnel with all its processes; whether there was one."""
    path = folder / f"{port}.json"
    record = read(path)
    if record is None:
        return False
    lived = _lives(record, "process")
    if lived:
        _end_group(record["process"]["pid"], lambda: _lives(record, "process"))
    # a process that had to be killed, or was, could not end its ssh
    left = _end_child(read(path) or record)
    path.unlink(missing_ok=True)
    return lived or left


def stop_all(folder: Path) -> tuple[int, ...]:
    """End every tunnel; their ports."""
    ports = (int(path.stem) for path in _records(folder) if path.stem.isdigit())
    return tuple(port for port in ports if stop(folder, port))


def _end_child(record: dict[str, Any]) -> bool:
    """End a tunnel's ssh, should it have been left behind; whether it was."""
    if not _lives(record, "child"):
        return False
    pid = record["child"]["pid"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + GRACE
        while _lives(record, "child") and time.monotonic() < end:
            time.sleep(POLL / 2)
    return True


def _end_group(pid: int, alive: Callable[[], bool]) -> None:
    for number, patience in ((signal.SIGTERM, LAST_WORDS + GRACE), (signal.SIGKILL, GRACE)):
        end = time.monotonic() + patience
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # the keeper ends its ssh itself; only what is deaf is ended from here
            os.kill(pid, number) if number is signal.SIGTERM else os.killpg(pid, number)
        while alive() and time.monotonic() < end:
            time.sleep(POLL / 2)
        if not alive():
            return


def _lives(record: dict[str, Any], which: str) -> bool:
    """Whether the tunnel's own `process`, or its `child` ssh, still is the one that was noted."""
    found = record.get(which)
    return isinstance(found, dict) and Process(**found).alive


def read(path: Path) -> dict[str, Any] | None:
    """A record; None where there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        # a record is written whole; one that cannot be read belongs to nobody
        return None
    return found if isinstance(found, dict) and isinstance(found.get("tunnel"), dict) else None


def _tunnel(path: Path) -> Tunnel | None:
    record = read(path)
    return Tunnel(**record["tunnel"]) if record else None
