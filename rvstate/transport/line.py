"""The command lines that carry a script to a login shell, whichever that is."""

from __future__ import annotations

import base64
import zlib

from rvstate.errors import ConfigError

_GZIP = 31  # zlib's window bits for the gzip format


def encoded_command(text: str) -> str:
    """The command line that holds a script itself, for one that may be seen in a process list.

    sshd opens the way for standard input only after it has started the command, so this saves a
    round trip, and it leaves standard input free.  It is compressed and in the letters of base64,
    for they mean the same in sh, bash, tcsh and fish.

    Raises:
        ConfigError: It is longer than one argument may be (128 KiB on Linux, execve(2)).
    """
    packed = zlib.compress(text.encode("utf-8", "surrogateescape"), 9, _GZIP)
    line = base64.b64encode(packed).decode("ascii")
    if len(line) > 120_000:
        raise ConfigError(
            "The command is too long to be sent.", "Put it into a script on the cluster."
        )
    return f"exec sh -c 'eval \"$(echo {line} | base64 -d | gzip -d)\"'"


def remote_command(size: int) -> str:
    """The command line that reads a script of `size` bytes from standard input and runs it.

    It means the same in sh, bash, tcsh and fish, it shows nothing, and what follows the script on
    standard input is left for the script to read (`head -c` of coreutils never reads further).
    """
    return f"exec sh -c 'eval \"$(head -c {size})\"'"
