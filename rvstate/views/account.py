"""What people read of the commands that set up and examine an account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from rvstate import envfile, suggesting
from rvstate.config import Config, Explained
from rvstate.model.settings import SECRET_KEYS, Preset
from rvstate.workflows.check import FAIL, OK, WARN, Check
from rvstate.workflows.discover import Discovery
from rvstate.workflows.init import Looked, Written

_SIGNS = {OK: ("ok  ", "green"), WARN: ("warn", "yellow"), FAIL: ("FAIL", "red")}


def show_checks(checks: Iterable[Check]) -> None:
    """One line for each check, with its remedy below."""
    counts = dict.fromkeys(_SIGNS, 0)
    for check in checks:
        counts[check.status] += 1
        word, colour = _SIGNS[check.status]
        click.echo(f" {click.style(word, fg=colour)}  {check.name}: {check.text}")
        if check.remedy:
            click.echo(f"       → {check.remedy}")
    click.echo(f"{counts[OK]} ok, {counts[WARN]} to know, {counts[FAIL]} broken.")


def show_variables(variables: Mapping[str, str], *, reveal: bool) -> None:
    """The names of the variables; values only where that was asked for."""
    if not variables:
        click.echo("No variables are set: `rvstate env set NAME` asks for a value.")
        return
    width = max(map(len, variables))
    for name in sorted(variables):
        value = variables[name] if reveal else envfile.masked(variables[name])
        click.echo(f"{name:<{width}}  {value}")


def show_settings(config: Config, rows: Iterable[Explained], *, everything: bool) -> None:
    """The settings in force, by table; with `everything` those that nobody set as well."""
    click.echo(f"# {config.path}{'' if config.path.is_file() else ' (not there yet)'}")
    if config.cluster:
        click.echo(f"# cluster {config.cluster}")
    click.echo(f"# site profile {config.site.name}: {config.site.title}")
    last = ""
    for row in rows:
        table, _, key = row.key.rpartition(".")
        if table != last:
            click.echo(f"[{_heading(table)}]")
            last = table
        value = "(not set)" if row.value is None else toml_value(row.value)
        click.echo(f"{key} = {value}{f'  # {row.layer}' if everything else ''}")


def _heading(table: str) -> str:
    first, dot, name = table.partition(".")
    plain = name.replace("-", "").replace("_", "")
    bare = plain.isascii() and plain.isalnum()
    return f"{first}{dot}{name if bare or not dot else toml_value(name)}"


def toml_value(value: Any) -> str:
    """A value as it stands in the config file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml_value(part)}' for key, part in value.items())} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(part) for part in value)}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def show_found(looked: Looked) -> None:
    """What the connection test found."""
    found = looked.found
    click.echo(f"Connected: {found.user} on {found.node}, home {found.home}, {_shell(found)}.")
    if found.slurm:
        name = f" {found.cluster}" if found.cluster else ""
        count = len(found.partitions)
        click.echo(f"Slurm: cluster{name}, {found.slurm}, {count} partitions.")
    else:
        click.echo("Slurm's commands were not found there: is it a login node?")
    if found.accounts:
        click.echo(f"Allocations: {', '.join(found.accounts)}.")
    for place in found.places:
        if place.writable:
            click.echo(f"Scratch: {place.path}, {place.free >> 30} GiB free.")
    if looked.suggested:
        why = "it fits the cluster's address or partitions"
    elif looked.site == "generic":
        why = "no profile fits this cluster"
    else:
        why = "as configured"
    click.echo(f"Site profile: {looked.site} ({why}).")


def _shell(found: Discovery) -> str:
    return found.shell.rsplit("/", 1)[-1] or "a shell that it did not name"


def show_changes(changes: Iterable[tuple[str, Any, Any]]) -> None:
    """Keys that are set, one a line: the key, its value, and the one that it had."""
    for key, value, before in _presets_whole(changes):
        # as `rvstate config` shows them: a terminal's history is no place for a secret
        secret = tuple(key.split(".")) in SECRET_KEYS
        shown = "(not shown)" if secret else toml_value(value)
        was = "" if before is None else f"  (was {'not shown' if secret else toml_value(before)})"
        click.echo(f" {click.style('set', fg='green')} {key} = {shown}{was}")


def _presets_whole(changes: Iterable[tuple[str, Any, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """The same changes, those of a new preset in one."""
    whole: dict[str, dict[str, Any]] = {}
    for key, value, before in changes:
        table, _, last = key.rpartition(".")
        if before is None and table.startswith("presets."):
            whole.setdefault(table, {})[last] = value
        else:
            yield key, value, before
    for table, values in whole.items():
        yield _heading(table), values, None


def show_presets(offered: Mapping[str, Preset]) -> None:
    """Presets that fit what the cluster reports, one a line."""
    click.echo("Presets that fit this cluster:")
    width = max(map(len, offered), default=0)
    for name, preset in offered.items():
        click.echo(f"  {name:<{width}}  {suggesting.in_words(preset)}")


def show_left(title: str, left: Iterable[tuple[str, str]]) -> None:
    """What of another program's settings has no counterpart, and why."""
    for number, (key, why) in enumerate(left):
        if number == 0:
            click.echo(title)
        click.echo(f"  {key}: {why}")


def nothing_changed(path: Path) -> str:
    """That a file of settings needed no change."""
    return f"{path} says all of this already; nothing was changed."


def show_written(written: Written, next_steps: Iterable[str]) -> None:
    """What was written where, and what to type next."""
    if not written.changed:
        click.echo(nothing_changed(written.path))
    else:
        click.echo(f"Written: {written.path}")
    if written.ssh_config:
        click.echo(f"Written: the marked block in {written.ssh_config}")
    click.echo("Next:")
    for step in next_steps:
        click.echo(f"  {step}")
