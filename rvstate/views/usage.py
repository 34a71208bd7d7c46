"""What people and programs read of `rvstate usage`: a table, with a bar for each row."""

from __future__ import annotations

import dataclasses

import click

from rvstate.size import human_bytes
from rvstate.views import machine
from rvstate.workflows.questions import Storage
from rvstate.workflows.usage import Usage

_WIDTH = 20
_FULL, _FILLING = 80, 60  # percent


def show(found: Usage) -> None:
    """First the file systems, then what rvstate keeps, the largest first."""
    for place in found.storage:
        _show_storage(place)
    total = sum(place.size for place in found.places)
    inodes = sum(place.inodes for place in found.places)
    rows = [
        (f"{place.kind} {place.name}".strip(), human_bytes(place.size), f"{place.inodes:,}")
        for place in found.places
    ]
    rows.append(("in all", human_bytes(total), f"{inodes:,}"))
    widths = [max(len(row[n]) for row in [*rows, ("", "", "INODES")]) for n in range(3)]
    click.echo(f"{'KEPT BY RVSTATE':<{widths[0]}}  {'SIZE':>{widths[1]}}  {'INODES':>{widths[2]}}")
    sizes = [*(place.size for place in found.places), 0]
    for (name, size, count), share in zip(rows, sizes, strict=True):
        drawn = bar(share, total) if share else ""
        click.echo(
            f"{name:<{widths[0]}}  {size:>{widths[1]}}  {count:>{widths[2]}}  {drawn}".rstrip()
        )
    if found.unreadable:
        what = "directory" if found.unreadable == 1 else "directories"
        click.echo(f"{found.unreadable} {what} could not be read, so there is more.")


def bar(part: int, whole: int) -> str:
    """A bar of at most 20 characters; anything above nothing shows."""
    filled = min(_WIDTH, max(round(_WIDTH * part / whole), 1 if part else 0)) if whole else 0
    return "█" * filled


def _show_storage(place: Storage) -> None:
    whose = "quota" if place.quota else "whole file system"
    click.echo(
        f"{place.path}  {_share(place.used, place.size)}  "
        f"{human_bytes(place.used)} of {human_bytes(place.size)} ({whose})"
    )
    if place.inodes and place.inodes_used is not None:
        click.echo(
            f"{'':<{len(place.path)}}  {_share(place.inodes_used, place.inodes)}  "
            f"{place.inodes_used:,} of {place.inodes:,} inodes"
        )


def _share(part: int, whole: int) -> str:
    percent = round(100 * part / whole) if whole else 0
    colour = "red" if percent > _FULL else "yellow" if percent > _FILLING else "green"
    drawn = bar(part, whole)
    return f"{click.style(drawn, fg=colour)}{'░' * (_WIDTH - len(drawn))} {percent:>3}%"


def document(found: Usage) -> str:
    """The document of `rvstate usage --json`."""
    return machine.document(
        "usage",
        host=found.label,
        places=[
            {
                "kind": place.kind,
                "name": place.name,
                "path": place.path,
                "bytes": place.size,
                "inodes": place.inodes,
            }
            for place in found.places
        ],
        storage=[dataclasses.asdict(place) for place in found.storage],
        unreadable=found.unreadable,
        remote_commands=found.remote_commands,
    )
