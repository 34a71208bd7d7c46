"""`rvstate cost`."""

from __future__ import annotations

import click

from rvstate.cli.common import account_options, json_option, session
from rvstate.views import cost as view
from rvstate.workflows import cost as workflow


@click.command()
@click.option("--days", type=click.IntRange(1), default=30, help="How far back (default: 30).")
@click.option("-g", "--gpus", type=click.IntRange(1), metavar="N", help="Price a job of N GPUs.")
@click.option("-t", "--type", "gpu_type", metavar="TYPE", help="Only this type of GPU.")
@click.option("--time", "time_limit", metavar="TIME", help="Price a job that runs so long.")
@json_option
@account_options
def cost(
    days: int,
    gpus: int | None,
    gpu_type: str | None,
    time_limit: str | None,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Say what jobs cost by the site's prices.

    Without -g, -t and --time: what your jobs of the last days used, from Slurm's accounting. With
    one of them: what one such job would cost at most, for each type of GPU.
    """
    account = session(cluster, site, host)
    if gpus or gpu_type or time_limit:
        found = workflow.planned(account, gpus or 1, gpu_type, time_limit)
    else:
        found = workflow.spent(account, days)
    if as_json:
        click.echo(view.document(found))
    else:
        view.show(found)
    return 0
