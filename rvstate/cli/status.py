"""`rvstate status`."""

from __future__ import annotations

import click

from rvstate import tunnel
from rvstate.cli.common import account_options, json_option, session
from rvstate.errors import RvstateError
from rvstate.views import status as view
from rvstate.workflows import status as workflow


@click.command()
@json_option
@account_options
def status(as_json: bool, cluster: str | None, site: str | None, host: str | None) -> int:
    """Show where things stand: storage, jobs, what is free.

    One remote command asks for all of it. What nobody could tell is shown as not known. With --json
    an account that cannot be reached is an answer too (`connection.ok` is false).
    """
    account = session(cluster, site, host)
    tunnels = tunnel.tunnels(account.state.tunnels)
    try:
        found = workflow.status(account)
    except RvstateError as error:
        if not as_json:
            raise
        click.echo(view.failure(account.label, tunnels, error))
        return error.exit_code
    if as_json:
        click.echo(view.document(found, tunnels))
    else:
        view.show(found, tunnels)
    return 0
