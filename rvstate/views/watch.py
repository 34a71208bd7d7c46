"""What people read while a tree is watched."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import click

from rvstate.errors import EXIT_NOT_AUTHENTICATED
from rvstate.workflows.watch import Pushed, Trouble

_SHOWN = 5


def show_watch(events: Iterator[Pushed | Trouble]) -> int:
    """Each push and each trouble as it comes; returns the exit code of a first push that failed."""
    pushed = False
    for event in events:
        now = f"{datetime.datetime.now().astimezone():%H:%M:%S}"
        if isinstance(event, Trouble):
            click.secho(f"rvstate: {now} not sent: {event.message}", fg="yellow", err=True)
            if event.remedy:
                click.echo(f"  → {event.remedy}", err=True)
            if not pushed:
                return event.status
            click.echo(f"  {_next(event)}", err=True)
            continue
        click.echo(f"{now} {_told(event)}")
        if not pushed:
            pushed = True
            click.echo(f"Watching; {event.code} follows. Ctrl-C ends it.", err=True)
    return 0


def _told(event: Pushed) -> str:
    parts = []
    if event.sent:
        parts.append(f"sent {_some(event.sent)}")
    if event.removed:
        parts.append(f"removed {_some(event.removed)}")
    return ", ".join(parts) or "nothing to send"


def _some(names: tuple[str, ...]) -> str:
    return f"{len(names)} files" if len(names) > _SHOWN else " ".join(names)


def _next(event: Trouble) -> str:
    if event.status == EXIT_NOT_AUTHENTICATED:
        return "Goes on after that login."
    if event.pause is None:
        return "Goes on with the next change."
    return f"Tries again in {event.pause:.0f} s."
