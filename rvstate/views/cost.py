"""What people, and programs, read about costs."""

from __future__ import annotations

import dataclasses
import json

import click

from rvstate.workflows.cost import Costs


def show(found: Costs) -> None:
    """A table by kind, and what is left."""
    if found.days is not None:
        click.echo(f"Your jobs of the last {found.days} days:")
    if not found.costs:
        click.echo("  none has used anything.")
    for cost in found.costs:
        jobs = "" if found.days is None else f"  {cost.jobs:>4} jobs"
        what = "CPU hours" if cost.kind == "cpu" else "GPU hours"
        click.echo(
            f"  {cost.kind:<10}{jobs}  {cost.hours:>10,.1f} {what}  {_units(found, cost.units)}"
        )
    if found.total is not None and len(found.costs) > 1:
        click.echo(f"  {'together':<10} {_units(found, found.total)}")
    if found.balance is not None:
        left = f"{found.paying} has {found.balance.available:,.0f} {found.unit} available"
        if found.days is None and found.total is not None:
            left += f", {found.balance.available - found.total:,.0f} after this job"
        click.echo(f"{left}.")
    elif found.paying:
        click.echo(f"The balance of {found.paying} is not known.")
    for text in found.trouble:
        click.secho(f"not known: {text}", fg="yellow", err=True)


def _units(found: Costs, units: float | None) -> str:
    return "no price is known" if units is None else f"{units:,.2f} {found.unit}"


def document(found: Costs) -> str:
    """The document of `rvstate cost --json`."""
    return json.dumps({"schema": 1, "command": "cost", **dataclasses.asdict(found)})
