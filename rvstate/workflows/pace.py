"""How often Slurm is asked while somebody waits: a site's controller serves everybody."""

from __future__ import annotations

from collections.abc import Iterator

# Seconds between two questions about a run that is followed: 7 in the first minute, then 4 in each.
_FIRST, _LONGEST = 3.0, 15.0
# Seconds between two questions of how it ended; accounting lags by about one.
_SETTLE, _SETTLE_SUM = 0.5, 10.0
_GROWTH = 1.5
# What no minute of following exceeds, its last one included: questions, each one squeue and, where
# the queue has forgotten the job, one sacct.
MOST_A_MINUTE = 15


class Pace:
    """Says when it is time for the next question; log files are read in between without one."""

    def __init__(self) -> None:
        self._pause = _FIRST
        self._next = 0.0

    def due(self, now: float) -> bool:
        """Whether to ask now (monotonic seconds); if so, the next time is later than this one."""
        if now < self._next:
            return False
        self._next = now + self._pause
        self._pause = min(self._pause * _GROWTH, _LONGEST)
        return True


def settling() -> Iterator[float]:
    """Seconds to wait behind each question of how a run ended, until it is time to give up."""
    pause = _SETTLE
    total = 0.0
    while total < _SETTLE_SUM:
        yield pause
        total += pause
        pause *= _GROWTH
