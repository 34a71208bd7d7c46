"""`rvstate gpu`."""

from __future__ import annotations

import time

import click

from rvstate.cli.common import account_options, json_option, session
from rvstate.errors import ConfigError
from rvstate.views import gpu as view
from rvstate.workflows import gpu as workflow


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
        time.sleep(every)
        found = workflow.look(account, run)
