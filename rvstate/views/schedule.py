"""What people and programs read of `rvstate keepalive schedule`."""

from __future__ import annotations

from typing import Any

import click

from rvstate.model.resources import Schedule
from rvstate.schedule import HERE, Option
from rvstate.views import human, machine
from rvstate.workflows.schedule import Choice

_MARK = "→"


def show(found: Choice) -> None:
    """Every kind, what would be put in place, and what is."""
    width = max(len(option.how) for option in found.options)
    for option in found.options:
        mark = _MARK if found.wanted and option.how == found.taken else " "
        click.echo(f" {mark} {option.how:<{width}}  {_sentence(option)}")
    if found.idle:
        click.echo(f"Nothing is to run: {found.idle.rstrip('.')}.")
    elif not found.wanted:
        click.echo(
            'Nothing is to run it: schedule = "auto" in [scratch_keepalive] would take '
            f"{found.taken}."
        )
    else:
        _show_declared(found)
    for place, (how, node, time) in (("the cluster", found.there), ("this machine", found.here)):
        if how:
            at = f", daily at {time}" if time else ""
            click.echo(f"On {place}: {how}, put there on {node}{at}.")
    if not found.plan.empty:
        human.show_plan(found.plan)
        if not found.plan.refusals:
            click.echo("`rvstate converge` does that.")


def _sentence(option: Option) -> str:
    if option.why_not:
        return f"{click.style('no', fg='red')}   {option.why_not}"
    if option.policy == "unknown":
        return f"{click.style('yes', fg='yellow')}  the site profile does not say; not by auto"
    return click.style("yes", fg="green")


def _show_declared(found: Choice) -> None:
    by = " by auto" if found.wanted == "auto" else ""
    wanted = _of(found.taken, found.schedules)
    at = f", daily at {wanted.time}" if wanted.time else ""
    click.echo(f"Declared{by}: {found.taken}{at}.")
    for line in () if found.refusal else wanted.lines.splitlines():
        click.echo(f"    {line}")


def _of(how: str, schedules: tuple[Schedule, ...]) -> Schedule:
    return next(schedule for schedule in schedules if schedule.how == how)


def document(found: Choice) -> str:
    """The document of `rvstate keepalive schedule --json`."""
    return machine.document(
        "keepalive schedule",
        declared=found.wanted or None,
        idle=found.idle,
        takes=found.taken,
        refusal=found.refusal,
        kinds=[
            {
                "kind": option.how,
                "where": "here" if option.how in HERE else "cluster",
                "policy": option.policy,
                "possible": not option.why_not,
                "why_not": option.why_not,
                "automatic": option.automatic,
                "time": _of(option.how, found.schedules).time or None,
                "lines": _of(option.how, found.schedules).lines,
            }
            for option in found.options
        ],
        cluster=_record(found.there),
        here=_record(found.here),
        changes=[
            {"name": c.resource.name, "action": c.action.word, "reason": c.reason}
            for c in (*found.plan.changes, *found.plan.refusals)
        ],
    )


def _record(record: tuple[str, str, str]) -> dict[str, Any] | None:
    how, node, time = record
    return {"kind": how, "node": node, "time": time or None} if how else None
