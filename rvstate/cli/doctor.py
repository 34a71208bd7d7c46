"""`rvstate doctor`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from rvstate.cli.common import Progress, account_options, json_option, project_root, session
from rvstate.errors import EXIT_DONE, EXIT_FAILED
from rvstate.views import account as view
from rvstate.views import machine
from rvstate.workflows import doctor as workflow


@click.command()
@click.option("--job", is_flag=True, help="Ask a compute node as well, by a job of one minute.")
@json_option
@account_options
def doctor(
    job: bool, as_json: bool, cluster: str | None, site: str | None, host: str | None
) -> int:
    """Say what is well with account and cluster, and what to do.

    Looks at this machine, the connection, start-up files, home and scratch, quota, programs, Slurm,
    clocks and the site's purge, with one remote command; in a project with DVC also at the way to
    its Git remote and its data. Exit code 1 if anything is broken.
    """
    from rvstate.workflows.doctor_dvc import has_dvc

    root = project_root(Path.cwd())
    root = root if has_dvc(root) else None
    account = session(cluster, site, host, project=root)
    tell = Progress(quiet=as_json)
    tell(f"looking at {account.label}")
    checks = workflow.examine(account, job=job, root=root)
    tell.done()
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        click.echo(
            machine.document(
                "doctor", host=account.label, checks=rows, healthy=not workflow.failed(checks)
            )
        )
    else:
        view.show_checks(checks)
    return EXIT_FAILED if workflow.failed(checks) else EXIT_DONE
