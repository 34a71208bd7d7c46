"""What people read about a shell on a compute node."""

from __future__ import annotations

import time

import click

from rvstate.holding import PATIENCE
from rvstate.slurm.states import JobState
from rvstate.workflows.run.prepared import Submitted
from rvstate.workflows.up import Waiting


def show_submitted(submitted: Submitted) -> None:
    """What was asked for."""
    for notice in submitted.notices:
        click.echo(f"rvstate: {notice}", err=True)
    prepared = submitted.prepared
    options = prepared.spec.options
    gpus = ""
    if options.gpus is not None:
        kind, count = options.gpus
        gpus = f"  {count} {kind or 'GPU'}" + (
            f" on each of {options.nodes}" if options.nodes else ""
        )
    where = f"  in {options.partition}" if options.partition else ""
    jobs = submitted.job.replace(",", ", ")
    if prepared.allocation is not None:
        from rvstate.views import allocation

        gpus, where = f"  {allocation.picked(prepared.allocation)}", ""
    click.echo(f"{click.style('✓', fg='green')} job {jobs}{gpus}{where}", err=True)


def waiting(found: Waiting | str) -> str:
    """Why nobody can enter yet, in one line."""
    if isinstance(found, str):
        return found
    if found.state is JobState.RUNNING:
        return "it runs; its environment is being put in place"
    if found.state is not JobState.PENDING:
        return f"it is {found.state.value}"
    parts = ["waiting"]
    if found.place:
        parts.append(f"place {found.place} of {found.queue} in {found.partition}")
    if found.start:
        at = time.strftime("%a %H:%M", time.localtime(found.start))
        parts.append(f"Slurm expects it to start {at}")
    if found.reason:
        parts.append(found.reason.rstrip("."))
    return "; ".join(parts)


def show_cancelled(jobs: tuple[str, ...]) -> None:
    """That nothing is left of it."""
    if jobs:
        click.echo(f"Cancelled: job {', '.join(jobs)}.", err=True)
    else:
        click.echo("Cancelled before there was a job.", err=True)


def goes_on(submitted: Submitted) -> str:
    """What becomes of an allocation that nobody is in."""
    held = submitted.prepared.order.held
    until = "to its time limit" if held == "keep" else f"for {PATIENCE // 60} minutes at most"
    return f"Job {submitted.job} goes on {until} with nobody inside."


def way_back(submitted: Submitted) -> str:
    """How to enter it again, or end it."""
    job = submitted.job
    return f"`rvstate ssh {job}` enters it again, `rvstate stop {job}` ends it."


def show_left(submitted: Submitted) -> None:
    """What becomes of the allocation, now that its shell was left."""
    if submitted.prepared.order.held == "keep":
        click.echo(f"rvstate: Job {submitted.job} is kept, up to its time limit.", err=True)
        click.echo(f"  → {way_back(submitted)}", err=True)
    else:
        click.echo(f"Job {submitted.job} ends, and its allocation with it.", err=True)
