"""Slurm's short form of several node names: `udc-an28-[1-2,05-07],login1`."""

from __future__ import annotations

import itertools
import re

from rvstate.errors import ParseError

_NOTHING = frozenset({"", "(null)", "none assigned", "none", "n/a"})
_ENTRY = re.compile(r"(?:[^\[\],]|\[[^\[\]]*\])+")
_PIECE = re.compile(r"\[([^\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_MOST = 100_000  # more names than any cluster has nodes: the text is broken, not long


def expand(text: str) -> tuple[str, ...]:
    """All node names, in the order and with the zeros that `scontrol show hostnames` gives.

    Args:
        text: Names and brackets between commas, several brackets to a name allowed; empty,
            `(null)`, `None assigned` and `n/a` mean no node.

    Raises:
        ParseError: Brackets that do not match, an empty or reversed range.
    """
    plain = text.strip()
    if plain.lower() in _NOTHING:
        return ()
    names: list[str] = []
    position = 0
    while True:
        entry = _ENTRY.match(plain, position)
        if entry is None:
            raise _broken(text)
        names.extend(_names(entry[0], text))
        if len(names) > _MOST:
            raise _broken(text)
        position = entry.end()
        if position == len(plain):
            return tuple(names)
        if plain[position] != ",":
            raise _broken(text)
        position += 1


def _names(entry: str, text: str) -> list[str]:
    pieces = [
        [literal] if literal else _numbers(inside, text)
        for inside, literal in _PIECE.findall(entry)
    ]
    total = 1
    for piece in pieces:
        total *= len(piece)
    if total > _MOST:
        raise _broken(text)
    return ["".join(parts) for parts in itertools.product(*pieces)]


def _numbers(inside: str, text: str) -> list[str]:
    numbers: list[str] = []
    for part in inside.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise _broken(text)
        low, high = match[1], match[2] or match[1]
        first, last = int(low), int(high)
        if last < first or last - first >= _MOST:
            raise _broken(text)
        numbers.extend(str(n).zfill(len(low)) for n in range(first, last + 1))
    return numbers


def _broken(text: str) -> ParseError:
    return ParseError(f"{text[:200]!r} is not a list of nodes.")
