"""What people read about a choice among types of GPU."""

from __future__ import annotations

import time
from typing import Any

import click

from rvstate.allocator import Allocation, Choice, Estimate
from rvstate.slurm import duration


def show(found: Allocation) -> None:
    """A table of all types, the best first, and what is asked for."""
    rows = [_row(estimate, found.now, found.unit) for estimate in found.estimates]
    rows += [(name, "does not serve", why) for name, why in found.left_out]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for row in rows:
        click.echo(f"  {row[0].ljust(widths[0])}  {row[1].ljust(widths[1])}  {row[2]}".rstrip())
    click.echo(picked(found))


def _row(estimate: Estimate, now: int, unit: str) -> tuple[str, str, str]:
    choice = estimate.choice
    if estimate.refusal:
        return choice.kind, "refused", estimate.refusal
    return choice.kind, _starts(estimate.start, now), _cost(choice, unit)


def _starts(start: int | None, now: int) -> str:
    """When it could start, as the scheduler guesses; times are those of this machine's clock."""
    if start is None:
        return "nobody knows when"
    if start - now <= 1:
        return "starts now"
    at = time.strftime("%a %H:%M", time.localtime(start))
    return f"starts in {duration.render(start - now)} ({at})"


def _cost(choice: Choice, unit: str) -> str:
    """What it costs at most."""
    return "" if choice.units is None else f"at most {choice.units:,.0f} {unit}"


def picked(found: Allocation) -> str:
    """What is asked for, in one line."""
    if len(found.picked) == 1:
        (choice,) = found.picked
        price = _cost(choice, found.unit)
        several = ", whichever is free first" if "," in choice.kind else ""
        return f"GPU: {choice.kind} in {choice.options.partition}{several}" + (
            f", {price}" if price else ""
        )
    kinds = ", ".join(choice.kind for choice in found.picked)
    return f"GPU: whichever of {kinds} starts first; the other jobs of this run are cancelled then"


def values(found: Allocation) -> dict[str, Any]:
    """For a JSON document."""
    return {
        "now": found.now,
        "picked": [choice.kind for choice in found.picked],
        "types": [
            {
                "type": e.choice.kind,
                "partition": e.choice.options.partition,
                "start": e.start,
                "units": e.choice.units,
                "refusal": e.refusal or None,
            }
            for e in found.estimates
        ],
        "left_out": dict(found.left_out),
    }
