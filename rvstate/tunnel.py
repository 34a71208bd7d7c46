"""Tunnels: one process for each, on this machine, that keeps a port forwarded (the tunnel door).

A tunnel is an ssh client of its own that ends in the job; its way there is one session of the
shared connection, which is used and never ended.  When ssh ends, it is started again after a pause
that grows; when the job has ended, so does the tunnel.

    python -m rvstate.tunnel RECORD
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rvstate.errors import RefusedError, UnreachableError
from rvstate.process import Process, this_process
from rvstate.state import write_private
from rvstate.transport.places import take_slot

HERE = "127.0.0.1"
_POLL = 0.1  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts
_PATIENCE = 60.0  # seconds until a tunnel must stand
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL
_LAST_WORDS = 10.0  # seconds that ending what is behind a tunnel may take
_PORTS = 65535
# What remote/into.sh says before it gives up for good.
_ENDED = "has ended; nothing can be reached in it"


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
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        record = _read(path)
        if record is not None and _alive(record):
            found.append(Tunnel(**record["tunnel"]))
    return tuple(sorted(found, key=lambda tunnel: tunnel.port))


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


def next_free(port: int) -> int | None:
    """The first free port from `port` on; None where there is none."""
    return next((p for p in range(port, _PORTS + 1) if is_free(p)), None)


def start(
    folder: Path,
    tunnel: Tunnel,
    argv: tuple[str, ...],
    slot: tuple[str, int, str],
    after: tuple[str, ...] = (),
) -> Tunnel:
    """Start a tunnel's process and wait until it stands; a Ctrl-C meanwhile leaves nothing.

    Args:
        folder: Where the records are.
        tunnel: What it is.
        argv: The ssh command that forwards the port, and ends when it cannot.
        slot: Which place on the shared connection it holds, as `take_slot` takes it.
        after: A command that is run when the tunnel is stopped: it ends what is behind it.

    Raises:
        RefusedError: The port is taken; the remedy has the next free one.
        UnreachableError: It did not come up; its own words are in the message.
    """
    if not is_free(tunnel.port):
        raise taken(folder, tunnel.port, tunnel.remote)
    path = folder / f"{tunnel.port}.json"
    record = {
        "tunnel": asdict(tunnel),
        "argv": list(argv),
        "slot": list(slot),
        "after": list(after),
        "process": None,
    }
    write_private(path, json.dumps(record))
    process = subprocess.Popen(
        [sys.executable, "-m", "rvstate.tunnel", str(path)],
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
        process.stderr.close()
        path.unlink(missing_ok=True)
        raise
    process.stderr.close()
    return _tunnel(path) or tunnel


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
        time.sleep(_POLL)
    raise UnreachableError(
        f"The tunnel did not come up within {_PATIENCE:.0f} seconds.", "Try again."
    )


def taken(folder: Path, port: int, remote: int) -> RefusedError:
    """The refusal of a port that is taken, with the next free one."""
    owner = next((t for t in tunnels(folder) if t.port == port), None)
    by = f" by the tunnel to {owner.node}:{owner.remote}" if owner else ""
    free = next_free(port)
    way = f"The next free one: rvstate forward {free}:{remote}" if free else "Close something."
    return RefusedError(f"Port {port} of this machine is taken{by}.", way)


def stop(folder: Path, port: int) -> bool:
    """End a tunnel with all its processes; whether there was one."""
    path = folder / f"{port}.json"
    record = _read(path)
    if record is None:
        return False
    lived = _alive(record)
    if lived:
        _end_group(record["process"]["pid"], lambda: _alive(record))
    path.unlink(missing_ok=True)
    return lived


def _end_group(pid: int, alive: Callable[[], bool]) -> None:
    for number, patience in ((signal.SIGTERM, _LAST_WORDS + _GRACE), (signal.SIGKILL, _GRACE)):
        end = time.monotonic() + patience
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # the keeper ends its ssh itself; only what is deaf is ended from here
            os.kill(pid, number) if number is signal.SIGTERM else os.killpg(pid, number)
        while alive() and time.monotonic() < end:
            time.sleep(_POLL / 2)
        if not alive():
            return


def _alive(record: dict[str, Any]) -> bool:
    found = record.get("process")
    return isinstance(found, dict) and Process(**found).alive


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        # a record is written whole; one that cannot be read belongs to nobody
        return None
    return found if isinstance(found, dict) and isinstance(found.get("tunnel"), dict) else None


def _tunnel(path: Path) -> Tunnel | None:
    record = _read(path)
    return Tunnel(**record["tunnel"]) if record else None


class Keeper:
    """What a tunnel's own process does: keep ssh running until it is told to stop.

    Args:
        path: The tunnel's record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        record = _read(path)
        assert record is not None
        self._record = record
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._stood = False

    def keep(self) -> int:
        """Keep it until it is stopped, or the job has ended; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._record["process"] = asdict(this_process())
        self._say("connecting")
        pause, said = _FIRST_PAUSE, "it was stopped"
        # held for as long as we live: sshd takes a limited number of sessions on one connection
        slot = take_slot(*self._record["slot"])
        try:
            while not self._stopped:
                stood, said = self._once()
                if self._stopped or _ENDED in said:
                    break
                if not self._stood:
                    # whoever started it is still there to be told
                    sys.stderr.write(f"{said}\n")
                    return 1
                pause = _FIRST_PAUSE if stood else min(pause * 2, _LONGEST_PAUSE)
                self._say("waiting", said)
                self._sleep(pause)
            if self._stopped and self._record["after"]:
                argv = self._record["after"]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(argv, check=False, capture_output=True, timeout=_LAST_WORDS)
        finally:
            self._path.unlink(missing_ok=True)
            if slot is not None:
                slot.close()
        if not self._stood:
            sys.stderr.write(f"{said}\n")
            return 1
        return 0

    def _once(self) -> tuple[bool, str]:
        """Run ssh until it ends: whether the tunnel stood, and ssh's last words."""
        port = self._record["tunnel"]["port"]
        errors = self._path.with_suffix(".said")
        stood = False
        with errors.open("w+b") as file:
            errors.unlink()
            self._child = subprocess.Popen(
                self._record["argv"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
            while self._child.poll() is None and not self._stopped:
                if not stood and not is_free(port):
                    stood = self._stood = True
                    self._say("up")
                time.sleep(_POLL)
            self._end_child()
            file.seek(0)
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        # what our own script said is nearer to the cause than ssh's last word
        ours = [line.removeprefix("rvstate: ") for line in lines if line.startswith("rvstate: ")]
        words = ours or lines or ["the connection ended"]
        return stood, words[-1].strip()

    def _end_child(self) -> None:
        assert self._child is not None
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopped and time.monotonic() < end:
            time.sleep(_POLL)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _say(self, state: str, reason: str = "") -> None:
        self._record["tunnel"] |= {"state": state, "reason": reason}
        write_private(self._path, json.dumps(self._record))


if __name__ == "__main__":
    sys.exit(Keeper(Path(sys.argv[1])).keep())
