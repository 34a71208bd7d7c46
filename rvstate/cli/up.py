"""`rvstate up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rvstate.cli.common import (
    Progress,
    account_options,
    json_option,
    may_ask,
    project_root,
    session,
)
from rvstate.cli.run import order_of, resource_options, show_notices
from rvstate.errors import EXIT_INTERRUPTED, ConfigError, RvstateError, SubmitError
from rvstate.holding import Held
from rvstate.views import runs as runs_view
from rvstate.views import up as view
from rvstate.workflows import up as workflow
from rvstate.workflows.run.prepare import prepare
from rvstate.workflows.run.prepared import Prepared, Submitted
from rvstate.workflows.run.submit import submit, tested
from rvstate.workflows.session import Session


@click.command()
@resource_options
@click.option("--code", is_flag=True, help="In the workspace itself, not in a snapshot of it.")
@click.option("--keep", "stays", is_flag=True, help="Leaving the shell leaves the allocation.")
@click.option("--dry-run", is_flag=True, help="Show what would be asked for; ask for nothing.")
@json_option
@account_options
def up(
    code: bool,
    stays: bool,
    dry_run: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
    **options: Any,
) -> int:
    """Get a shell on a compute node: this code, its environment, now.

    It is a job of yours, so it waits like one; Ctrl-C while it waits cancels it. Leaving the shell
    ends the allocation. The exit code is the shell's own.
    """
    if as_json and not dry_run:
        raise ConfigError("A shell is no JSON document.", "Add --dry-run, or leave out --json.")
    if not dry_run and not may_ask():
        raise ConfigError(
            "There is nobody at a terminal for a shell.", "Use `rvstate run COMMAND` instead."
        )
    here = Path.cwd()
    account = session(cluster, site, host, project=project_root(here))
    if not as_json:
        runs_view.show_where(account.config)
    several = account.config.site.scheduler != "process"
    plain = order_of(account, (), here, options)
    order = workflow.shell_order(plain, keep=stays, code=code, several=several)
    tell = Progress(quiet=as_json)
    prepared = prepare(account, order, tell, ahead=not dry_run)
    tell.done()
    show_notices(prepared, ())
    if dry_run:
        said = tested(account, prepared)
        runs_view.show_dry_run(prepared, said, as_json=as_json, command="up")
        return 0
    try:
        submitted = submit(account, prepared, tell)
        tell.done()
        view.show_submitted(submitted)
        submitted, held = workflow.wait(account, submitted, lambda found: tell(view.waiting(found)))
        tell.done()
    except KeyboardInterrupt:
        tell.done()
        return _cancelled(account, prepared)
    return _inside(account, submitted, held)


def _cancelled(account: Session, prepared: Prepared) -> int:
    click.echo("rvstate: cancelling…", err=True)
    try:
        jobs = workflow.cancel(account, prepared)
    except KeyboardInterrupt:
        raise SubmitError(
            f"Whether run {prepared.run_id} is cancelled is not known.",
            "See `rvstate ps`, and end it with `rvstate stop`.",
        ) from None
    view.show_cancelled(jobs)
    return EXIT_INTERRUPTED


def _inside(account: Session, submitted: Submitted, held: Held) -> int:
    try:
        status = workflow.shell(account, submitted, held)
    except RvstateError as error:
        raise type(error)(
            f"{error.message} {view.goes_on(submitted)}", view.way_back(submitted)
        ) from error
    view.show_left(submitted)
    return status
