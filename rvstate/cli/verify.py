"""`rvstate verify`."""

from __future__ import annotations

import click

from rvstate.cli.common import Progress, account_options, json_option, session
from rvstate.errors import EXIT_DONE, EXIT_FAILED


@click.command()
@json_option
@account_options
def verify(as_json: bool, cluster: str | None, site: str | None, host: str | None) -> int:
    """Compare what is kept on scratch with what was put there.

    Walks every environment, snapshot, the file of variables and the scripts with one remote
    command, and names what a purge took. What you added is an addition, not damage. Nothing is
    changed; `rvstate converge` mends what can be mended. Ends with 1 where damage was found.
    """
    from rvstate.workflows import verify as workflow

    tell = Progress(quiet=as_json)
    try:
        found = workflow.verify(session(cluster, site, host), tell)
    finally:
        tell.done()
    from rvstate.views import upkeep

    click.echo(upkeep.verify_document(found)) if as_json else upkeep.show_verification(found)
    return EXIT_FAILED if found.damaged else EXIT_DONE
