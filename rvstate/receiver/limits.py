"""What a receiver remembers: which events it had, and how many came of late."""

from __future__ import annotations

import sqlite3
from collections import deque
from pathlib import Path

_KEPT = 90 * 86400  # seconds; a cluster keeps an event that nobody took no longer than scratch


class Seen:
    """The ids of events that were passed on, kept on the disk so that no restart forgets them."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # the app serialises; its worker threads are not always the same one
        self._base = sqlite3.connect(path, check_same_thread=False)
        path.chmod(0o600)
        with self._base:
            self._base.execute("create table if not exists seen (id text primary key, at integer)")

    def has(self, event: str) -> bool:
        """Whether it was passed on already."""
        return (
            self._base.execute("select 1 from seen where id = ?", (event,)).fetchone() is not None
        )

    def add(self, event: str, now: float) -> None:
        """It was passed on at `now` (seconds since 1970); what is very old is forgotten."""
        with self._base:
            self._base.execute("insert or ignore into seen values (?, ?)", (event, int(now)))
            self._base.execute("delete from seen where at < ?", (int(now) - _KEPT,))

    def close(self) -> None:
        """Nothing more is asked."""
        self._base.close()


class Rate:
    """At most so many in so many seconds."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Whether one more is within the limit (monotonic seconds); if so, it counts."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if len(self._times) >= self._most:
            return False
        self._times.append(now)
        return True
