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


@notify.command()
@click.option(
    "--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8787, show_default=True, help="Port."
)
@account_options
def serve(bind: str, port: int, cluster: str | None, site: str | None, host: str | None) -> None:
    """Receive events, check them, and pass them on by mail or to a chat.

    Needs `pip install 'rvstate[notify]'`; [receiver] in the settings says what to do with them.
    """
    account = session(cluster, site, host)
    click.echo(f"Listening at http://{bind}:{port}/; ^C ends it.", err=True)
    workflow.serve(account, bind, port, lambda line: click.echo(line, err=True))
