"""`rvstate ps`, `rvstate logs`, `rvstate stop`."""

from __future__ import annotations

import sys

import click

from rvstate.cli.common import Progress, account_options, json_option, may_ask, session
from rvstate.errors import ConfigError
from rvstate.slurm import states
from rvstate.slurm.states import FINISHED
from rvstate.views import runs as view
from rvstate.workflows import jobs as workflow


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also runs that have ended.")
@json_option
@account_options
def ps(
    everything: bool, as_json: bool, cluster: str | None, site: str | None, host: str | None
) -> int:
    """List your runs and their states.

    Without -a: those that wait or run, and the newest few that have ended.
    """
    account = session(cluster, site, host)
    records = workflow.runs(account)
    if as_json:
        click.echo(view.ps_document(records))
    else:
        view.show_runs(records, everything=everything)
    return 0


@click.command()
@click.argument("run", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--err", is_flag=True, help="Only standard error.")
@click.option("--out", is_flag=True, help="Only standard output.")
@account_options
def logs(
    run: str | None,
    follow: bool,
    err: bool,
    out: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Show what a run has written.

    RUN is a job id, a run id or a job's name; default: the newest run. With -f the exit code is
    the program's own.
    """
    account = session(cluster, site, host)
    record = workflow.find(workflow.runs(account), run)
    streams = ("out",) if out and not err else ("err",) if err and not out else ("out", "err")
    if record.job is None:
        raise ConfigError(
            f"Run {record.run_id} was never answered with a job id.", "See `rvstate ps`."
        )
    if not follow:
        offsets: dict[str, int] = {}
        while pieces := workflow.read(account, record, streams, offsets)[0]:
            _print(pieces)
        return 0
    for piece in workflow.follow(account, record, streams):
        _print([piece])
    ended = workflow.find(workflow.runs(account), record.run_id)
    view.show_end(ended)
    if ended.state not in FINISHED:
        return 1
    return states.exit_status(ended.state, f"{ended.exit_code or 0}:0")


def _print(pieces: list[workflow.Piece]) -> None:
    for piece in pieces:
        target = sys.stdout if piece.stream == "out" else sys.stderr
        target.buffer.write(piece.text)
        target.flush()


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@account_options
def stop(
    runs: tuple[str, ...],
    yes: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """End runs.

    RUNS are exact job ids, run ids or names; a part of a number names nothing.
    """
    account = session(cluster, site, host)
    records = workflow.runs(account)
    found = tuple(dict.fromkeys(workflow.find(records, name) for name in runs))
    active = tuple(r for r in found if r.state not in FINISHED)
    if not as_json:
        view.show_runs(found, everything=True)
    if active and not yes:
        if not may_ask():
            raise ConfigError("There is nobody to ask whether to end them.", "Add -y.")
        click.confirm(f"End {len(active)} of them?", abort=True, err=True)
    if active:
        tell = Progress(quiet=as_json)
        workflow.stop(account, active, tell)
        tell.done()
    if as_json:
        click.echo(view.stop_document(active))
    else:
        click.echo(f"Ended: {', '.join(r.job or r.run_id for r in active) or 'none was active'}.")
    return 0
