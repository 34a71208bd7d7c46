"""Applies plans through pyinfra: a plan's changes as operations, their results as plain values."""

from __future__ import annotations

from rvstate.infra import drive  # isort: skip - gevent first, see there

from collections.abc import Callable
from dataclasses import dataclass
from itertools import filterfalse

from rvstate import steps
from rvstate.infra.drive import Report, Step, Work
from rvstate.infra.operations import account as operations
from rvstate.model.layout import Layout
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Change, Plan, is_here
from rvstate.model.resources import DesiredState
from rvstate.steps import Result
from rvstate.transport import Transport

_NOT_TRIED = "not tried, because an earlier step failed"


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done to one account."""

    transport: Transport
    layout: Layout
    desired: DesiredState
    observed: ObservedState
    plan: Plan
    remove_originals: bool = False

    def kinds(self) -> tuple[tuple[str, tuple[Change, ...]], ...]:
        """The changes that are the cluster's, kind by kind, in the order of application."""
        found = ((k, tuple(filterfalse(is_here, cs))) for k, cs in self.plan.by_kind())
        return tuple((kind, changes) for kind, changes in found if changes)


def apply(jobs: tuple[Job, ...], tell: Callable[[str], None]) -> tuple[tuple[Result, ...], ...]:
    """Make the plans' changes, kind by kind, accounts side by side.

    Args:
        jobs: Accounts and their plans, which must be ones that may be applied.
        tell: Told what is being done, in a few words.

    Returns:
        For each account one result for each change, in the order of `Job.kinds`; an account stops
        at its first kind that fails.

    Raises:
        RvstateError: An operation refused before it changed anything.
    """
    works = tuple(Work(job.transport, _steps(job)) for job in jobs)
    if len(works) == 1:
        # trouble with the only connection there is ends the command, with its own remedy
        reports: tuple[tuple[Report, ...], ...] = (
            drive.run(works[0].transport, works[0].steps, tell),
        )
    else:
        reports = drive.run_all(works, tell)
    return tuple(_results(job, done) for job, done in zip(jobs, reports, strict=True))


def _steps(job: Job) -> tuple[Step, ...]:
    return tuple(
        Step(
            f"making {kind} as declared",
            operations.BY_KIND[kind],
            {
                "desired": DesiredState(tuple(c.resource for c in changes)),
                "layout": job.layout,
                "observed": job.observed,
            }
            | ({"remove_originals": job.remove_originals} if kind == "cache" else {}),
        )
        for kind, changes in job.kinds()
    )


def _results(job: Job, reports: tuple[Report, ...]) -> tuple[Result, ...]:
    found: list[Result] = []
    for (kind, changes), report in zip(job.kinds(), reports, strict=True):
        if not report.ran:
            found += [Result(change, _NOT_TRIED) for change in changes]
            continue
        if report.error is not None:
            found += [Result(change, report.error.message) for change in changes]
            continue
        output = report.answer.body.decode("utf-8", "replace") if report.answer else ""
        found += steps.results(kind, changes, output, report.errors)
    return tuple(found)
