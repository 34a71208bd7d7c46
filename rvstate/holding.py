"""An allocation that is held for people who enter it: what its holder says, in words; pure."""

from __future__ import annotations

import time
from dataclasses import dataclass

# Seconds that an allocation waits for somebody, from its start or from a lost connection on.
PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Held:
    """What `remote/hold.sh` says.

    Args:
        word: `ready` (nobody came yet), `inside`, `lost` (nobody is inside, and no shell was left),
            `idle` (nobody inside has typed anything for long), or `kept` (a shell was left, and the
            allocation is kept).
        time: Seconds since 1970: when it ends, for `ready` and `lost`; else since when it is so.
        node: The node on which it holds.
    """

    word: str
    time: int
    node: str


def read(text: str) -> Held | None:
    """What the holder wrote; None where it wrote nothing yet."""
    parts = text.split()
    if len(parts) != 3 or not parts[1].isdigit():
        return None
    return Held(parts[0], int(parts[1]), parts[2])


def in_words(held: Held) -> str:
    """For people; times are those of this machine's clock face."""
    at = time.strftime("%H:%M", time.localtime(held.time))
    if held.word == "inside":
        return f"Somebody is inside since {at}."
    if held.word == "idle":
        return f"Somebody is inside and has typed nothing since {at}."
    if held.word == "kept":
        return f"It is kept, and nobody is inside since {at}."
    if held.word == "lost":
        return f"The connection was lost and nobody is inside; it ends at {at}."
    return f"Nobody is inside; it ends at {at}."
