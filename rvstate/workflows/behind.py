"""Keepalive behind the first command of a day; every command loads this, so it is small."""

from __future__ import annotations

import contextlib
import time

from rvstate.errors import EXIT_NOT_AUTHENTICATED
from rvstate.workflows.session import Session

# How long a run that was begun is left alone, in seconds.
_MOMENT = 600


def begin(session: Session) -> bool:
    """Begin the first run of a day from this machine, where that is what was put in place.

    Returns:
        Whether it was begun; nobody waits for it.
    """
    config = session.config
    if config.settings.scratch_keepalive.scheduled(config.site.purge) not in _MAY:
        return False
    # a command that reached nobody says nothing about whether a run would
    if not session.transport.commands or not _due(session):
        return False
    from rvstate import timers
    from rvstate.workflows import schedule

    log = schedule.log(session)
    # the command in front of this did its work, whatever hinders this one; the next one tries again
    with contextlib.suppress(OSError):
        # one that was begun a moment ago has not said yet how it went
        if log.exists() and time.time() - log.stat().st_mtime < _MOMENT:
            return False
        timers.detach(list(schedule.command(session)), log)
        return True
    return False


_MAY = ("auto", "first-command")


def _due(session: Session) -> bool:
    """Whether none was done today; one that found no connection was not done."""
    if not session.state.schedule(session.label).startswith("first-command "):
        return False
    kept = session.state.attempt(session.label)
    if kept is None or kept[1] == EXIT_NOT_AUTHENTICATED:
        return True
    return _day(kept[0]) != _day(time.time())


def _day(seconds: float) -> tuple[int, int]:
    found = time.localtime(seconds)
    return found.tm_year, found.tm_yday
