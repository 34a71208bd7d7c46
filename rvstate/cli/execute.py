"""`rvstate exec`."""

from __future__ import annotations

import click

from rvstate.cli.common import account_options, session
from rvstate.workflows import execute as workflow


@click.command(
    "exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False}
)
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal, for programs such as htop.")
@account_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    tty: bool, cluster: str | None, site: str | None, host: str | None, command: tuple[str, ...]
) -> int:
    """Run a command on the login node, as if it ran here.

    One argument is a line of shell: `rvstate exec "squeue --me | wc -l"`. Several are a program and
    its arguments, each passed as it is. Input, output and the exit code are the command's own, and
    Ctrl-C ends it. Options of rvstate go before the command; `--` ends them.
    """
    return workflow.execute(session(cluster, site, host), command, terminal=tty)
