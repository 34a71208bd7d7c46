"""`rvstate keepalive`."""

from __future__ import annotations

import click

from rvstate.cli.common import Progress, account_options, json_option, session
from rvstate.errors import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED
from rvstate.views import keepalive as view
from rvstate.workflows import keepalive as workflow
from rvstate.workflows import notify
from rvstate.workflows.session import open_session


@click.group()
def keepalive() -> None:
    """Keep files on scratch from being purged, within the site's rules.

    What may be done is the site's to say: the profile has its clock, its limit and its policy, and
    [scratch_keepalive] chooses among what is left.
    """


@keepalive.command()
@click.option(
    "--scheduled", is_flag=True, help="Nobody is there: use only a connection that is up already."
)
@json_option
@account_options
def run(
    scheduled: bool, as_json: bool, cluster: str | None, site: str | None, host: str | None
) -> int:
    """Renew the dates of files that are past half of the limit, count them, or verify.

    Only files of your own are touched, in rvstate's directories and the caches that it keeps, and
    only where mode is touch; mode report counts, mode heal verifies as `rvstate verify`. A second
    run on the same day changes nothing. Interrupted, it goes on where it was.
    """
    if scheduled:
        options = {"connection": {"site": site, "host": host}}
        account = open_session(options, cluster=cluster)
    else:
        account = session(cluster, site, host)
    tell = Progress(quiet=as_json)
    tell(f"walking through the files of {account.label}")
    policy, found = workflow.run(account, scheduled=scheduled)
    tell.done()
    if as_json:
        click.echo(view.run_document(policy, found))
    else:
        view.show_run(policy, found)
    if scheduled:
        # nobody may look at `ps` for days; behind the report, which a silent Slurm must not hide
        notify.catch_up(account)
    return EXIT_FAILED if workflow.wrong(found) else EXIT_DONE


@keepalive.command()
@json_option
@account_options
def schedule(as_json: bool, cluster: str | None, site: str | None, host: str | None) -> int:
    """Say what could run keepalive day by day, what does, and why others cannot.

    Changes nothing: schedule in [scratch_keepalive] declares it, and rvstate converge puts it in
    place or takes it out.
    """
    from rvstate.views import schedule as schedule_view
    from rvstate.workflows import schedule as schedules

    account = session(cluster, site, host)
    tell = Progress(quiet=as_json)
    tell(f"looking at {account.label}")
    found = schedules.choices(account)
    tell.done()
    if as_json:
        click.echo(schedule_view.document(found))
    else:
        schedule_view.show(found)
    return EXIT_REFUSED if found.plan.refusals else EXIT_DONE


@keepalive.command()
@json_option
@account_options
def status(as_json: bool, cluster: str | None, site: str | None, host: str | None) -> int:
    """Say how many files are near to being purged, and when keepalive last ran."""
    account = session(cluster, site, host)
    tell = Progress(quiet=as_json)
    tell(f"walking through the files of {account.label}")
    found = workflow.status(account)
    tell.done()
    if as_json:
        click.echo(view.status_document(found))
    else:
        view.show_status(found)
    return EXIT_FAILED if found.report.trouble_count else EXIT_DONE
