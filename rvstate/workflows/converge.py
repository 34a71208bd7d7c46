"""plan, confirm, apply, look again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rvstate.model.observed import Original
from rvstate.model.plan import Plan
from rvstate.model.resources import ConfigFile
from rvstate.steps import Result
from rvstate.workflows import observe
from rvstate.workflows.observe import View
from rvstate.workflows.session import Session


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
    """

    label: str
    plan: Plan
    results: tuple[Result, ...]
    verified: bool | None
    remote_commands: int
    originals: tuple[Original, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The changes that were tried or waited for, and are not made."""
        return tuple(r for r in self.results if r.error)


def look(session: Session, kinds: frozenset[str] | None = None) -> View:
    """The plan, with one remote command."""
    return observe.account(session, kinds)


def checked(session: Session, view: View) -> Outcome:
    """The outcome of a look that nothing follows."""
    return Outcome(
        session.label, view.plan, (), None, session.transport.commands, view.observed.originals
    )


def apply(
    session: Session,
    view: View,
    tell: Callable[[str], None],
    *,
    kinds: frozenset[str] | None = None,
    remove_originals: bool = False,
) -> Outcome:
    """Make the plan's changes and look again.

    Args:
        session: Which account.
        view: The look whose plan the user has seen; it must be one that may be applied.
        tell: Told what is being done, in a few words.
        kinds: As for `look`.
        remove_originals: Whether a migration's original is removed once verified again.
    """
    from rvstate.infra import engine

    results = _local_changes(view)
    job = engine.Job(
        session.transport, view.layout, view.desired, view.observed, view.plan, remove_originals
    )
    results += engine.apply(job, tell)
    tell("looking again")
    after = observe.account(session, kinds)
    return Outcome(
        session.label,
        view.plan,
        results,
        after.plan.empty,
        session.transport.commands,
        after.observed.originals,
    )


def _local_changes(view: View) -> tuple[Result, ...]:
    """The config file on this machine is the only thing that is not the cluster's."""
    results: tuple[Result, ...] = ()
    for change in view.plan.changes:
        if isinstance(change.resource, ConfigFile):
            Path(change.resource.path).chmod(0o600)
            results += (Result(change),)
    return results
