"""The logs of several nodes as one, in the order in which they were written; pure.

Log files hold no times.  While a job of several nodes runs, it notes now and then how long each of
its logs is (`rv_clock` of `remote/launch.sh`): `TICK SIZE LOG`, one line for each log that grew.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

CLOCK = "clock"
_NEVER = 1 << 62  # behind the last note

Line = tuple[str, bytes]


@dataclass(slots=True)
class _Log:
    """One log so far: an open line and where it begins, and the notes on its length."""

    open_line: bytes = b""
    position: int = 0
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def time(self, end: int) -> int:
        """When the byte in front of `end` was there."""
        at = bisect.bisect_left(self.sizes, end)
        return self.times[at] if at < len(self.sizes) else _NEVER


class Merge:
    """Takes pieces of logs as they are read, and gives back whole lines in order.

    Args:
        limit: Bytes of one log that a reading brings at most: a log of which so much came may go
            on, so what was written after it waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._logs: dict[str, _Log] = {}
        self._waiting: list[tuple[str, int, bytes]] = []
        self._clock = b""
        self._tick = ""
        self._time = 0

    def feed(self, pieces: Iterable[tuple[str, int, bytes]]) -> list[Line]:
        """What can be shown.

        Args:
            pieces: Of one reading: the log's name (`node0.out`, or `clock`), the position of its
                first byte, and the bytes.
        """
        known = tuple(pieces)
        for name, _, text in known:
            if name == CLOCK:
                self._note(text)
        for name, start, text in known:
            if name != CLOCK:
                self._cut(name, start, text)
        full = {name for name, _, text in known if len(text) >= self._limit}
        until = min((self._reached(name) for name in full), default=_NEVER)
        return self._up_to(until)

    def rest(self) -> list[Line]:
        """What is left when nothing more comes: the lines that have no end."""
        found = self._up_to(_NEVER)
        found += [(name, log.open_line) for name, log in self._logs.items() if log.open_line]
        for log in self._logs.values():
            log.open_line = b""
        return found

    def _note(self, text: bytes) -> None:
        *lines, self._clock = (self._clock + text).split(b"\n")
        for line in lines:
            words = line.decode("ascii", "replace").split(" ")
            # a scratch file system may lose or cut single lines; the order is then less exact
            if len(words) != 3 or not words[1].isdecimal():
                continue
            if words[0] != self._tick:
                self._tick = words[0]
                self._time += 1
            log = self._logs.setdefault(words[2], _Log())
            size = int(words[1])
            if log.sizes and size < log.sizes[-1]:
                # the job began anew, and so did the log
                log.sizes.clear()
                log.times.clear()
            log.sizes.append(size)
            log.times.append(self._time)

    def _cut(self, name: str, start: int, text: bytes) -> None:
        log = self._logs.setdefault(name, _Log())
        if not log.open_line:
            log.position = start
        *lines, log.open_line = (log.open_line + text).split(b"\n")
        for line in lines:
            log.position += len(line) + 1
            self._waiting.append((name, log.position, line + b"\n"))

    def _reached(self, name: str) -> int:
        if name == CLOCK:
            return self._time
        return self._logs[name].time(self._logs[name].position)

    def _up_to(self, until: int) -> list[Line]:
        ordered = sorted(
            ((self._logs[name].time(end), name, end, line) for name, end, line in self._waiting),
            key=lambda x: x[0],
        )
        shown = [x for x in ordered if x[0] <= until]
        self._waiting = [(name, end, line) for _, name, end, line in ordered[len(shown) :]]
        return [(name, line) for _, name, _, line in shown]
