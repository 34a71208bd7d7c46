"""`rvstate prune`."""

from __future__ import annotations

from pathlib import Path

import click

from rvstate.cli.common import Progress, account_options, agree, json_option, may_ask, session
from rvstate.errors import EXIT_DONE, EXIT_FAILED, ConfigError


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go; remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Remove without asking.")
@json_option
@account_options
def prune(
    dry_run: bool, yes: bool, as_json: bool, cluster: str | None, site: str | None, host: str | None
) -> int:
    """Remove what is not needed any more from scratch.

    Old snapshots, environments, runs with their logs, workspaces of branches that are gone, and
    originals that migrations left: what would go, what that frees, what is kept and why. What a
    job in the queue needs is never removed, nor anything that rvstate did not make.
    """
    from rvstate.views import upkeep
    from rvstate.workflows import prune as workflow

    tell = Progress(quiet=as_json)
    account = session(cluster, site, host)
    try:
        found = workflow.plan(account, Path.cwd(), tell)
        tell.done()
        if not as_json:
            upkeep.show_pruning(found)
        if dry_run or not found.removals:
            done: tuple[workflow.Done, ...] = ()
        else:
            if not yes:
                _confirm(as_json)
            done = workflow.remove(account, found, tell)
    finally:
        tell.done()
    if as_json:
        click.echo(upkeep.prune_document(found, done, account.transport.commands, dry_run))
    else:
        upkeep.show_removed(found, done)
    return EXIT_FAILED if any(result.word == "failed" for result in done) else EXIT_DONE


def _confirm(as_json: bool) -> None:
    if as_json or not may_ask():
        raise ConfigError(
            "Nobody is here to be asked, so nothing was removed.", "Add -y, or --dry-run to look."
        )
    agree("Remove these?", "Nothing was removed.", "`rvstate prune --dry-run` only looks.")
