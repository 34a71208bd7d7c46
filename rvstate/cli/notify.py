"""`rvstate notify`."""

from __future__ import annotations

import click

from rvstate.cli.common import account_options, json_option, session
from rvstate.views import machine
from rvstate.workflows import notify as workflow


@click.group()
def notify() -> None:
    """Test how you are told about jobs, or receive what tells you."""


@notify.command()
@json_option
@account_options
def test(as_json: bool, cluster: str | None, site: str | None, host: str | None) -> int:
    """Send a test event from the cluster, as a job would."""
    found = workflow.test(session(cluster, site, host))
    if as_json:
        click.echo(machine.document("notify test", url=found.url, status=found.status))
    else:
        click.echo(f"{found.url} took the event ({found.status}).")
    return 0
