"""What people, and programs, read about environments."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from rvstate.shell import join
from rvstate.size import human_bytes
from rvstate.workflows.environment import Shown


def show(found: Shown) -> None:
    """What is in it, from what, how big, used by which jobs."""
    recipe: dict[str, list[str]] = {}
    for key, value in found.recipe:
        recipe.setdefault(key, []).append(value)
    click.echo(f"{found.project} {found.branch}: {found.python}, kind {_first(recipe, 'kind')}")
    click.echo(f"  at {found.place}")
    for key, title in (
        ("source", "from"),
        ("extra", "extras"),
        ("group", "groups"),
        ("module", "module"),
    ):
        if key in recipe:
            click.echo(f"  {title} {', '.join(recipe[key])}")
    if found.size is not None:
        files, size, new = found.size
        click.echo(
            f"  {files} files, {human_bytes(size)}, {human_bytes(new)} of it shared with none"
        )
    for title, names in (
        ("built by the first job", found.deferred),
        ("installed by hand", found.added),
        ("removed by hand", found.gone),
        ("used by", found.jobs),
    ):
        if names:
            click.echo(f"  {title}: {', '.join(names)}")
    for layer in found.layers:
        own = f", {human_bytes(layer.size[2])} of its own" if layer.size else ""
        former = (
            "" if layer.base == found.place.rsplit("/", 1)[-1] else ", of an earlier generation"
        )
        click.echo(f"  layer by {layer.installer}: {', '.join(layer.lines)}{own}{former}")
        click.echo(f"    at {layer.place}")
    for name in found.packages:
        click.echo(f"    {name}{' (by hand)' if name in found.added else ''}")


def show_shell(found: Shown, host: str) -> None:
    """The lines that activate it by hand."""
    if host != "@local":
        click.echo(join(("ssh", host)))
    if found.modules:
        click.echo(join(("module", "load", *found.modules)))
    click.echo("export PYTHONNOUSERSITE=1")
    if dict(found.recipe).get("kind") == "conda":
        click.echo(join(("conda", "activate", found.place)))
    else:
        click.echo(join((".", f"{found.place}/bin/activate")))


def document(found: Shown) -> str:
    """The document of `rvstate env show --json`."""
    fields = asdict(found) | {"recipe": [list(pair) for pair in found.recipe]}
    return json.dumps({"schema": 1, "command": "env show", **fields})


def _first(recipe: dict[str, list[str]], key: str) -> str:
    return next(iter(recipe.get(key, ())), "uv")
