"""`rvstate gpu`."""

from __future__ import annotations

import time

import click

from rvstate.cli.common import account_options, json_option, session
from rvstate.errors import ConfigError, UnreachableError
from rvstate.views import gpu as view
from rvstate.workflows import gpu as workflow
from rvstate.workflows.session import Session


@click.command()
@click.argument("run", required=False)
@click.option("-w", "--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every",
    type=click.IntRange(2),
    default=10,
    metavar="SECONDS",
    help="How often --watch looks (default: 10).",
)
@json_option
@account_options
def gpu(
    run: str | None,
    watch: bool,
    every: int,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Show how busy the GPUs of your runs are.

    RUN is a job id, a run id or a job's name; default: every run that holds GPUs. A job that has
    used nothing of a GPU for long is pointed out.
    """
    if watch and as_json:
        raise ConfigError("--watch has no JSON form.", "Leave out one of the two.")
    account = session(cluster, site, host)
    found = workflow.look(account, run)
    if as_json:
        click.echo(view.document(found))
        return 0
    idle = workflow.Idle()
    while True:
        view.show(found, idle.seen(found, time.monotonic()), clear=watch)
        if not watch or not found:
            return 0
        found, ended = _again(account, run, every)
        if ended:
            click.echo(f"rvstate: {ended}", err=True)
            return 0


def _again(account: Session, run: str | None, every: int) -> tuple[tuple[workflow.Use, ...], str]:
    """The next look that succeeds; or why there is nothing to look at any more."""
    while True:
        time.sleep(every)
        try:
            return workflow.look(account, run), ""
        except UnreachableError as error:
            click.echo(f"rvstate: {error.message} Looking again in {every} s.", err=True)
        except ConfigError as error:
            # the run has ended, which is no mistake of whoever watches it
            return (), error.message
