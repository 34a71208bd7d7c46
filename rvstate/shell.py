"""The only place that knows shell, `#SBATCH` and crontab escaping."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable

from rvstate.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")

# Words that a shell takes as its own grammar where a command is expected: POSIX XCU 2.4, and bash.
_RESERVED = frozenset(
    {
        *("case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if"),
        *("in", "select", "then", "time", "until", "while"),
    }
)


def quote(text: str) -> str:
    """One POSIX shell word that means exactly `text` (never a `~` or a variable)."""
    if "\0" in text:
        raise ConfigError("A value holds a NUL byte, which no shell can pass on.", "Remove it.")
    return shlex.quote(text)


def join(words: Iterable[str]) -> str:
    """A command line of those words, the first of which is looked up as a command.

    The first word is quoted where a shell would otherwise take it for an assignment (`A=1`) or for
    a reserved word (`time`).
    """
    return " ".join(_command_words(words, quote))


def _command_words(words: Iterable[str], write: Callable[[str], str]) -> list[str]:
    written = [write(word) for word in words]
    if written and (written[0] in _RESERVED or re.match(r"[A-Za-z0-9_]+\+?=", written[0])):
        written[0] = "''" + written[0]
    return written


def is_name(text: str) -> bool:
    """Whether `text` may be the name of a shell variable (POSIX XBD 3.235)."""
    return _NAME.match(text) is not None


def assignment(name: str, value: str, *, export: bool = False) -> str:
    """`NAME='value'`, lossless for every value without NUL.

    Raises:
        ConfigError: The name is not a shell variable's.
    """
    if not is_name(name):
        raise ConfigError(
            f"{name!r} cannot be the name of an environment variable.",
            "Use letters, digits and underscores, not starting with a digit.",
        )
    return f"{'export ' if export else ''}{name}={quote(value)}"


def sbatch_line(option: str, value: str | None = None, *, word: str = "SBATCH") -> str:
    """One `#SBATCH` line, or one of scrontab's `#SCRON`.

    sbatch splits such a line at white space, honours quotes and backslashes, and cuts it at an
    unquoted `#` (sbatch.c, get_argument), so every value is wrapped in double quotes unless it is
    plainly harmless.

    Raises:
        ConfigError: A value with a line break, which such a line cannot hold, or an option that is
            no long name.
    """
    if _OPTION.fullmatch(option) is None:
        raise ConfigError(f"{option!r} is not an option of sbatch.", "See man sbatch.")
    if value is None:
        return f"#{word} --{option}"
    if re.search(r"[\n\r\0]", value):
        raise ConfigError(
            f"The value of --{option} holds a line break, which an #SBATCH line cannot hold.",
            "Remove it.",
        )
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", value):
        return f"#{word} --{option}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'#SBATCH --{option}="{escaped}"'


def cron_command(words: Iterable[str]) -> str:
    r"""A command for a crontab line, where `%` means a line break unless escaped (crontab(5)).

    Crons differ in what they take off: all pass `\%` on, with or without its backslash, and
    Debian's also makes one backslash of two.  So `%` is escaped *outside* quotes, where the shell
    takes the backslash off if cron did not, and no two backslashes ever stand together.

    Raises:
        ConfigError: A word with a line break, which a crontab line cannot hold.
    """
    line = " ".join(_command_words(words, _cron_word))
    if "\n" in line:
        raise ConfigError("A crontab line cannot hold a line break.", "Rename the file.")
    return line


def _cron_word(word: str) -> str:
    special = {"%": "\\%", "\\": "'\\'"}
    if not any(character in word for character in special):
        return quote(word)
    pieces = re.split(r"([%\\])", word)
    return "".join(special.get(piece) or quote(piece) for piece in pieces if piece)


def printf_b(data: bytes) -> str:
    r"""Bytes in the escapes of printf's `%b` (POSIX: `\0ddd`), as plain ASCII text.

    So any contents travel inside a script's text, whatever encoding a connector puts on it.
    """
    return "".join(
        chr(byte) if (32 <= byte < 127 and byte != 92) or byte in (9, 10) else f"\\0{byte:03o}"
        for byte in data
    )
