"""What people and programs read of `rvstate keepalive`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import click

from rvstate.keepalive import Policy, Ran, Report
from rvstate.size import human_bytes
from rvstate.views import machine, upkeep
from rvstate.workflows.keepalive import Done, Status
from rvstate.workflows.verify import Verification

_HEADER: tuple[str, ...] = ("PATH", "FILES", "SIZE", "AT RISK", "DAYS LEFT")
_PATHS = {
    "account": ".rv",
    "environments": ".rv/envs",
    "workspaces": "rv-workspaces",
}


def path(place: str) -> str:
    """Where a place is, below scratch."""
    return _PATHS.get(place, f".cache/{place}")


def show_run(policy: Policy, found: Done) -> None:
    """What a run did, and by which policy."""
    if policy.note:
        click.echo(f"Mode {policy.mode}: {policy.note}.")
    if found is None:
        if policy.mode != "off":
            click.echo("The site profile names no limit and clock, so nothing can be measured.")
        return
    if isinstance(found, Verification):
        upkeep.show_verification(found)
        return
    if isinstance(found, Report):
        risk = sum(place.risk for place in found.places)
        click.echo(f"{_files(risk)} past half of the limit; nothing was touched.")
    elif found.busy:
        click.echo(f"Another keepalive is at work ({found.busy}); nothing was done here.")
    else:
        click.echo(f"Touched: {_files(found.touched)} that {_were(found.touched)} past half of it.")
    _show_troubles(found)


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _show_troubles(found: Ran | Report) -> None:
    for trouble in found.troubles:
        click.echo(f" {click.style('✗', fg='red', bold=True)} {trouble}")
    more = found.trouble_count - len(found.troubles)
    if more > 0:
        click.echo(f"   and {more} more")
    if found.trouble_count:
        click.echo("   → What could not be read may be purged: mend it, then run this again.")


def show_status(found: Status) -> None:
    """The table, and what is known of runs."""
    policy, report = found.policy, found.report
    click.echo(f"Mode {policy.mode}{': ' + policy.note if policy.note else ''}.")
    if policy.refusal:
        click.echo(f" {click.style('!', fg='red', bold=True)} {policy.refusal}")
    if policy.measurable:
        click.echo(f"Purged after {policy.purge.days} days by {policy.purge.clock}.")
        _show_table(report)
        _show_troubles(report)
        _show_dates(report)
    elif policy.mode != "off":
        click.echo("The site profile names no limit and clock, so nothing can be measured.")
    _show_schedule(found)


def _show_schedule(found: Status) -> None:
    planned = found.report.planned
    if planned is not None:
        when = f"daily at {planned.time}" if planned.next is None else _date(planned.next)
        click.echo(f"Next run: {when}, by {planned.how} on the cluster.")
        if planned.ended is None:
            click.echo("No scheduled run on the cluster has ended yet.")
        else:
            click.echo(_ended("on the cluster", planned.ended, planned.status, planned.text))
    if found.here is not None:
        how, _ = found.here
        when = "with the next command" if found.next is None else _date(found.next)
        click.echo(f"Next run: {when}, by {how} on this machine.")
    if planned is None and found.here is None and found.policy.mode != "off":
        click.echo("Nothing is scheduled: see `rvstate keepalive schedule`.")
    if found.attempt is not None:
        attempt = found.attempt
        click.echo(_ended("from this machine", attempt.time, attempt.status, attempt.text))


def _ended(place: str, when: int, status: int | None, text: str) -> str:
    run = f"The scheduled run {place} on {_date(when)}"
    if status:
        return f"{run} failed: {text.rstrip('.') or f'it ended with {status}'}."
    return f"{run} succeeded." if not text else f"{run} ended: {text.rstrip('.')}."


def _show_table(report: Report) -> None:
    rows: list[tuple[str, ...]] = [_HEADER]
    if report.victims is not None:
        rows = [(*_HEADER, "ON THE SITE'S LIST")]
    for place in report.places:
        left = "-" if place.days_left is None else str(place.days_left)
        row = (path(place.name), str(place.files), human_bytes(place.size), str(place.risk), left)
        rows.append((*row, str(place.victims)) if place.victims is not None else row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for texts in rows:
        cells = (
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(texts, widths, strict=True))
        )
        click.echo("  ".join(cells).rstrip())
    if report.victims is not None:
        ours = sum(place.victims or 0 for place in report.places)
        click.echo(
            f"The site's own list names {report.victims} of your files, {ours} of them here."
        )


def _show_dates(report: Report) -> None:
    if report.success is None:
        click.echo("Last success: never.")
    else:
        days = max(report.now - report.success, 0) // 86400
        click.echo(f"Last success: {_date(report.success)} ({days} days ago).")
    last = report.last
    if last is not None and last.troubles:
        click.echo(f"Last run: {_date(last.ended)}, with {last.troubles} troubles: {last.trouble}")


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def run_document(policy: Policy, found: Done) -> str:
    """The document of `rvstate keepalive run --json`."""
    return machine.document("keepalive run", policy=_policy(policy), **_found(found))


def status_document(found: Status) -> str:
    """The document of `rvstate keepalive status --json`."""
    return machine.document(
        "keepalive status",
        policy=_policy(found.policy),
        report=_report(found.report) if found.policy.measurable else None,
        scheduled_here=None if found.attempt is None else asdict(found.attempt),
        schedule=_schedule(found),
    )


def _schedule(found: Status) -> dict[str, Any]:
    planned = found.report.planned
    here = None
    if found.here is not None:
        here = {"how": found.here[0], "time": found.here[1] or None, "next": found.next}
    return {"cluster": None if planned is None else asdict(planned), "here": here}


def _policy(policy: Policy) -> dict[str, Any]:
    purge = policy.purge
    return {
        "mode": policy.mode,
        "days": purge.days,
        "clock": purge.clock,
        "touch_policy": purge.touch_policy,
        "url": purge.url,
        "note": policy.note,
        "refusal": policy.refusal,
    }


def _found(found: Done) -> dict[str, Any]:
    if found is None:
        return {"done": False}
    if isinstance(found, Verification):
        return {"done": True, "touched": 0, "verified": json.loads(upkeep.verify_document(found))}
    if isinstance(found, Report):
        return {"done": True, "touched": 0, "report": _report(found)}
    return {"done": not found.busy, **asdict(found)}


def _report(report: Report) -> dict[str, Any]:
    places = [{"path": path(p.name), **asdict(p)} for p in report.places]
    known = {key: value for key, value in asdict(report).items() if key != "planned"}
    return {**known, "places": places}
