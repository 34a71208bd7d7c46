"""One marked block of ours in a shell's start-up file; everything around it is not ours.

Text comes decoded with `surrogateescape`, so that bytes which are no UTF-8 survive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rvstate.errors import ConfigError, RefusedError

BEGIN = "# >>> rvstate: written by rvstate, edits in here are lost >>>"
END = "# <<< rvstate <<<"
# Added to BEGIN where the text before had no line break at its end, so that `remove` can tell.
_JOINED = " (the line break before is rvstate's)"

# Indented or CRLF markers are still ours: an editor may have made them so.
_MARKER = re.compile(
    rf"^[ \t]*(?:(?P<begin>{re.escape(BEGIN)}(?P<joined>{re.escape(_JOINED)})?)|{re.escape(END)})"
    r"[ \t\r]*(?:\n|\Z)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Missing:
    """The text holds no block."""


@dataclass(frozen=True, slots=True)
class Block:
    """The text holds one block.

    Args:
        start: Index of the first character of the BEGIN line.
        end: Index behind the END line.
        body: The lines between.
    """

    start: int
    end: int
    body: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The markers do not make one block, so nobody can tell what is ours.

    Args:
        reason: A clause that says what is wrong.
    """

    reason: str


def find(text: str) -> Missing | Block | Broken:
    """Look for our block."""
    markers = list(_MARKER.finditer(text))
    kinds = ["begin" if marker["begin"] else "end" for marker in markers]
    if not kinds:
        return Missing()
    if kinds == ["begin", "end"]:
        first, last = markers
        return Block(first.start(), last.end(), text[first.end() : last.start()])
    if kinds == ["end", "begin"]:
        return Broken("its end stands before its beginning")
    if "end" not in kinds:
        return Broken("it begins and never ends")
    if "begin" not in kinds:
        return Broken("it ends and never begins")
    return Broken("there is more than one beginning or end")


def replace(text: str, body: str) -> str:
    """The whole text with exactly one block that holds `body`.

    A missing block is appended after one blank line (none in an empty file); what stands outside
    the block stays byte for byte.  The block itself has LF line ends, also in a CRLF file: the
    shell has to read it.

    Args:
        text: The whole file.
        body: The lines of the block; a line break is added at the end where there is none.

    Raises:
        RefusedError: The block is broken.
        ConfigError: The body holds one of our markers.
    """
    if _MARKER.search(body):
        raise ConfigError("The text for the start-up file holds rvstate's own markers.")
    if body and not body.endswith("\n"):
        body += "\n"
    found = _whole(text)
    if isinstance(found, Block):
        begin = _MARKER.match(text, found.start)
        joined = _JOINED if begin and begin["joined"] else ""
        before, after = text[: found.start], text[found.end :]
        return f"{before}{BEGIN}{joined}\n{body}{END}\n{after}"
    joined = _JOINED if text and not text.endswith("\n") else ""
    gap = ("\n\n" if joined else "\n") if text else ""
    return f"{text}{gap}{BEGIN}{joined}\n{body}{END}\n"


def remove(text: str) -> str:
    """The text without our block, its blank line, and the line break that `replace` had to add.

    Raises:
        RefusedError: The block is broken.
    """
    found = _whole(text)
    if isinstance(found, Missing):
        return text
    before, after = text[: found.start], text[found.end :]
    marker = _MARKER.match(text, found.start)
    # An editor that turned the whole file into CRLF did so with our two line breaks as well.
    ours = "\r\n" if marker and marker[0].endswith("\r\n") else "\n"
    # Only a blank line is ours; where the user took it away, nothing more may go.
    if before == ours or before.endswith("\n" + ours):
        before = before.removesuffix(ours)
    if marker and marker["joined"] and not after:
        before = before.removesuffix(ours)
    return before + after


def _whole(text: str) -> Missing | Block:
    found = find(text)
    if isinstance(found, Broken):
        raise RefusedError(
            f"The rvstate block in the start-up file is damaged: {found.reason}.",
            f"Delete the lines {BEGIN!r} and {END!r} with what rvstate wrote between, and try"
            " again.",
        )
    return found
