"""Text of environment files: ours, which a POSIX shell reads, and a user's `.env`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from rvstate.errors import ConfigError, ParseError
from rvstate.shell import assignment, is_name

# bash cannot assign to these, and a file that tries ends the script that reads it (bash(1)).
_READ_ONLY = frozenset(
    {"BASHOPTS", "BASH_VERSINFO", "BASHPID", "EUID", "PPID", "SHELLOPTS", "UID"},
)


def render(variables: Mapping[str, str]) -> str:
    """Write a file that `. file` reads in any POSIX shell, one `export` a variable, by name.

    Sorted, so that the same variables always give the same bytes.

    Raises:
        ConfigError: A name that no shell variable may have, or a value with NUL.  The value is
            never in the message.
    """
    for name in variables:
        if name in _READ_ONLY:
            raise ConfigError(f"{name} is read-only in bash.", "Choose another name for it.")
    return "".join(
        assignment(name, variables[name], export=True) + "\n" for name in sorted(variables)
    )


def parse(text: str) -> dict[str, str]:
    """Read what `render` wrote, and nothing else.

    Raises:
        ParseError: The text is not, byte for byte, what `render` writes.
    """
    try:
        words = shlex.split(text)
        pairs = [word.partition("=") for word in words[1::2]]
        variables = {name: value for name, _, value in pairs}
        same = render(variables) == text
    except (ValueError, ConfigError):
        same = False
    if not same:
        raise ParseError(
            "The environment file was not written by rvstate, or was changed since.",
            "Write it again with rvstate env.",
        )
    return variables


_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=]+)[ \t]*=[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_PLAIN = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"(?:\A|[ \t]+)#.*\Z")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_AFTER_QUOTE = re.compile(r"[ \t]*(?:(?<=[ \t])#[^\n]*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\", "$": "$"}


def parse_dotenv(text: str) -> dict[str, str]:
    r"""Read a user's `.env` file.

    `KEY=value` and `export KEY=value`.  Single quotes are literal; double quotes know `\n`, `\"`,
    `\\` and `\$`, any other backslash stays; both may span lines.  ` # comment` ends a value
    outside quotes only.  Nothing is expanded, so `$HOME` stays five characters.  The last of
    several values of one key counts.

    Args:
        text: The file; a byte order mark and CRLF line ends are taken off.

    Raises:
        ConfigError: A line that is none of these.  The message names the line by number and never
            shows any of its text, as it may be a secret.
    """
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n")
    variables: dict[str, str] = {}
    position = 0
    while position < len(plain):
        if (blank := _BLANK.match(plain, position)) and blank.end() > position:
            position = blank.end()
            continue
        line = plain.count("\n", 0, position) + 1
        key = _KEY.match(plain, position)
        if key is None:
            raise _bad_line(line, "is not KEY=value", "Write KEY=value, or # before a comment.")
        if not is_name(key[1]):
            raise _bad_line(
                line,
                "has a key that cannot be the name of an environment variable",
                "Use letters, digits and underscores before =, not starting with a digit.",
            )
        variables[key[1]], position = _value(plain, key.end(), line)
    return variables


def masked(value: str) -> str:
    """Say whether there is a value, and nothing about it, its length included."""
    return "(set)" if value else "(empty)"


def _value(text: str, start: int, line: int) -> tuple[str, int]:
    """The value that begins at `start`, and where the next line begins."""
    quote = text[start : start + 1]
    if quote not in {"'", '"'}:
        match = _PLAIN.match(text, start)
        end = match.end() if match else start
        value = _COMMENT.sub("", text[start:end]).strip(" \t")
        return _checked(value, line), end + 1
    match = (_SINGLE if quote == "'" else _DOUBLE).match(text, start)
    if match is None:
        raise _bad_line(
            line,
            "opens a quote that is never closed",
            "Close it, or put the value in the other kind of quotes if it holds this one.",
        )
    after = _AFTER_QUOTE.match(text, match.end())
    if after is None:
        raise _bad_line(
            line,
            "has text after its closing quote",
            'Put the whole value in one pair of quotes; in double quotes write \\" for a quote.',
        )
    value = match[1] if quote == "'" else re.sub(r"\\(.)", _unescape, match[1], flags=re.DOTALL)
    return _checked(value, line), after.end()


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])


def _checked(value: str, line: int) -> str:
    if "\0" in value:
        raise _bad_line(line, "holds a NUL byte, which no variable can", "Remove it.")
    return value


def _bad_line(line: int, what: str, remedy: str) -> ConfigError:
    return ConfigError(f"Line {line} of the environment file {what}.", remedy)
