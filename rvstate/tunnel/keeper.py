"""A tunnel's own process: it keeps ssh running until it is told to stop, or the job has ended.

python -m rvstate.tunnel.keeper RECORD
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rvstate import tunnel
from rvstate.errors import ConfigError
from rvstate.process import identify, this_process
from rvstate.state import write_private
from rvstate.transport.places import take_slot
from rvstate.tunnel import GRACE, LAST_WORDS, POLL, STANDS

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts
_LASTING = 30.0  # seconds after which a tunnel that stood counts as one that works
# What remote/into.sh says before it gives up for good.
_ENDED = "has ended; nothing can be reached in it"
# What ssh says where a login needs a person (sshd's own words, and ours of the host key).
_DENIED = re.compile(r"Permission denied|Too many authentication failures|Host key verification")
_LOGIN = "it needs `rvstate login`"
# What ssh says when its way ended; why that was, the way's own ssh has said before.
_EMPTY = re.compile(r"kex_exchange_identification:|banner exchange:|Connection \w+ by UNKNOWN port")


class Keeper:
    """Keeps one tunnel.

    Args:
        path: The tunnel's record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        record = tunnel.read(path)
        assert record is not None
        self._record = record
        self._port: int = record["tunnel"]["port"]
        self._stopped = False
        self._stood = False

    def keep(self) -> int:
        """Keep it until it is stopped, or the job has ended; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._record["process"] = asdict(this_process())
        write_private(self._path, json.dumps(self._record))
        # held for as long as we live: sshd takes a limited number of sessions on one connection
        slot = take_slot(*self._record["slot"])
        try:
            said = self._again_and_again()
            if self._stopped and self._record["after"]:
                argv = self._record["after"]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(argv, check=False, capture_output=True, timeout=LAST_WORDS)
        finally:
            self._path.unlink(missing_ok=True)
            if slot is not None:
                slot.close()
        if not self._stood:
            # whoever started it is still there to be told
            sys.stderr.write(f"{said}\n")
            return 1
        return 0

    def _again_and_again(self) -> str:
        """Run ssh until there is no point in it any more; why there is none."""
        pause = _FIRST_PAUSE
        while not self._stopped:
            if self._stood and not tunnel.is_free(self._port):
                # the cluster need not be asked to know that this cannot be
                lasted, said = 0.0, "its port of this machine was taken meanwhile"
            else:
                lasted, said = self._once()
            if self._stopped or not self._stood or _ENDED in said:
                return said
            if _DENIED.search(said) and self._record["check"]:
                self._await_login()
                continue
            if lasted >= _LASTING:
                pause = _FIRST_PAUSE
            self._say("waiting", said)
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return "it was stopped"

    def _await_login(self) -> None:
        """Wait until the shared connection is there again; logins that fail may lock an account."""
        self._say("waiting", _LOGIN)
        check = self._record["check"]
        while not self._stopped:
            self._sleep(_FIRST_PAUSE)
            if subprocess.run(check, check=False, capture_output=True).returncode == 0:
                return

    def _once(self) -> tuple[float, str]:
        """Run ssh until it ends: for how many seconds the tunnel stood, and why it ended."""
        errors = self._path.with_suffix(".said")
        since = None
        with errors.open("w+b") as file:
            errors.unlink()
            child = subprocess.Popen(
                self._record["argv"], stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
            try:
                self._record["child"] = asdict(identify(child.pid))
                self._say("connecting")
                while child.poll() is None and not self._stopped:
                    if since is None and STANDS in _said(file.fileno()):
                        since = time.monotonic()
                        self._stood = True
                        self._say("up")
                    time.sleep(POLL)
            finally:
                _end(child)
            lasted = 0.0 if since is None else time.monotonic() - since
            return lasted, _why(_said(file.fileno()))

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopped and time.monotonic() < end:
            time.sleep(POLL)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _say(self, state: str, reason: str = "") -> None:
        self._record["tunnel"] |= {"state": state, "reason": reason}
        # a full disk is no reason to end what works
        with contextlib.suppress(ConfigError):
            write_private(self._path, json.dumps(self._record))


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _said(fd: int) -> list[str]:
    # pread leaves alone the place at which ssh writes
    return os.pread(fd, 65536, 0).decode("utf-8", "replace").split("\n")


def _why(lines: list[str]) -> str:
    """The cause among ssh's words: what our own script said, else the last that tells anything."""
    spoken = [line.strip() for line in lines if line.strip() and line != STANDS]
    ours = [line.removeprefix("rvstate: ") for line in spoken if line.startswith("rvstate: ")]
    telling = [line for line in spoken if not _EMPTY.search(line)]
    return (ours or telling or spoken or ["the connection ended"])[-1]


if __name__ == "__main__":
    sys.exit(Keeper(Path(sys.argv[1])).keep())
