"""`rvstate sync`."""

from __future__ import annotations

from pathlib import Path

import click

from rvstate.cli.common import Progress, account_options, json_option, project_root, session
from rvstate.errors import EXIT_INTERRUPTED
from rvstate.size import human_bytes
from rvstate.views import runs as view
from rvstate.views.watch import show_watch
from rvstate.workflows import sync as workflow
from rvstate.workflows import watch as watching


@click.group()
def sync() -> None:
    """Bring code to the cluster without a job, or files back."""


@sync.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be sent and removed.")
@json_option
@account_options
def push(
    dry_run: bool, as_json: bool, cluster: str | None, site: str | None, host: str | None
) -> int:
    """Bring the project's code to its workspace, as `rvstate run` does.

    The same files travel by the same rules; what is not there any more is removed over there.
    Files that were not sent from here are never removed.
    """
    here = Path.cwd()
    account = session(cluster, site, host, project=project_root(here))
    # a person may look at standard error while a program (`sync watch`) reads the document
    tell = Progress()
    prepared = workflow.prepare_push(account, here, tell)
    notices = prepared.notices
    if not dry_run:
        pushed = workflow.push(account, prepared, tell)
        notices = (*notices, *pushed.notices)
    tell.done()
    for notice in notices:
        click.echo(f"rvstate: {notice}", err=True)
    sent = [file.path for file in prepared.change.changed]
    removed = list(prepared.change.deleted)
    if as_json:
        fields = {
            "dry_run": dry_run,
            "sent": sent,
            "removed": removed,
            "branch": prepared.project.branch_component,
            "state": prepared.tree.state,
        }
        click.echo(view.document("sync push", code=prepared.workspace.code, **fields))
        return 0
    for sign, names in (("+", sent), ("-", removed)):
        for name in names:
            click.echo(f" {sign} {name}")
    size = human_bytes(sum(file.size for file in prepared.change.changed))
    verb = "Would send" if dry_run else "Sent"
    click.echo(
        f"{verb} {len(sent)} files ({size}), removed {len(removed)}: {prepared.workspace.code}"
        if sent or removed
        else f"Nothing to send: {prepared.workspace.code} is as it is here."
    )
    return 0


@sync.command("watch")
@account_options
def watch_tree(cluster: str | None, site: str | None, host: str | None) -> int:
    """Push now and whenever the project's files change, until Ctrl-C.

    What would not be sent does not count. A lost connection is waited for.
    """
    here = Path.cwd()
    account = session(cluster, site, host, project=project_root(here))
    given = (("--cluster", cluster), ("--site", site), ("--host", host))
    options = tuple(word for name, value in given if value for word in (name, value))
    events = watching.watch(
        lambda: watching.look(account, here),
        lambda attended: watching.push(options, attended),
        lambda: watching.login_is_there(account),
        watching.Clock(),
    )
    try:
        return show_watch(events)
    except KeyboardInterrupt:
        click.echo("Watching has ended.", err=True)
        return EXIT_INTERRUPTED


@sync.command()
@click.argument("remote")
@click.argument(
    "local", required=False, type=click.Path(file_okay=False, path_type=Path), metavar="[DIR]"
)
@click.option("-n", "--dry-run", is_flag=True, help="Only list what there is.")
@click.option("--overwrite", is_flag=True, help="Replace files here that differ.")
@json_option
@account_options
def pull(
    remote: str,
    local: Path | None,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Bring a file or directory of the cluster here.

    REMOTE is an absolute path, or one in the project's workspace; DIR is where its files go, by
    default where you stand. A file here that differs is not replaced unless --overwrite says so.
    """
    here = Path.cwd()
    account = session(cluster, site, host, project=project_root(here))
    if dry_run:
        found = workflow.look(account, here, remote).files
        if as_json:
            rows = [{"path": name, "bytes": size} for name, size in found]
            click.echo(view.document("sync pull", dry_run=True, files=rows))
            return 0
        for name, size in found:
            click.echo(f" {human_bytes(size):>9}  {name}")
        click.echo(f"{len(found)} files, {human_bytes(sum(size for _, size in found))}")
        return 0
    target = local or here
    names = workflow.pull(account, here, remote, target, overwrite=overwrite)
    if as_json:
        click.echo(view.document("sync pull", dry_run=False, directory=str(target), files=names))
        return 0
    for name in names:
        click.echo(f" + {name}")
    click.echo(f"Brought {len(names)} files to {target}.")
    return 0
