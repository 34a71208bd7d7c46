"""What people, and programs, read about where things stand."""

from __future__ import annotations

import dataclasses
import json

import click

from rvstate.errors import RvstateError, UnreachableError
from rvstate.size import human_bytes
from rvstate.slurm import duration
from rvstate.slurm.states import FINISHED
from rvstate.tunnel import Tunnel
from rvstate.workflows.questions import Storage
from rvstate.workflows.status import Status, age

_FULL, _FILLING = 80, 60  # percent
_SHOWN, _QUEUES = 8, 5


def show(found: Status, tunnels: tuple[Tunnel, ...]) -> None:
    """One screen."""
    _row("connection", f"{found.label} answers" + (f" ({found.node})" if found.node else ""))
    if found.slurm:
        _row("account", _account(found))
    _rows("storage", [_place(place) for place in found.storage], "`rvstate usage`")
    _row("rvstate", _ours(found))
    _row("keepalive", found.keepalive)
    _rows("jobs", _jobs(found), "`rvstate ps`")
    _rows("tunnels", [tunnel.words for tunnel in tunnels], "`rvstate forward --list`")
    if found.slurm:
        _rows("GPUs", _gpus(found), "`rvstate status --json`")
        _row("queue", _queue(found))
    for text in found.trouble:
        click.secho(f"not known: {text}", fg="yellow", err=True)


def _row(name: str, text: str) -> None:
    click.echo(f"{click.style(f'{name:<11}', bold=True)}{text}")


def _rows(name: str, texts: list[str], more: str) -> None:
    """Several lines under one name, no more than fit on a screen with the others."""
    for number, text in enumerate(texts[:_SHOWN]):
        _row("" if number else name, text)
    if len(texts) > _SHOWN:
        _row("", f"and {len(texts) - _SHOWN} more: see {more}")


def _account(found: Status) -> str:
    if found.balance is not None:
        return f"{found.paying}: {found.balance.available:,.0f} available"
    if found.balances:
        shown = ", ".join(f"{b.account} {b.available:,.0f}" for b in found.balances)
        return f"{found.paying or 'none configured'}; available: {shown}"
    if not found.paying:
        return "none configured"
    return f"{found.paying}; its balance is not known"


def _place(place: Storage) -> str:
    share = round(100 * place.used / place.size) if place.size else 0
    colour = "red" if share > _FULL else "yellow" if share > _FILLING else None
    text = f"{share}% of {human_bytes(place.size)}"
    if not place.quota:
        text += " (whole file system)"
    if place.inodes and place.inodes_used is not None:
        files = round(100 * place.inodes_used / place.inodes)
        text += f", {files}% of {place.inodes:,} inodes"
        colour = "red" if files > _FULL else colour
    return f"{place.path}  {click.style(text, fg=colour)}"


def _ours(found: Status) -> str:
    last = "never converged from here"
    if found.converged is not None:
        last = f"converged {age(found.converged[0])}"
    if found.changes is None or found.refusals is None:
        return f"{last}; what is pending is not known"
    if found.refusals:
        return f"{last}; {found.refusals} refused: see `rvstate converge --check`"
    if found.changes:
        changes = "1 change" if found.changes == 1 else f"{found.changes} changes"
        return f"{last}; {changes} pending: see `rvstate converge --check`"
    return f"{last}; everything is as declared"


def _jobs(found: Status) -> list[str]:
    if found.runs is None:
        return ["not known"]
    rows = []
    for run in found.runs:
        if run.state in FINISHED or not run.job:
            continue
        elapsed = "" if run.elapsed is None else f"  {duration.render(run.elapsed)}"
        nodes = f"  {','.join(run.nodes[:3])}" if run.nodes else ""
        reason = f"  {run.reason}" if run.reason else ""
        rows.append(f"{run.job}  {run.name}  {run.state.value}{elapsed}{nodes}{reason}")
    return rows or ["none waits or runs"]


def _gpus(found: Status) -> list[str]:
    if found.gpus is None:
        return ["not known"]
    rows = []
    for gpu in found.gpus:
        waits = "" if gpu.waiting is None else f", {gpu.waiting} jobs wait in {gpu.partition}"
        rows.append(f"{gpu.kind:<9} {gpu.free:>4} of {gpu.total} free{waits}")
    return rows


def _queue(found: Status) -> str:
    if found.waiting is None:
        return "not known"
    most = sorted(found.waiting.items(), key=lambda pair: (-pair[1], pair[0]))[:_QUEUES]
    return ", ".join(f"{name} {count}" for name, count in most) or "nobody waits"


def document(found: Status, tunnels: tuple[Tunnel, ...]) -> str:
    """The document of `rvstate status --json`."""
    runs = None
    if found.runs is not None:
        runs = [
            {
                "run_id": run.run_id,
                "job_id": run.job,
                "name": run.name,
                "state": run.state.value,
                "reason": run.reason,
                "elapsed_seconds": run.elapsed,
                "nodes": list(run.nodes),
            }
            for run in found.runs
            if run.state not in FINISHED
        ]
    when, count = found.converged or (None, None)
    return json.dumps(
        {
            "schema": 1,
            "command": "status",
            "connection": {"ok": True, "account": found.label, "node": found.node},
            "account": {
                "name": found.paying or None,
                "balances": _plain(found.balances),
            },
            "storage": _plain(found.storage),
            "state": {
                "converged_at": when,
                "converged_changes": count,
                "pending_changes": found.changes,
                "refusals": found.refusals,
                "keepalive": found.keepalive,
            },
            "jobs": runs,
            "tunnels": [tunnel.document() for tunnel in tunnels],
            "gpus": _plain(found.gpus),
            "waiting": found.waiting,
            "trouble": list(found.trouble),
            "remote_commands": found.remote_commands,
        }
    )


def failure(label: str, tunnels: tuple[Tunnel, ...], error: RvstateError) -> str:
    """The document of `rvstate status --json` for an account that cannot be reached."""
    # in which moment it was lost makes no difference here
    unreachable = isinstance(error, UnreachableError)
    reason = UnreachableError.__name__ if unreachable else type(error).__name__
    return json.dumps(
        {
            "schema": 1,
            "command": "status",
            "connection": {"ok": False, "account": label, "reason": reason},
            "tunnels": [tunnel.document() for tunnel in tunnels],
            "error": {
                "message": error.message,
                "remedy": error.remedy,
                "exit_code": error.exit_code,
            },
        }
    )


def _plain(values: tuple[object, ...] | None) -> list[dict[str, object]] | None:
    if values is None:
        return None
    return [dataclasses.asdict(value) for value in values]  # type: ignore[call-overload]
