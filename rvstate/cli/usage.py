"""`rvstate usage`."""

from __future__ import annotations

import click

from rvstate.cli.common import Progress, account_options, json_option, session
from rvstate.errors import EXIT_DONE


@click.command()
@json_option
@account_options
def usage(as_json: bool, cluster: str | None, site: str | None, host: str | None) -> int:
    """Show where bytes and inodes are, against what the site allows.

    Counts projects, branches, environments and caches with one remote command, and shows them
    beside the quotas that the site's own tool reports. Nothing is changed.
    """
    from rvstate.workflows import usage as workflow

    tell = Progress(quiet=as_json)
    try:
        found = workflow.usage(session(cluster, site, host), tell)
    finally:
        tell.done()
    from rvstate.views import usage as view

    click.echo(view.document(found)) if as_json else view.show(found)
    return EXIT_DONE
