"""What people, and programs, read about pipelines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rvstate.slurm import duration
from rvstate.views import runs

if TYPE_CHECKING:
    # whoever calls has loaded what the call needs, and no more
    from rvstate.model.stage import Stage
    from rvstate.staging import Verdict
    from rvstate.workflows.pipeline.listing import Listed, StageState
    from rvstate.workflows.pipeline.prepare import Ready
    from rvstate.workflows.pipeline.submit import Sent
    from rvstate.workflows.run.prepared import Prepared

_SIGNS = {"run": ("+", "green"), "skip": ("=", "white"), "leave": (" ", "white")}


def show_plan(ready: Ready) -> None:
    """One line a stage: what becomes of it, and why."""
    width = max(len(verdict.stage) for verdict in ready.verdicts)
    for verdict in ready.verdicts:
        sign, colour = _SIGNS[verdict.action]
        name = verdict.stage.ljust(width)
        where = _environment(ready.pipeline.stage(verdict.stage))
        shown = click.style(f"  {verdict.reason}{where}", dim=not verdict.runs)
        click.echo(f" {click.style(sign, fg=colour, bold=verdict.runs)} {name}{shown}")
    skipped = sum(verdict.action == "skip" for verdict in ready.verdicts)
    running = sum(verdict.runs for verdict in ready.verdicts)
    left = len(ready.verdicts) - skipped - running
    parts = [f"{running} to run", f"{skipped} skipped"]
    if left:
        parts.append(f"{left} not selected")
    click.echo(f"Plan: {', '.join(parts)}.")


def _environment(stage: Stage) -> str:
    added = stage.runtime_env
    if added is None or not added.layered:
        return ""
    return f"  [{added.installer}: {added.requirements or ', '.join(added.packages)}]"


def show_scripts(ready: Ready) -> None:
    """The batch script of each stage that runs."""
    for run in ready.runs:
        assert run.part is not None
        click.echo()
        click.secho(f"stage {_stages(run)}:", bold=True)
        click.echo(run.text, nl=False)


def show_sent(sent: Sent) -> None:
    """What was submitted."""
    if not sent.ready.runs:
        click.echo("Nothing to do: every stage is as it was made.")
        return
    for run in sent.ready.runs:
        assert run.part is not None
        waits = ", ".join(other.name.removeprefix(f"{run.part.name}-") for other in run.spec.after)
        behind = f"  behind {waits}" if waits else ""
        sign = click.style("✓", fg="green")
        click.echo(f"{sign} job {sent.jobs[run.run_id]}  {_stages(run)}{behind}")
    click.echo(f"  files {sent.ready.data}")
    click.echo("  next: rvstate pipeline ps")


def _stages(run: Prepared) -> str:
    """The stages that a run is."""
    assert run.part is not None
    return ", ".join(name for name, of, _ in run.part.plan if of == run.run_id)


def show_pipeline(listed: Listed) -> None:
    """A table of the stages of one pipeline."""
    click.echo(f"{listed.part.name} ({listed.part.pipeline})")
    rows = [("STAGE", "STATE", "JOB", "TIME", ""), *map(_row, listed.stages)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)]
        click.echo("  ".join((*cells, row[4])).rstrip())


def _row(stage: StageState) -> tuple[str, str, str, str, str]:
    record = stage.record
    if record is None:
        return (stage.name, stage.word, "", "", stage.reason)
    took = "" if record.elapsed is None else duration.render(record.elapsed)
    return (stage.name, stage.word, record.job or "?", took, why(stage))


def why(stage: StageState) -> str:
    """Why a stage waits, or how it failed; empty where there is nothing to explain."""
    record = stage.record
    if record is None:
        return stage.reason
    if stage.word != record.state.value:
        # one of several in a job
        return "another stage of its job failed before" if stage.word == "CANCELLED" else ""
    if record.reason:
        return record.reason
    if record.exit_code:
        return f"its command ended with exit code {record.exit_code}"
    return ""


def ready_document(command: str, ready: Ready, remote_commands: int) -> str:
    """The document of `rvstate pipeline plan --json`."""
    return _document(command, ready, {}, remote_commands)


def sent_document(command: str, sent: Sent, listed: Listed | None = None) -> str:
    """The document of `rvstate pipeline run --json`.

    Args:
        command: Which one it was.
        sent: What was submitted.
        listed: How it ended, where that was waited for.
    """
    states = {s.name: s.word for s in listed.stages if s.record} if listed is not None else {}
    return _document(command, sent.ready, sent.jobs, sent.remote_commands, states)


def _document(
    command: str,
    ready: Ready,
    jobs: Mapping[str, str],
    remote_commands: int,
    states: Mapping[str, str] | None = None,
) -> str:
    runs_by_stage = {
        name: run
        for run in ready.runs
        if run.part is not None
        for name, of, _ in run.part.plan
        if of == run.run_id
    }

    def row(verdict: Verdict) -> dict[str, Any]:
        run = runs_by_stage.get(verdict.stage)
        found: dict[str, Any] = {
            "name": verdict.stage,
            "action": verdict.action,
            "reason": verdict.reason,
        }
        if run is not None:
            found |= {
                "run_id": run.run_id,
                "job_id": jobs.get(run.run_id),
                "environment": run.spec.environment,
                "after": [other.run_id for other in run.spec.after],
            }
        if states is not None and verdict.stage in states:
            found["state"] = states[verdict.stage]
        return found

    return json.dumps(
        {
            "schema": 1,
            "command": command,
            "pipeline": ready.pipeline.name,
            "id": ready.pipeline_id if ready.runs else None,
            "backend": ready.pipeline.backend,
            "data": ready.data,
            "stages": [row(verdict) for verdict in ready.verdicts],
            "remote_commands": remote_commands,
        }
    )


def listed_document(command: str, listed: Listed) -> str:
    """The document of `rvstate pipeline ps --json`."""
    return json.dumps(
        {
            "schema": 1,
            "command": command,
            "pipeline": listed.part.name,
            "id": listed.part.pipeline,
            "stages": [
                {
                    "name": stage.name,
                    "state": stage.word,
                    "reason": why(stage) or stage.reason,
                    "run": runs.as_plain(stage.record) if stage.record else None,
                }
                for stage in listed.stages
            ],
        }
    )
