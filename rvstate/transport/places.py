"""How many sessions of one connection are used at once."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import BinaryIO

from rvstate.errors import UnreachableError
from rvstate.transport.child import control_directory

# sshd takes ten sessions on one connection (MaxSessions, sshd_config(5)); ssh answers the eleventh
# by silently logging in again, which a second factor would make a prompt.  Two stay free for the
# user's own use of the socket, and a stream that may last for hours leaves two more.
SESSIONS = 8
LASTING_SESSIONS = 6
_SLOT_TRIES = 600
_SLOT_PAUSE = 0.1


def take_slot(name: str, count: int, host: str) -> BinaryIO | None:
    """One of `count` places on a connection, held until the file is closed.

    Raises:
        UnreachableError: None became free within a minute.
    """
    base = control_directory() / name
    for _ in range(_SLOT_TRIES):
        for number in range(count):
            try:
                file = Path(f"{base}.{number}").open("ab")  # noqa: SIM115 - held by the caller
            except OSError:
                return None  # a full /tmp: rather one session too many than no session
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            return file
        time.sleep(_SLOT_PAUSE)
    raise UnreachableError(
        f"{count} rvstate commands already use the connection to {host}.",
        "End one of them (for example a `logs -f`), then try again.",
    )
