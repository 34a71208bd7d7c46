"""`rvstate ssh`."""

from __future__ import annotations

import click

from rvstate.cli.common import account_options, session
from rvstate.errors import ConfigError
from rvstate.workflows import enter as workflow


@click.command()
@click.argument("run", required=False)
@click.option("--node", metavar="N", help="Which of its nodes: a name, or a number from 0.")
@click.option("--config", is_flag=True, help="Print an ssh config block for editors instead.")
@click.option("--run", "line", metavar="CMD", help="Run one command there instead of a shell.")
@account_options
def ssh(
    run: str | None,
    node: str | None,
    config: bool,
    line: str | None,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Enter a running job.

    RUN is a job id, a run id or a job's name; default: the newest that runs. You get a shell in its
    allocation, with the job's modules, environment, variables and secrets, in its snapshot. The
    exit code is the shell's or the command's own.
    """
    if config and line is not None:
        raise ConfigError("--config and --run do not go together.", "Leave out one of the two.")
    account = session(cluster, site, host)
    place = workflow.find(account, run, node)
    if config:
        click.echo(workflow.door(account, place).block, nl=False)
        return 0
    if line is not None:
        return workflow.command(account, place, line)
    return workflow.shell(account, place)
