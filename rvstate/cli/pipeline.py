"""`rvstate pipeline`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rvstate.cli.common import (
    Progress,
    account_options,
    json_option,
    may_ask,
    project_root,
    session,
)
from rvstate.errors import EXIT_FAILED, ConfigError, Interrupted
from rvstate.views import runs as runs_view
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    # loaded by the commands that need it
    from rvstate.workflows.pipeline.prepare import Wanted
    from rvstate.workflows.pipeline.submit import Sent

_F = TypeVar("_F", bound=Callable[..., Any])
_CHOICE = (
    click.option(
        "--stage",
        "stages",
        multiple=True,
        metavar="A..B",
        help="Only that stage, or those from A to B; A.. and ..B are open. Repeatable.",
    ),
    click.option(
        "--stage-env",
        "environments",
        multiple=True,
        metavar="NAME:uv=PACKAGES",
        help="In the place of a stage's runtime_env: NAME:uv=a==1,b; NAME:pip=FILE.txt; "
        "NAME:none for the base. Repeatable.",
    ),
    click.option("--force", is_flag=True, help="Also run stages that have not changed."),
)
_CODE = click.argument("code", metavar="[FILE.py:NAME]", default="", required=False)
_WAIT = click.option(
    "-w", "--wait", is_flag=True, help="Wait until all have ended; exit code 1 if one failed."
)


def _choice_options(function: _F) -> _F:
    for option in reversed(_CHOICE):
        function = option(function)
    return function


@click.group()
def pipeline() -> None:
    """Run a project's stages, each in an environment of its own.

    Stages are declared in the project: [stages.NAME] in rvstate.toml, or
    [tool.rvstate.stages.NAME] in pyproject.toml. What has not changed is skipped.
    """


@pipeline.command()
@_CODE
@_choice_options
@click.option("--dry-run", is_flag=True, help="Show plan and batch scripts; submit nothing.")
@_WAIT
@click.option("--resume", is_flag=True, help="Take up the pipeline whose answer never came.")
@json_option
@account_options
def run(
    code: str,
    stages: tuple[str, ...],
    environments: tuple[str, ...],
    force: bool,
    dry_run: bool,
    wait: bool,
    resume: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Submit the stages that have to run, each behind those that it follows.

    A stage whose inputs, code, environment and command are unchanged, and whose outputs are there,
    is skipped. Where one fails, those that need it are cancelled. FILE.py:NAME is a pipeline that
    is written as code, in the place of the declared one.
    """
    from rvstate.workflows.pipeline.prepare import Wanted

    if resume and (stages or environments or force or dry_run):
        raise ConfigError(
            "--resume takes up what was asked for then.", "rvstate pipeline run --resume"
        )
    account = _account(cluster, site, host, as_json=as_json)
    asked = Wanted(Path.cwd(), stages, environments, force, code=code)
    if resume:
        from rvstate.workflows.pipeline.submit import resume_pipeline

        tell = Progress(quiet=as_json)
        sent = resume_pipeline(account, asked, tell)
        tell.done()
        return _finish(account, sent, "pipeline run", wait=wait, as_json=as_json)
    if dry_run:
        return _plan(account, asked, "pipeline run", scripts=True, as_json=as_json)
    return _submit(account, asked, "pipeline run", wait=wait, as_json=as_json)


