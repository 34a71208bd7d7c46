"""`allocations`, with which some sites show what an account may still spend."""

from __future__ import annotations

import re
from dataclasses import dataclass

COMMAND = ("allocations",)

_NUMBER = r"(-?[0-9][0-9,]*(?:\.[0-9]+)?)"
_ROW = re.compile(rf"\s*(\S+)\s+{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}\s*")


@dataclass(frozen=True, slots=True)
class Balance:
    """What one account has, in the site's units.

    Args:
        account: Slurm's name of it.
        balance: What is left.
        reserved: What running jobs hold of it.
        available: What a new job may spend.
    """

    account: str
    balance: float
    reserved: float
    available: float


def parse(text: str) -> tuple[Balance, ...]:
    """The rows `ACCOUNT BALANCE RESERVED AVAILABLE`; headings and remarks are passed over."""
    rows = (_ROW.fullmatch(line) for line in text.splitlines())
    return tuple(Balance(row[1], *map(_number, row.groups()[1:])) for row in rows if row)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
