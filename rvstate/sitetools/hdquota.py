"""`hdquota`, with which some sites show how full a user's places are."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = "BKMGTPE"
_SIZE = r"([0-9][0-9,.]*)\s?([KMGTPE]?)(?:i?B)?"
_ROW = re.compile(
    rf"\s*(\S.*?)\s+(/\S+)(?:\s+\S*[A-Za-z_]\S*)?\s+{_SIZE}\s+{_SIZE}\s+{_SIZE}\s+[0-9.]+\s?%.*"
)


@dataclass(frozen=True, slots=True)
class Quota:
    """One place.

    Args:
        name: What the site calls it.
        path: Where it is.
        size: Bytes that it may hold.
        used: Bytes that it holds.
        free: Bytes that are left.
    """

    name: str
    path: str
    size: int
    used: int
    free: int


def parse(text: str) -> tuple[Quota, ...]:
    """The rows `NAME PATH [USER] SIZE USED FREE PERCENT`; anything else is passed over.

    Units are powers of 1024, with or without a space in front.
    """
    found = []
    for line in text.splitlines():
        row = _ROW.fullmatch(line)
        if row is not None:
            size, used, free = (_bytes(row[n], row[n + 1]) for n in (3, 5, 7))
            found.append(Quota(row[1], row[2], size, used, free))
    return tuple(found)


def _bytes(number: str, unit: str) -> int:
    return int(float(number.replace(",", "")) * 1024 ** _UNITS.index(unit or "B"))
