"""plan, confirm, apply, look again; for one account or many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rvstate import keepalive
from rvstate.errors import RvstateError
from rvstate.model.observed import Original
from rvstate.model.plan import Change, Plan, is_here
from rvstate.model.resources import ConfigFile
from rvstate.steps import Result
from rvstate.workflows import observe
from rvstate.workflows.observe import View
from rvstate.workflows.session import Session

# How many logins are begun at once: sshd drops some of more than ten that are not yet
# authenticated (MaxStartups 10:30:100, sshd_config(5)).
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a converge came to.

    Args:
        label: The account, for people.
        plan: What was planned.
        results: What became of each change; empty where nothing was applied.
        verified: Whether a second look found nothing left to do; None where nothing was applied.
        remote_commands: How many remote commands it took in all.
        originals: What migrations set aside and still keep.
        error: Why the account could not be looked at, or could not be finished.
        notices: What a person should know of the site's policy, one sentence each.
    """

    label: str
    plan: Plan
    results: tuple[Result, ...] = ()
    verified: bool | None = None
    remote_commands: int = 0
    originals: tuple[Original, ...] = ()
    error: RvstateError | None = None
    notices: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Result, ...]:
        """The changes that were tried or waited for, and are not made."""
        return tuple(r for r in self.results if r.error)


def look_at_all(
    sessions: tuple[Session, ...],
    kinds: frozenset[str] | None,
    *,
    remove_originals: bool = False,
) -> tuple[View | RvstateError, ...]:
    """Look at many accounts side by side; one that cannot be reached does not hold the others."""
    from concurrent.futures import ThreadPoolExecutor

    def look(session: Session) -> View | RvstateError:
        try:
            return observe.account(session, kinds, remove_originals=remove_originals)
        except RvstateError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(look, sessions))


def checked(session: Session, view: View | RvstateError) -> Outcome:
    """The outcome of a look that nothing follows."""
    count = session.transport.commands
    if isinstance(view, RvstateError):
        return Outcome(session.label, Plan(()), remote_commands=count, error=view)
    return Outcome(
        session.label,
        view.plan,
        remote_commands=count,
        originals=view.observed.originals,
        notices=_notices(session),
    )


def apply(
    pairs: tuple[tuple[Session, View], ...],
    tell: Callable[[str], None],
    *,
    kinds: frozenset[str] | None = None,
    remove_originals: bool = False,
) -> tuple[Outcome, ...]:
    """Make the plans' changes, accounts side by side, and look again.

    Args:
        pairs: Accounts, and the looks whose plans the user has seen and that may be applied.
        tell: Told what is being done, in a few words.
        kinds: As for the look.
        remove_originals: Whether a migration's original is removed once verified again.
    """
    from rvstate.infra import engine

    here = [_local_changes(session, view) for session, view in pairs]
    jobs = tuple(
        engine.Job(s.transport, v.layout, v.desired, v.observed, v.plan, remove_originals)
        for s, v in pairs
    )
    there = engine.apply(jobs, tell)
    tell("looking again")
    sessions = tuple(session for session, _ in pairs)
    again = look_at_all(sessions, kinds, remove_originals=remove_originals)
    return tuple(
        _outcome(session, view, local + remote, after)
        for (session, view), local, remote, after in zip(pairs, here, there, again, strict=True)
    )


def _outcome(
    session: Session, view: View, results: tuple[Result, ...], after: View | RvstateError
) -> Outcome:
    count = session.transport.commands
    if isinstance(after, RvstateError):
        return Outcome(session.label, view.plan, results, False, count, error=after)
    kept = after.observed.originals
    if after.plan.empty:
        session.state.keep_converged(session.label, round(time.time()), len(results))
    return Outcome(
        session.label,
        view.plan,
        results,
        after.plan.empty,
        count,
        kept,
        notices=_notices(session),
    )


def _notices(session: Session) -> tuple[str, ...]:
    config = session.config
    return keepalive.notices(config.settings, config.site, date.today())


def _local_changes(session: Session, view: View) -> tuple[Result, ...]:
    """What is not the cluster's: the config file, and a schedule on this machine."""
    return tuple(_local(session, change) for change in view.plan.changes if is_here(change))


def _local(session: Session, change: Change) -> Result:
    if isinstance(change.resource, ConfigFile):
        Path(change.resource.path).chmod(0o600)
        return Result(change)
    from rvstate.workflows import schedule

    try:
        schedule.apply(session, change)
    except RvstateError as error:
        return Result(change, error.message.removesuffix("."))
    return Result(change)
