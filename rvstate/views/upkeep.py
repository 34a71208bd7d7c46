"""What people and programs read of the commands that keep scratch whole and tidy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from rvstate.size import human_bytes
from rvstate.views import machine
from rvstate.workflows.prune import Done, Pruning, Removal
from rvstate.workflows.verify import Verification

_SIGNS = {
    "sound": ("sound  ", "green"),
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


def show_pruning(found: Pruning) -> None:
    """What would go, with what it frees; of what stays a line for each reason."""
    for removal in found.removals:
        sign = click.style("-", fg="red", bold=True)
        reason = click.style(removal.verdict.reason, dim=True)
        size = f"{human_bytes(removal.size)}, {_files(removal.inodes)}"
        click.echo(f" {sign} {removal.kind:<10} {_name(removal)}  {size}  {reason}")
    reasons = Counter((verdict.thing.kind, verdict.reason) for verdict in found.kept)
    for (kind, reason), count in reasons.items():
        what = f"{count} {kind}{'' if count == 1 else 's'}"
        click.echo(f"   {click.style(f'kept: {what}: {reason}', dim=True)}")
    if not found.removals:
        click.echo(f"Nothing to remove: {len(found.kept)} things are kept.")
    else:
        click.echo(
            f"To remove: {len(found.removals)} of {len(found.removals) + len(found.kept)}, "
            f"which frees {human_bytes(found.size)} and {_files(found.inodes)}."
        )


def _files(inodes: int) -> str:
    return f"{inodes:,} inode{'' if inodes == 1 else 's'}"


def _name(removal: Removal) -> str:
    if removal.kind in ("log", "original"):
        return removal.path.rsplit("/", 1)[-1]
    return removal.verdict.thing.name


def show_removed(found: Pruning, done: tuple[Done, ...]) -> None:
    """What became of each; those that went are only counted."""
    for result in done:
        if result.word == "kept":
            click.echo(f"   kept: {_name(result.removal)}: {result.text}")
        elif result.word == "failed":
            sign = click.style("✗", fg="red", bold=True)
            click.echo(f" {sign} {result.removal.kind} {_name(result.removal)}: {result.text}")
    gone = [result.removal for result in done if result.word == "done"]
    if done:
        size, inodes = sum(r.size for r in gone), sum(r.inodes for r in gone)
        click.echo(
            f"{found.label}  removed={len(gone)}  freed {human_bytes(size)}, {_files(inodes)}"
        )


def prune_document(found: Pruning, done: tuple[Done, ...], commands: int, dry_run: bool) -> str:
    """The document of `rvstate prune --json`."""
    words = {(result.removal.kind, result.removal.path): result for result in done}
    return machine.document(
        "prune",
        host=found.label,
        mode="dry-run" if dry_run else "apply",
        removals=[_removal(r, words.get((r.kind, r.path))) for r in found.removals],
        kept=[{"kind": v.thing.kind, "path": v.thing.path, "reason": v.reason} for v in found.kept],
        bytes=found.size,
        inodes=found.inodes,
        remote_commands=commands,
    )


def _removal(removal: Removal, result: Done | None) -> dict[str, Any]:
    told = {"result": result.word, "text": result.text} if result else {}
    return {
        "kind": removal.kind,
        "path": removal.path,
        "reason": removal.verdict.reason,
        "bytes": removal.size,
        "inodes": removal.inodes,
        **told,
    }
