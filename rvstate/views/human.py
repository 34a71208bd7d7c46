"""What people read."""

from __future__ import annotations

import click

from rvstate.model.plan import Action, Change, Plan
from rvstate.size import human_bytes
from rvstate.workflows.converge import Outcome

_COLOURS = {
    Action.CREATE: "green",
    Action.UPDATE: "yellow",
    Action.MIGRATE: "cyan",
    Action.REPLACE: "yellow",
    Action.REMOVE: "red",
    Action.REFUSE: "red",
}


def show_plan(plan: Plan, *, with_diff: bool = False, label: str = "") -> None:
    """The plan: one line a change, refusals with their ways out; `label` says whose."""
    if label:
        click.secho(f"{label}:", bold=True)
    if plan.empty:
        click.echo(f"Nothing to do: all {plan.unchanged} resources are as declared.")
        return
    for change in (*plan.changes, *plan.refusals):
        sign = click.style(change.action.value, fg=_COLOURS[change.action], bold=True)
        click.echo(f" {sign} {change.kind:<9} {change.resource.name}  {_dim(change.reason)}")
        for way in change.ways_out:
            click.echo(f"               or: {way}")
        if with_diff:
            _show_diff(change)
    if plan.refusals:
        click.echo(
            f"Refused: {_count(len(plan.refusals), 'resource')} cannot be touched safely, "
            "so nothing was written. Each has its ways out above."
        )
    else:
        click.echo(f"Plan: {_count(len(plan.changes), 'change')}, {plan.unchanged} as declared.")


def _show_diff(change: Change) -> None:
    import difflib  # only here

    before, after = change.before.splitlines(), change.after.splitlines()
    for line in list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        click.secho(f"      {line}", fg=colour)


def show_recap(outcome: Outcome) -> None:
    """What became of it, for each host one line, as Ansible's recap."""
    if outcome.error is not None:
        click.echo(f" {click.style('✗', fg='red', bold=True)} {outcome.error.message}")
        click.echo(f"   → {outcome.error.remedy}")
    for result in outcome.failed:
        name = f"{result.change.kind} {result.change.resource.name}"
        click.echo(f" {click.style('✗', fg='red', bold=True)} {name}: {result.error}")
    for result in outcome.results:
        # an original that is kept has its own line below
        if result.note and not any(result.note.endswith(o.path) for o in outcome.originals):
            click.echo(f" note: {result.change.kind} {result.change.resource.name}: {result.note}")
    for original in outcome.originals:
        click.echo(
            f" kept: {original.path} ({human_bytes(original.size)}, {original.entries} entries), "
            "moved to scratch and verified; `rvstate converge --remove-originals` removes it"
        )
    for notice in outcome.notices:
        click.echo(f" note: {notice}")
    made = len(outcome.results) - len(outcome.failed)
    counts = {
        "ok": outcome.plan.unchanged,
        "changed": made,
        "failed": len(outcome.failed) + (outcome.error is not None),
        "refused": len(outcome.plan.refusals),
    }
    line = "  ".join(f"{name}={count}" for name, count in counts.items())
    commands = _count(outcome.remote_commands, "remote command")
    click.echo(f"{outcome.label}  {line}  ({commands})")
    if outcome.verified is False and not outcome.failed:
        click.echo("The second look still found something to do: run `rvstate converge --check`.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _dim(text: str) -> str:
    return click.style(text, dim=True)
