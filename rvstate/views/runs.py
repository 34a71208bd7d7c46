"""What people, and programs, read about runs."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import click

from rvstate import elements, sweep
from rvstate.config import Config
from rvstate.hardware import Trouble
from rvstate.model.job import JobSpec, RunRecord
from rvstate.size import human_bytes
from rvstate.slurm import duration
from rvstate.slurm.states import JobState
from rvstate.workflows.run.prepared import Prepared, Submitted, command_line

# how many runs that have ended are shown unasked
_NEWEST = 5


def show_where(config: Config) -> None:
    """The first line of a run on this machine: nobody should take it for the cluster."""
    if config.site.scheduler == "process":
        click.secho(
            "This job runs on this machine (site local), not on a cluster.", fg="yellow", err=True
        )


def show_dry_run(prepared: Prepared, tested: str, *, as_json: bool, command: str = "run") -> None:
    """The plan of a run and its batch script.

    Args:
        prepared: The run.
        tested: What `sbatch --test-only` said, or empty.
        as_json: As one JSON document.
        command: Which command is tried.
    """
    if as_json:
        plan = [f"{c.action.word} {c.kind} {c.resource.name}" for c in prepared.plan.changes]
        fields = {
            "mode": "dry-run",
            "plan": plan,
            "files_to_send": len(prepared.change.changed),
            "bytes_to_send": sum(file.size for file in prepared.change.changed),
            "environment_ready": prepared.environment_ready,
            **_shape(prepared),
            "script": prepared.text,
            "test_only": tested,
            "notices": list(prepared.notices),
        }
        if prepared.allocation is not None:
            fields["allocation"] = _allocation().values(prepared.allocation)
        click.echo(json.dumps({"schema": 1, "command": command, **fields}))
        return
    for change in prepared.plan.changes:
        click.echo(f" {change.action.value} {change.kind} {change.resource.name}")
    sent = prepared.change.changed
    click.echo(
        f"code: {len(prepared.tree.files)} files, {human_bytes(prepared.tree.size)}; to send: "
        f"{len(sent)} ({human_bytes(sum(file.size for file in sent))}), "
        f"to remove: {len(prepared.change.deleted)}"
    )
    ready = "is built" if prepared.environment_ready else "will be built"
    if prepared.environment is not None:
        click.echo(f"environment: {prepared.generation} {ready}")
    click.echo(f"command: {command_line(prepared)}")
    if prepared.allocation is not None:
        click.echo("types of GPU, the best first:")
        _allocation().show(prepared.allocation)
    if tested:
        click.echo(f"slurm: {tested}")
    click.echo("")
    click.echo(prepared.text, nl=False)


def show_submitted(submitted: Submitted) -> None:
    """What was submitted, and what to type next."""
    prepared = submitted.prepared
    project = prepared.project
    commit = (project.commit or "no commit")[:10] + ("*" if project.dirty else "")
    if not submitted.new:
        click.echo("This run was submitted already; here is its job.")
    jobs = submitted.job.split(",")
    array = prepared.spec.array
    several = f"  {len(array.indices)} elements" if array else ""
    click.echo(
        f"{click.style('✓', fg='green')} job {', '.join(jobs)}  {prepared.spec.options.name}  "
        f"[{project.name} {project.branch or '-'}@{commit}]{several}"
    )
    if prepared.allocation is not None:
        click.echo(f"  {_allocation().picked(prepared.allocation)}")
    if prepared.spec.snapshot is not None:
        click.echo(f"  snapshot {prepared.spec.snapshot}")
    elif prepared.spec.dvc is not None:
        queued = prepared.spec.dvc.how == "queued"
        click.echo("  from DVC's queue here" if queued else f"  clone of {prepared.spec.dvc.url}")
    if prepared.spec.environment:
        click.echo(f"  environment {prepared.spec.environment}")
    if not prepared.spec.choices:
        click.echo(f"  log {submitted.log}")
    then = "ps" if array else "ssh" if prepared.order.held else "logs -f"
    click.echo(f"  next: rvstate {then} {jobs[0]}")


def _allocation() -> ModuleType:
    # loaded only for a run that named no type of GPU
    from rvstate.views import allocation

    return allocation


def show_runs(records: tuple[RunRecord, ...], *, everything: bool) -> None:
    """A table of runs, those under way first."""
    active = [r for r in records if not r.is_over]
    ended = [r for r in records if r.is_over]
    # a request that was refused is no news any more
    shown = active + (ended if everything else [r for r in ended if r.begun][:_NEWEST])
    if not shown:
        click.echo("No runs yet. Start one with `rvstate run COMMAND`.")
        return
    rows = [("JOB", "NAME", "STATE", "TIME", "CODE", "")]
    rows += [
        (
            r.job or "-",
            r.name,
            state_word(r),
            "" if r.elapsed is None else duration.render(r.elapsed),
            f"{r.project} {r.branch or '-'}@{(r.commit or '-')[:7]}{'*' if r.dirty else ''}",
            "; ".join(
                filter(None, (elements.counts(r.elements), _segments(r), r.reason, r.unpushed))
            ),
        )
        for r in shown
    ]
    _table(rows)


def state_word(record: RunRecord) -> str:
    """A run's state: Slurm's, and RESUBMITTED where it waits for its next segment."""
    again = record.state is JobState.PENDING and record.segment > 0
    return "RESUBMITTED" if again else record.state.value


def _segments(record: RunRecord) -> str:
    if record.chain is None or not record.segment:
        return ""
    total = duration.render(record.chain.total)
    return f"segment {record.segment}, {duration.render(record.elapsed or 0)} of {total}"


def show_elements(record: RunRecord) -> None:
    """A table of the elements of one run."""
    assert record.array is not None
    click.echo(f"{record.name} ({', '.join(record.jobs)}): {elements.counts(record.elements)}")
    rows = [("ELEMENT", "JOB", "STATE", "TIME", "EXIT", "")]
    rows += [
        (
            f"{record.name}_{e.index}",
            e.job,
            e.state.value,
            "" if e.elapsed is None else duration.render(e.elapsed),
            "" if e.exit_code is None else str(e.exit_code),
            " ".join(f"{name}={value}" for name, value in sweep.values(record.array, e.index)),
        )
        for e in record.elements
    ]
    _table(rows)


def _table(rows: list[tuple[str, str, str, str, str, str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)]
        click.echo("  ".join((*cells, row[5])).rstrip())


def show_end(record: RunRecord) -> None:
    """How a followed run ended."""
    code = "" if record.exit_code is None else f", exit code {record.exit_code}"
    said = "; ".join(filter(None, (record.reason, record.unpushed)))
    why = f"; {said}" if said else ""
    click.echo(f"{record.name} ({record.job}): {record.state.value}{code}{why}", err=True)


def show_trouble(found: Trouble, *, again: bool) -> None:
    """That a node was at fault, and what becomes of the run.

    Args:
        found: The fault.
        again: Whether the run is submitted once more now.
    """
    where = ", ".join(found.nodes) or "a node, Slurm does not say which,"
    click.echo(f"rvstate: {where} {found.what}", err=True)
    if again:
        click.echo("  → It is submitted once more, without that node.", err=True)
    else:
        known = ",".join(found.nodes) or "NODE"
        click.echo(f"  → Submit it again with --exclude {known}.", err=True)


def run_document(submitted: Submitted, exit_code: int | None = None) -> str:
    """The document of `rvstate run --json`.

    Args:
        submitted: What was submitted.
        exit_code: How a run that was followed ended; None where it was not followed.
    """
    prepared = submitted.prepared
    project, spec = prepared.project, prepared.spec
    followed = {} if exit_code is None else {"exit_code": exit_code}
    return json.dumps(
        {
            "schema": 1,
            "command": "dvc run" if prepared.order.dvc else "run",
            "run_id": prepared.run_id,
            "job_id": submitted.job.partition(",")[0],
            **_several(spec, submitted.job),
            "name": spec.options.name,
            "project": project.name,
            "branch": project.branch,
            "commit": project.commit,
            "dirty": project.dirty,
            "snapshot": spec.snapshot,
            "environment": spec.environment,
            "script": spec.run_directory / "job.sh",
            "log": submitted.log,
            "error_log": submitted.error_log,
            **_shape(prepared),
            "submitted": submitted.new,
            "remote_commands": submitted.remote_commands,
            **followed,
        }
    )


def _several(spec: JobSpec, jobs: str) -> dict[str, Any]:
    """The jobs and elements of an array; or the jobs of which one runs."""
    if spec.choices:
        return {"jobs": jobs.split(",")}
    if spec.array is None:
        return {}
    return {"jobs": jobs.split(","), "elements": list(spec.array.indices)}


def _shape(prepared: Prepared) -> dict[str, Any]:
    """Nodes, GPUs on each, and what is started on them; nothing for a plain run on one node."""
    options = prepared.spec.options
    if not options.nodes and not options.gpus and not prepared.spec.start:
        return {}
    return {
        "nodes": options.nodes or 1,
        "gpus_per_node": options.gpus[1] if options.gpus else 0,
        "start": prepared.spec.start or None,
    }


def ps_document(records: tuple[RunRecord, ...]) -> str:
    """The document of `rvstate ps --json`."""
    return json.dumps({"schema": 1, "command": "ps", "runs": [as_plain(r) for r in records]})


def stop_document(records: tuple[RunRecord, ...]) -> str:
    """The document of `rvstate stop --json`."""
    return json.dumps({"schema": 1, "command": "stop", "ended": [as_plain(r) for r in records]})


def as_plain(record: RunRecord) -> dict[str, Any]:
    """A run as the documents tell of it."""
    return {
        "run_id": record.run_id,
        "job_id": record.job,
        "name": record.name,
        "state": state_word(record),
        "reason": record.reason,
        "exit_code": record.exit_code,
        "elapsed_seconds": record.elapsed,
        "project": record.project,
        "branch": record.branch,
        "commit": record.commit,
        "dirty": record.dirty,
        "submitted_at": record.submitted,
        "log": record.log,
        "error_log": record.error_log,
        "command": list(record.command),
        **_elements(record),
        **_chain(record),
        **({"results": record.results} if record.results else {}),
    }


def _chain(record: RunRecord) -> dict[str, Any]:
    if record.chain is None:
        return {}
    return {"segment": record.segment, "total_seconds": record.chain.total}


def _elements(record: RunRecord) -> dict[str, Any]:
    array = record.array
    if array is None:
        return {}
    return {
        "jobs": list(record.jobs),
        "elements": [
            {
                "index": e.index,
                "job_id": e.job,
                "state": e.state.value,
                "exit_code": e.exit_code,
                "elapsed_seconds": e.elapsed,
                "parameters": dict(sweep.values(array, e.index)),
            }
            for e in record.elements
        ],
    }


def document(command: str, **fields: Any) -> str:
    """The document of a command whose values are plain already."""
    return json.dumps({"schema": 1, "command": command, **fields})
