"""Tables of crontab(1) and scrontab(1): our entries in one marked block; the rest is not ours.

Text comes decoded with `surrogateescape`, so that bytes which are no UTF-8 survive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rvstate import rcblock
from rvstate.rcblock import Block, Broken
from rvstate.shell import cron_command

# The only answer that means an empty table: Vixie's cron, cronie and Slurm say it so, on either
# stream, and end with 1.
_EMPTY = re.compile(r"(?:crontab: |scrontab: )?no crontab for \S+\s*", re.I)
# Several accounts share the crontab of one machine: each has an entry of its own in the block.
_ENTRY = "# rvstate keepalive: "


def table(status: int, output: str, errors: str) -> str | Broken:
    """The table that `crontab -l` or `scrontab -l` printed.

    Args:
        status: How the command ended.
        output: Its standard output.
        errors: Its standard error.

    Returns:
        The text, empty where there is no table; why nobody knows it, where it failed.
    """
    if status == 0:
        return output
    if _EMPTY.fullmatch(output + errors):
        return ""
    lines = [line.strip() for line in (errors or output).splitlines() if line.strip()]
    return Broken("; ".join(lines[:3]) or f"it ended with {status} and said nothing")


def daily(time: str, words: Iterable[str], *, log: str | None = None) -> str:
    """The line that runs a command once a day.

    Args:
        time: `HH:MM`, by the clock of whoever keeps the table.
        words: The command and its arguments.
        log: A file that its output replaces; None leaves that to the command.

    Raises:
        ConfigError: A word with a line break, which such a line cannot hold.
    """
    hour, _, minute = time.partition(":")
    more = f" >{cron_command([log])} 2>&1" if log else ""
    return f"{int(minute)} {int(hour)} * * * {cron_command(words)}{more}\n"


def entries(body: str) -> dict[str, str]:
    """The entries of our block by the accounts that they are for."""
    found: dict[str, str] = {}
    name = ""
    for line in body.splitlines(keepends=True):
        if line.startswith(_ENTRY):
            name = line.removeprefix(_ENTRY).strip()
            found[name] = ""
        elif name:
            found[name] += line
    return found


def entry(text: str, name: str) -> str | Broken | None:
    """One account's lines in a table; None where it has none."""
    block = rcblock.find(text)
    if isinstance(block, Broken):
        return block
    return entries(block.body).get(name) if isinstance(block, Block) else None


def put(text: str, name: str, lines: str) -> str:
    """The table with exactly these lines for an account; every other byte stays.

    Args:
        text: The whole table.
        name: The account.
        lines: Whole lines; empty takes the account's entry out.

    Raises:
        RefusedError: Our block is broken.
        ConfigError: The lines hold one of our markers.
    """
    block = rcblock.find(text)
    kept = entries(block.body) if isinstance(block, Block) else {}
    kept.pop(name, None)
    if lines:
        kept[name] = lines
    if not kept:
        return rcblock.remove(text)
    body = "".join(f"{_ENTRY}{account}\n{more}" for account, more in sorted(kept.items()))
    return rcblock.replace(text, body)
