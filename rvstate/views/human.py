"""What people read."""

from __future__ import annotations

import difflib

import click

from rvstate.config import Config
from rvstate.diff import human_bytes
from rvstate.model.job import RunRecord
from rvstate.model.plan import Action, Change, Plan
from rvstate.slurm import duration
from rvstate.slurm.states import FINISHED
from rvstate.workflows.converge import Outcome
from rvstate.workflows.run import Prepared, Submitted, command_line

_COLOURS = {
    Action.CREATE: "green",
    Action.UPDATE: "yellow",
    Action.MIGRATE: "cyan",
    Action.REPLACE: "yellow",
    Action.REMOVE: "red",
    Action.REFUSE: "red",
}


def show_plan(plan: Plan, *, with_diff: bool = False) -> None:
    """The plan: one line a change, refusals with their ways out."""
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
    before, after = change.before.splitlines(), change.after.splitlines()
    for line in list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        click.secho(f"      {line}", fg=colour)


def show_recap(outcome: Outcome) -> None:
    """What became of it, for each host one line, as Ansible's recap."""
    for result in outcome.failed:
        name = f"{result.change.kind} {result.change.resource.name}"
        click.echo(f" {click.style('✗', fg='red', bold=True)} {name}: {result.error}")
    for original in outcome.originals:
        click.echo(
            f" kept: {original.path} ({human_bytes(original.size)}, {original.entries} entries), "
            "moved to scratch and verified; `rvstate converge --remove-originals` removes it"
        )
    made = len(outcome.results) - len(outcome.failed)
    counts = {
        "ok": outcome.plan.unchanged,
        "changed": made,
        "failed": len(outcome.failed),
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


def show_where(config: Config) -> None:
    """The first line of a run on this machine: nobody should take it for the cluster."""
    if config.site.scheduler == "process":
        click.secho(
            "This job runs on this machine (site local), not on a cluster.", fg="yellow", err=True
        )


def show_dry_run(prepared: Prepared) -> None:
    """The plan of a run and its batch script."""
    for change in prepared.plan.changes:
        click.echo(f" {change.action.value} {change.kind} {change.resource.name}")
    click.echo(f"code: {len(prepared.tree.files)} files, {human_bytes(prepared.tree.size)}")
    ready = "is built" if prepared.environment_ready else "will be built"
    if prepared.environment is not None:
        click.echo(f"environment: {prepared.generation} {ready}")
    click.echo(f"command: {command_line(prepared)}\n")
    click.echo(prepared.text, nl=False)


def show_submitted(submitted: Submitted) -> None:
    """What was submitted, and what to type next."""
    prepared = submitted.prepared
    project = prepared.project
    commit = (project.commit or "no commit")[:10] + ("*" if project.dirty else "")
    click.echo(
        f"{click.style('✓', fg='green')} job {submitted.job}  {prepared.spec.options.name}  "
        f"[{project.name} {project.branch or '-'}@{commit}]"
    )
    click.echo(f"  snapshot {prepared.spec.snapshot}")
    if prepared.spec.environment:
        click.echo(f"  environment {prepared.spec.environment}")
    click.echo(f"  log {submitted.log}")
    click.echo(f"  next: rvstate logs -f {submitted.job}")


def show_runs(records: tuple[RunRecord, ...], *, everything: bool) -> None:
    """A table of runs, those under way first."""
    active = [r for r in records if r.state not in FINISHED]
    ended = [r for r in records if r.state in FINISHED]
    shown = active + (ended if everything else ended[:5])
    if not shown:
        click.echo("No runs yet. Start one with `rvstate run COMMAND`.")
        return
    rows = [("JOB", "NAME", "STATE", "TIME", "CODE", "")]
    rows += [
        (
            r.job or "-",
            r.name,
            r.state.value,
            "" if r.elapsed is None else duration.render(r.elapsed),
            f"{r.project} {r.branch or '-'}@{(r.commit or '-')[:7]}{'*' if r.dirty else ''}",
            r.reason,
        )
        for r in shown
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)]
        click.echo("  ".join((*cells, row[5])).rstrip())


def show_end(record: RunRecord) -> None:
    """How a followed run ended."""
    code = "" if record.exit_code is None else f", exit code {record.exit_code}"
    click.echo(f"{record.name} ({record.job}): {record.state.value}{code}", err=True)