@pipeline.command()
@_CODE
@_choice_options
@json_option
@account_options
def plan(
    code: str,
    stages: tuple[str, ...],
    environments: tuple[str, ...],
    force: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Show which stages would run, which would be skipped, and why.

    Takes the same options as `run`, looks at the account, and submits nothing.
    """
    from rvstate.workflows.pipeline.prepare import Wanted

    account = _account(cluster, site, host, as_json=as_json)
    asked = Wanted(Path.cwd(), stages, environments, force, code=code)
    return _plan(account, asked, "pipeline plan", scripts=False, as_json=as_json)


@pipeline.command()
@_CODE
@click.option("--from", "begin", required=True, metavar="STAGE", help="The first of them.")
@_WAIT
@json_option
@account_options
def rerun(
    code: str,
    begin: str,
    wait: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Run a stage and all that follow it, whatever has changed.

    Stages before it that have changed run, too; the others are skipped.
    """
    from rvstate.workflows.pipeline.prepare import Wanted

    account = _account(cluster, site, host, as_json=as_json)
    asked = Wanted(Path.cwd(), begin=begin, code=code)
    return _submit(account, asked, "pipeline rerun", wait=wait, as_json=as_json)


@pipeline.command()
@click.argument("name", metavar="PIPELINE", required=False)
@json_option
@account_options
def ps(
    name: str | None, as_json: bool, cluster: str | None, site: str | None, host: str | None
) -> int:
    """Show the stages of a pipeline that was submitted.

    PIPELINE is an id or a name; default: the newest of the project and branch in front of you.
    """
    from rvstate.views import pipeline as view
    from rvstate.workflows.pipeline import listing

    # one that is named may be of any project
    here = None if name else Path.cwd()
    found = listing.find(listing.pipelines(session(cluster, site, host), here), name)
    if as_json:
        click.echo(view.listed_document("pipeline ps", found))
    else:
        view.show_pipeline(found)
    return 0


@pipeline.command()
@click.argument("stage", required=True)
@click.option("-f", "--follow", is_flag=True, help="Go on until the stage has ended.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@account_options
def logs(
    stage: str,
    follow: bool,
    tail: int | None,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Show what the newest run of a stage has written.

    The stage is one of the project and branch in front of you. With -f the exit code is the
    stage's own.
    """
    from rvstate.cli.jobs import show_logs
    from rvstate.workflows.pipeline import listing

    account = session(cluster, site, host)
    record = listing.newest_of(listing.pipelines(account, Path.cwd()), stage)
    return show_logs(account, record, follow=follow, tail=tail)


@pipeline.command()
@click.argument("stages", metavar="[STAGE]...", nargs=-1)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@account_options
def stop(
    stages: tuple[str, ...],
    yes: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """End the stages of the newest pipeline that wait or run; all, or those that are named.

    It is that of the project and branch in front of you. What needs a stage that is ended is
    cancelled with it.
    """
    from rvstate.views import pipeline as view
    from rvstate.workflows import jobs
    from rvstate.workflows.pipeline import listing

    account = session(cluster, site, host)
    found = listing.pipelines(account, Path.cwd())
    newest = listing.find(found, None)
    chosen = tuple(listing.newest_of(found, name) for name in stages) or newest.records
    active = tuple(record for record in chosen if not record.is_over)
    if not as_json:
        view.show_pipeline(newest)
    # on Ray several stages are one job
    whole = {s.name for s in newest.stages if s.record in active}
    if stages and active and not whole <= {*stages}:
        click.echo(f"rvstate: {', '.join(sorted(whole))} are one job and end together.", err=True)
    if active and not yes:
        if not may_ask():
            raise ConfigError("There is nobody to ask whether to end them.", "Add -y.")
        if not click.confirm(f"End {len(active)} of them?", err=True):
            click.echo("Nothing was ended.", err=True)
            return EXIT_FAILED
    if active:
        tell = Progress(quiet=as_json)
        jobs.stop(account, active, tell)
        tell.done()
    if as_json:
        click.echo(runs_view.stop_document(active))
    else:
        click.echo(f"Ended: {', '.join(r.job or r.run_id for r in active) or 'none was active'}.")
    return 0


def _account(cluster: str | None, site: str | None, host: str | None, *, as_json: bool) -> Session:
    account = session(cluster, site, host, project=project_root(Path.cwd()))
    if not as_json:
        runs_view.show_where(account.config)
    return account


def _plan(account: Session, asked: Wanted, command: str, *, scripts: bool, as_json: bool) -> int:
    from rvstate.views import pipeline as view
    from rvstate.workflows.pipeline.prepare import prepare_pipeline

    tell = Progress(quiet=as_json)
    ready = prepare_pipeline(account, asked, tell)
    tell.done()
    _notices(ready.notices)
    if as_json:
        click.echo(view.ready_document(command, ready, account.transport.commands))
        return 0
    view.show_plan(ready)
    if scripts:
        view.show_scripts(ready)
    return 0


def _submit(account: Session, asked: Wanted, command: str, *, wait: bool, as_json: bool) -> int:
    from rvstate.views import pipeline as view
    from rvstate.workflows.pipeline.prepare import prepare_pipeline
    from rvstate.workflows.pipeline.submit import submit_pipeline

    tell = Progress(quiet=as_json)
    ready = prepare_pipeline(account, asked, tell)
    tell.done()
    _notices(ready.notices)
    if not as_json:
        view.show_plan(ready)
    sent = submit_pipeline(account, ready, tell)
    tell.done()
    return _finish(account, sent, command, wait=wait, as_json=as_json)


def _finish(account: Session, sent: Sent, command: str, *, wait: bool, as_json: bool) -> int:
    from rvstate.views import pipeline as view

    # of layers that were built, too; on standard error they are in the way of no document
    _notices(sent.notices)
    if not as_json:
        view.show_sent(sent)
    if not wait or not sent.ready.runs:
        if as_json:
            click.echo(view.sent_document(command, sent))
        return 0
    from rvstate.workflows.pipeline import listing

    tell = Progress(quiet=as_json)
    try:
        ended = listing.await_end(account, sent.ready.pipeline_id, tell)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Pipeline {sent.ready.pipeline_id} goes on.",
            "`rvstate pipeline ps` shows it, `rvstate pipeline stop` ends it.",
        ) from None
    tell.done()
    if as_json:
        click.echo(view.sent_document(command, sent, ended))
    else:
        view.show_pipeline(ended)
    return 0 if ended.succeeded else EXIT_FAILED


def _notices(notices: tuple[str, ...]) -> None:
    for notice in dict.fromkeys(notices):
        click.echo(f"rvstate: {notice}", err=True)
