"""A run's operations in their order, driven through pyinfra; submission is the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rvstate.errors import ConvergeError, RvstateError, SubmitError
from rvstate.infra import drive
from rvstate.infra.drive import Report, Step
from rvstate.infra.operations import account, job
from rvstate.model.layout import Layout
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Change, Plan
from rvstate.model.resources import DesiredState
from rvstate.script import Script
from rvstate.steps import results
from rvstate.transport import Transport

# What is told when the last step begins: from here on there may be a job.
SUBMITTING = "submitting"


@dataclass(frozen=True, slots=True)
class Scripts:
    """What a run sends; None where there is nothing to do."""

    push: Script | None
    build: Script | None
    submit: Script | None
    commits: Script | None = None
    data: Script | None = None


def run(
    transport: Transport,
    layout: Layout,
    plan: Plan,
    observed: ObservedState,
    scripts: Scripts,
    tell: Callable[[str], None],
) -> tuple[str | None, bool, tuple[str, ...]]:
    """Run all of it.

    Returns:
        The job's id, whether it is new, and what the scripts said; no id where the code on the
        cluster was changed by somebody else meanwhile, so that all must be sent again.

    Raises:
        ConvergeError: A step before the submission failed.
        SubmitError: The scheduler did not take the job.

    With no script to submit there is no id either.
    """
    kinds = [(kind, changes) for kind, changes in plan.by_kind() if kind in account.BY_KIND]
    steps = [
        Step(
            f"making {kind} as declared",
            account.BY_KIND[kind],
            {
                "desired": DesiredState(tuple(c.resource for c in changes)),
                "layout": layout,
                "observed": observed,
            },
        )
        for kind, changes in kinds
    ]
    if scripts.push is not None:
        steps.append(Step("sending the code", job.workspace, {"script": scripts.push}))
    if scripts.commits is not None:
        steps.append(Step("bringing the commits", job.commits, {"script": scripts.commits}))
    if scripts.build is not None:
        steps.append(Step("building the environment", job.environment, {"script": scripts.build}))
    if scripts.data is not None:
        steps.append(Step("fetching data", job.commits, {"script": scripts.data}))
    if scripts.submit is not None:
        steps.append(Step(SUBMITTING, job.submit, {"script": scripts.submit}))
    reports = drive.run(transport, tuple(steps), tell)
    for at, (step, report) in enumerate(zip(steps, reports, strict=True)):
        if report.ran and not report.succeeded:
            reasons = _reasons(*kinds[at], report) if at < len(kinds) else ()
            raise _failure(step, report, reasons, scripts.submit is not None)
    said = tuple(line for report in reports for line in _says(report))
    found = [line.partition(" ") for line in said if line.startswith(("submitted ", "found "))]
    if not found:
        return None, False, said
    word, _, number = found[-1]
    return number, word == "submitted", said


def _says(report: Report) -> list[str]:
    """The lines that the script itself printed."""
    body = report.answer.body.decode("utf-8", "replace") if report.answer else ""
    return [line for line in body.splitlines() if line.strip()]


def _reasons(kind: str, changes: tuple[Change, ...], report: Report) -> tuple[str, ...]:
    """Which resources of a kind could not be made so, and why."""
    body = report.answer.body.decode("utf-8", "replace") if report.answer else ""
    found = results(kind, changes, body, report.errors)
    return tuple(f"{r.change.resource.name}: {r.error}" for r in found if r.error)


def _failure(step: Step, report: Report, reasons: tuple[str, ...], submits: bool) -> RvstateError:
    said = [line.removeprefix("rvstate: ") for line in report.errors.splitlines() if line.strip()]
    words = "\n    ".join(reasons or said[-12:]) or "it gave no reason"
    if step.operation is job.submit:
        return SubmitError(
            f"The job was not submitted:\n    {words}", "Mend that and run the command again."
        )
    no_job = ", so no job was submitted" if submits else ""
    return ConvergeError(
        f"{step.name[0].upper()}{step.name[1:]} failed{no_job}:\n    {words}",
        "Mend that and run the command again.",
    )
