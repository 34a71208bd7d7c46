"""What people and programs read of the commands that keep scratch whole and tidy."""

from __future__ import annotations

import click

from rvstate.views import machine
from rvstate.workflows.verify import Verification

_SIGNS = {
    "sound": ("ok     ", "green"),
    "unknown": ("unknown", "yellow"),
    "damaged": ("DAMAGED", "red"),
}


def show_verification(found: Verification) -> None:
    """One line for each thing, examples of what is lost and the remedy below."""
    counts = dict.fromkeys(_SIGNS, 0)
    for thing in found.found:
        counts[thing.state] += 1
        word, colour = _SIGNS[thing.state]
        said = click.style(thing.words, dim=True)
        click.echo(f" {click.style(word, fg=colour)} {thing.kind:<11} {thing.name}  {said}")
        if thing.state == "damaged":
            for what, path in thing.examples:
                if what != "added":
                    click.echo(
                        f"           {what} {path!r}"
                        if "\n" in path
                        else f"           {what} {path}"
                    )
        if thing.remedy:
            click.echo(f"           → {thing.remedy}")
    if not found.stamped:
        click.echo(" The dates of this verification could not be written: is scratch full?")
    commands = f"{found.remote_commands} remote command{'' if found.remote_commands == 1 else 's'}"
    click.echo(
        f"{found.label}  {counts['sound']} sound, {counts['damaged']} damaged, "
        f"{counts['unknown']} unknown  ({commands})"
    )


def verify_document(found: Verification) -> str:
    """The document of `rvstate verify --json`."""
    return machine.document(
        "verify",
        host=found.label,
        things=[
            {
                "kind": thing.kind,
                "name": thing.name,
                "path": thing.path,
                "state": thing.state,
                "reason": thing.words,
                "missing": thing.missing,
                "changed": thing.changed,
                "added": thing.added,
                "unreadable": thing.unreadable,
                "examples": [{"what": what, "path": path} for what, path in thing.examples],
                "remedy": thing.remedy,
            }
            for thing in found.found
        ],
        damaged=len(found.damaged),
        remote_commands=found.remote_commands,
    )
