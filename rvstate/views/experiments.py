"""Experiments of DVC as people and machines read them."""

from __future__ import annotations

from typing import Any

import click

from rvstate.slurm import duration
from rvstate.views import runs
from rvstate.workflows.dvc.queue import Queued

_RESULTS = {"pushed": "pushed", "kept": "not pushed", "none": "none"}


def show_queue(found: tuple[Queued, ...], *, everything: bool) -> None:
    """A table of experiments: those that wait or run, and those whose results are not pushed."""
    shown = [one for one in found if everything or one.is_news]
    if not shown:
        more = f" {len(found)} have ended; -a shows them." if found else ""
        click.echo(f"No experiment waits or runs.{more}")
        return
    rows = [("EXPERIMENT", "JOB", "STATE", "TIME", "RESULTS", "CODE", "PARAMETERS")]
    rows += [
        (
            _plain(one.name) or "-",
            one.job or "-",
            one.state.value,
            "" if one.elapsed is None else duration.render(one.elapsed),
            _RESULTS.get(one.results, ""),
            _code(one),
            _plain(" ".join(f"{name}={value}" for name, value in one.parameters)),
        )
        for one in shown
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:6], widths, strict=True)]
        click.echo("  ".join((*cells, row[6])).rstrip())
    if any(one.results == "kept" for one in shown):
        click.echo("`rvstate dvc pull` in the project pushes what is not pushed, and brings it.")


def _plain(text: str) -> str:
    """A value on one line: what no terminal prints is written as Python would."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _code(one: Queued) -> str:
    """Which project, branch and commit it ran."""
    run = one.run
    changed = "*" if run.dirty else ""
    return f"{run.project} {run.branch or '-'}@{(run.commit or '-')[:7]}{changed}"


def queue_document(found: tuple[Queued, ...]) -> str:
    """The same, all of them, as one document."""
    return runs.document("dvc queue", experiments=[_values(one) for one in found])


def _values(one: Queued) -> dict[str, Any]:
    return {
        "name": one.name or None,
        "run_id": one.run.run_id,
        "job_id": one.job,
        "index": one.index,
        "state": one.state.value,
        "elapsed_seconds": one.elapsed,
        "exit_code": one.exit_code,
        "parameters": dict(one.parameters),
        "project": one.run.project,
        "branch": one.run.branch,
        "commit": one.run.commit,
        "dirty": one.run.dirty,
        "submitted_at": one.run.submitted,
        "results": one.results or None,
        "about_results": one.about or None,
    }
