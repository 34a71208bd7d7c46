"""Keeping scratch whole within the site's rules: run, and say how it stands; no pyinfra."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date

from rvstate import keepalive
from rvstate.desired import cache_name
from rvstate.errors import ConfigError, NotAuthenticatedError, RvstateError
from rvstate.keepalive import Policy, Ran, Report
from rvstate.script import Script
from rvstate.transport import Ssh
from rvstate.workflows import verify
from rvstate.workflows.session import Session
from rvstate.workflows.verify import Verification

Done = Ran | Report | Verification | None


def wrong(found: Done) -> int:
    """How many things went wrong in a run, or were found damaged."""
    if isinstance(found, Verification):
        return len(found.damaged)
    return found.trouble_count if found else 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a scheduled run from this machine went.

    Args:
        time: When, in seconds since 1970, by this machine's clock.
        status: Its exit status.
        text: One sentence.
    """

    time: int
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """How keepalive stands on one account.

    Args:
        policy: What may be done.
        report: What the cluster says; without places where nothing can be measured.
        attempt: The last scheduled run from this machine.
        here: What runs keepalive from this machine: its kind, and `HH:MM` or nothing.
        next: When that runs next, in seconds since 1970.
    """

    policy: Policy
    report: Report
    attempt: Attempt | None
    here: tuple[str, str] | None = None
    next: int | None = None


def policy(session: Session) -> Policy:
    """What settings and site say about keepalive on this account."""
    return keepalive.policy(session.config.settings, session.config.site)


def run(session: Session, *, scheduled: bool = False) -> tuple[Policy, Done]:
    """Do what the mode says, with one remote command at most.

    Args:
        session: Which account.
        scheduled: Nobody is there to ask: only a connection that is up already is used, and how it
            went is kept for the next `status`.

    Returns:
        The policy, and what was touched, counted, or verified; None where the mode is off or
        nothing can be measured.

    Raises:
        RefusedError: The site forbids what the settings want.
        NotAuthenticatedError: It is scheduled, and there is no connection.
        ProbeError: It did not succeed; what was done stays done.
    """
    if not scheduled:
        return _run(session)
    try:
        _need_connection(session)
        done = _run(session)
    except RvstateError as error:
        _keep(session, error.exit_code, error.message)
        raise
    _keep(session, 1 if wrong(done[1]) else 0, _sentence(done[1]))
    return done


def _sentence(found: Done) -> str:
    count = wrong(found)
    if not count:
        return ""
    things = f"{count} thing{'s are' if count > 1 else ' is'}"
    if isinstance(found, Verification):
        return f"{things} damaged; `rvstate converge` mends what can be mended."
    return f"{things.rsplit(' ', 1)[0]} could not be read or touched."


def notices(session: Session) -> tuple[str, ...]:
    """What converge's recap says of keepalive on this account."""
    return keepalive.notices(session.config.settings, session.config.site, date.today())


def _run(session: Session) -> tuple[Policy, Done]:
    found = policy(session).allowed()
    if found.mode == "heal":
        return found, verify.verify(session, lambda _: None)
    if found.mode == "off" or not found.measurable:
        return found, None
    if found.mode == "touch":
        return found, keepalive.ran(session.transport.run(script(session, "touch", found)))
    answer = session.transport.run(script(session, "count", found))
    return found, keepalive.report(answer, found)


def status(session: Session) -> Status:
    """How it stands, with one remote command.

    Raises:
        ProbeError: The account could not be looked at.
    """
    found = policy(session)
    action = "report" if found.measurable else "recall"
    report = keepalive.report(session.transport.run(script(session, action, found)), found)
    kept = session.state.attempt(session.label)
    record = session.state.schedule(session.label).split()
    here = (record[0], "" if record[2:] in ([], ["-"]) else record[2]) if record else None
    upcoming = next_time(here[1], time.time()) if here and here[1] else None
    return Status(found, report, Attempt(*kept) if kept else None, here, upcoming)


def next_time(daily: str, now: float) -> int:
    """When it is `HH:MM` next by this machine's clock, in seconds since 1970."""
    hour, _, minute = daily.partition(":")
    today = time.localtime(now)
    for days in (0, 1):
        day = (today.tm_year, today.tm_mon, today.tm_mday + days, int(hour), int(minute), 0)
        at = time.mktime((*day, 0, 0, -1))
        if at > now:
            break
    return round(at)


def script(session: Session, action: str, found: Policy) -> Script:
    """The one remote command of a run or a report.

    Raises:
        ConfigError: A cache has the name of a part of the account.
    """
    settings, site = session.config.settings, session.config.site
    caches = tuple(cache_name(name) for name in settings.caches.all)
    for name in caches:
        if name in keepalive.PLACES:
            raise ConfigError(
                f"The cache {name!r} has the name of a part of the account.",
                "Take it out of [caches].",
            )
    queued = site.scheduler == "slurm"
    words = keepalive.arguments(action, found, session.scratch, session.home, caches, queued=queued)
    return keepalive.script(words)


def _need_connection(session: Session) -> None:
    way = session.transport
    if isinstance(way, Ssh) and not way.connected():
        raise NotAuthenticatedError(
            f"Skipped: there is no connection to {session.label}, and nobody to log in.",
            "Any command that connects, for example `rvstate login`, lets the next one run.",
        )


def _keep(session: Session, code: int, text: str) -> None:
    session.state.keep_attempt(session.label, (int(time.time()), code, text))
