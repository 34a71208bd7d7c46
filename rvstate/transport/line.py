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
    return f"exec sh -c 'eval \"$({_unpacking(text)})\"'"


def held_command(text: str, nonce: str) -> str:
    """As `encoded_command`, and afterwards the shell takes one more command.

    That comes on standard input, as `held_input` writes it.  At the end of the input, or where the
    command was cut short, nothing runs: its last line, a comment, must be there.

    Raises:
        ConfigError: As `encoded_command`.
    """
    first = f'(eval "$({_unpacking(text)})") </dev/null'
    # what `head -c` of coreutils does not read is left for the command
    then = f'read -r n && c=$(head -c "$n") && case $c in *"#{nonce}") eval "$c" ;; esac'
    return f"exec sh -c '{first}; {then}'"


def held_input(command: str, nonce: str) -> bytes:
    """A command, one line of POSIX shell, for the shell of `held_command` with that nonce."""
    line = f"{command}\n#{nonce}".encode("utf-8", "surrogateescape")
    return b"%d\n%b" % (len(line), line)


def _unpacking(text: str) -> str:
    packed = zlib.compress(text.encode("utf-8", "surrogateescape"), 9, _GZIP)
    line = base64.b64encode(packed).decode("ascii")
    if len(line) > 120_000:
        raise ConfigError(
            "The command is too long to be sent.", "Put it into a script on the cluster."
        )
    return f"echo {line} | base64 -d | gzip -d"


def remote_command(size: int) -> str:
    """The command line that reads a script of `size` bytes from standard input and runs it.

    It means the same in sh, bash, tcsh and fish, it shows nothing, and what follows the script on
    standard input is left for the script to read (`head -c` of coreutils never reads further).
    """
    return f"exec sh -c 'eval \"$(head -c {size})\"'"
