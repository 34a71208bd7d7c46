"""What people, and programs, read about GPUs and costs."""

from __future__ import annotations

import dataclasses
import json

import click

from rvstate.slurm import duration
from rvstate.workflows.gpu import Idle, Use

_WIDTH = 20
_CLEAR = "\x1b[H\x1b[2J"


def show(uses: tuple[Use, ...], idle: tuple[str, ...], *, clear: bool) -> None:
    """A bar for each GPU; then those that nobody uses."""
    if clear:
        # left out by click where standard output is no terminal
        click.echo(click.style(_CLEAR, reset=False), nl=False)
    if not uses:
        click.echo("No run holds a GPU now.")
    for use in uses:
        run = use.run
        time = "" if run.elapsed is None else f"  {duration.render(run.elapsed)}"
        click.secho(f"{run.job}  {run.name}{time}", bold=True)
        if use.error:
            click.echo(f"  not known: {use.error}")
        for gpu in use.gpus:
            click.echo(
                f"  {gpu.node}  {gpu.index}  {_bar(gpu.busy)}  {_memory(gpu.used, gpu.total)}"
                f"  {gpu.name}"
            )
    for text in idle:
        click.secho(f"! {text}", fg="yellow")
    if idle:
        click.echo("  → `rvstate logs -f` shows what the job does, `rvstate stop` ends it.")


def _bar(busy: int | None) -> str:
    if busy is None:
        return f"{'not told':<{_WIDTH}}     "
    filled = round(_WIDTH * min(busy, 100) / 100)
    return f"{'#' * filled:.<{_WIDTH}} {busy:>3}%"


def _memory(used: int | None, total: int | None) -> str:
    known = ["?" if value is None else f"{value / 1024:.1f}" for value in (used, total)]
    return f"{known[0]:>6} of {known[1]} GiB"


def document(uses: tuple[Use, ...]) -> str:
    """The document of `rvstate gpu --json`."""
    rows = []
    idle = Idle().seen(uses, 0.0)
    for use in uses:
        gpus = [
            {
                "node": gpu.node,
                "index": gpu.index,
                "name": gpu.name,
                "busy_percent": gpu.busy,
                "memory_used_mib": gpu.used,
                "memory_mib": gpu.total,
            }
            for gpu in use.gpus
        ]
        run = dataclasses.asdict(use.run)
        keys = {"run_id": "run_id", "job_id": "job", "name": "name", "elapsed_seconds": "elapsed"}
        rows.append(
            {key: run[name] for key, name in keys.items()} | {"gpus": gpus, "error": use.error}
        )
    return json.dumps({"schema": 1, "command": "gpu", "runs": rows, "idle": list(idle)})
