"""`rvstate ps`, `rvstate logs`, `rvstate stop`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from rvstate.cli.common import Progress, account_options, json_option, may_ask, session
from rvstate.errors import EXIT_FAILED, ConfigError, Interrupted
from rvstate.logmerge import Merge
from rvstate.model.job import RunRecord
from rvstate.model.settings import CHAIN
from rvstate.slurm.states import JobState
from rvstate.views import runs as view
from rvstate.workflows import jobs as workflow
from rvstate.workflows.session import Session

# Bytes at the end of a log in which a cause is looked for.
_REMEMBERED = 65536


@click.command()
@click.argument("run", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="Also runs that have ended.")
@json_option
@account_options
def ps(
    run: str | None,
    everything: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """List your runs and their states.

    Without -a: those that wait or run, and the newest few that have ended. With RUN: the elements
    of that array.
    """
    account = session(cluster, site, host)
    records = workflow.runs(account)
    one = workflow.find(records, run) if run else None
    if as_json:
        click.echo(view.ps_document((one,) if one else records))
    elif one and one.elements:
        view.show_elements(one)
    elif one:
        view.show_runs((one,), everything=True)
    else:
        view.show_runs(records, everything=everything)
    if any(record.untold for record in records):
        from rvstate.workflows import notify

        notify.deliver(account, records)
    return 0


@click.command()
@click.argument("run", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--err", is_flag=True, help="Only standard error.")
@click.option("--out", is_flag=True, help="Only standard output.")
@click.option("--node", type=click.IntRange(0), metavar="N", help="Only that node, from 0.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.option(
    "--pull",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Bring the log files to DIR instead of showing them.",
)
@click.option("--raw", is_flag=True, help="Show progress bars as they were written.")
@account_options
def logs(
    run: str | None,
    follow: bool,
    err: bool,
    out: bool,
    node: int | None,
    tail: int | None,
    pull: Path | None,
    raw: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Show what a run has written.

    RUN is a job id, a run id or a job's name; default: the newest run; RUN_INDEX is one element of
    an array. With -f the exit code is
    the program's own; 124 for a run that reached its time limit, 137 for one out of memory, 143
    for a cancelled one. Progress bars are shown as the line that they end with. The lines of
    several nodes are shown in the order in which they were written, behind [node0] and so on.
    """
    account = session(cluster, site, host)
    # the log is there, whether the controller answers or not
    record = workflow.find(workflow.runs(account, states=False), run)
    kinds = ("out",) if out and not err else ("err",) if err and not out else ("out", "err")
    streams = workflow.streams(record, kinds, node)
    if record.job is None:
        raise ConfigError(
            f"Run {record.run_id} was never answered with a job id.", "See `rvstate ps`."
        )
    if pull is not None:
        for path in workflow.pull(account, record, pull, node):
            click.echo(path)
        return 0
    printer = Printer(raw=raw, merge=workflow.merge(record), prefix=node is None)
    return _show(account, record, streams, printer, follow=follow, tail=tail)


def show_logs(account: Session, record: RunRecord, *, follow: bool, tail: int | None) -> int:
    """Show what a run has written, both streams of it.

    Args:
        account: Where it ran.
        record: The run.
        follow: Whether to go on until it has ended.
        tail: How many lines to begin with; None for all.

    Returns:
        The exit code: with `follow` the program's own.

    Raises:
        ConfigError: It has no job.
    """
    streams = workflow.streams(record, ("out", "err"), None)
    if record.job is None:
        raise ConfigError(
            f"Run {record.run_id} was never answered with a job id.", "See `rvstate ps`."
        )
    printer = Printer(merge=workflow.merge(record))
    return _show(account, record, streams, printer, follow=follow, tail=tail)


def _show(
    account: Session,
    record: RunRecord,
    streams: tuple[str, ...],
    printer: Printer,
    *,
    follow: bool,
    tail: int | None,
) -> int:
    if follow:
        return workflow.exit_status(follow_to_end(account, record, streams, printer, tail))
    offsets: dict[str, int] = {}
    while pieces := workflow.read(account, record, streams, offsets, tail).pieces:
        printer.show(pieces)
    printer.end()
    if record.reason:
        _note(record.reason)
    _explain(record, printer)
    return 0


class Printer:
    """Shows log text: standard output and error where they belong, or all on standard error.

    Args:
        raw: Show progress bars as they were written.
        errors_only: All on standard error.
        merge: Puts the logs of several nodes in order.
        prefix: Whether their lines begin with the node.
    """

    def __init__(
        self,
        *,
        raw: bool = False,
        errors_only: bool = False,
        merge: Merge | None = None,
        prefix: bool = True,
    ) -> None:
        self._raw = raw
        self._errors_only = errors_only
        self._merge = merge
        self._prefix = prefix
        self._folds = {"out": workflow.Fold(), "err": workflow.Fold()}
        self.shown = b""
        """The last of what was shown."""

    def show(self, pieces: Iterable[workflow.Piece]) -> None:
        """Show what one reading brought."""
        if self._merge is not None:
            self._lines(self._merge.feed((x.stream, x.start, x.text) for x in pieces))
            return
        for piece in pieces:
            text = piece.text if self._raw else self._folds[piece.stream].feed(piece.text)
            self._write(piece.stream, text)

    def end(self) -> None:
        """Show what was held back."""
        if self._merge is not None:
            self._lines(self._merge.rest())
            return
        for stream, fold in self._folds.items():
            self._write(stream, fold.rest())

    def _lines(self, lines: list[tuple[str, bytes]]) -> None:
        for name, line in lines:
            text = line if self._raw else workflow.last_drawn(line)
            part = name.partition(".")[0]
            part = part if part.startswith("node") or part.isdecimal() else "batch"
            shown = f"[{part}] ".encode() + text if self._prefix else text
            self._write(name.rpartition(".")[2], shown)

    def _write(self, stream: str, text: bytes) -> None:
        self.shown = (self.shown + text)[-_REMEMBERED:]
        target = sys.stdout if stream == "out" and not self._errors_only else sys.stderr
        target.buffer.write(text)
        target.flush()


def follow_to_end(
    account: Session,
    record: RunRecord,
    streams: tuple[str, ...],
    printer: Printer,
    tail: int | None = None,
) -> RunRecord:
    """Show a run's log until it has ended, and how it did; without streams only that.

    Raises:
        Interrupted: Ctrl-C, which ends no job.
    """
    try:
        record = workflow.decided(account, record, _note)
        for pieces in workflow.follow(account, record, streams, _note, tail):
            printer.show(pieces)
        printer.end()
        ended = workflow.ending(account, record, lambda _: None)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Job {record.job} goes on.",
            f"`rvstate logs -f {record.job}` follows it again, `rvstate stop {record.job}` "
            "ends it.",
        ) from None
    view.show_end(ended)
    _explain(ended, printer)
    return ended


def _explain(record: RunRecord, printer: Printer) -> None:
    """What a failed run's own words say about its environment."""
    if record.state is JobState.FAILED:
        from rvstate.diagnose import diagnose

        for found in diagnose(printer.shown.decode("utf-8", "replace")):
            click.echo(f"rvstate: {found.message}\n  → {found.remedy}", err=True)


def _note(text: str) -> None:
    click.echo(f"rvstate: {text}", err=True)


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

    RUNS are exact job ids, run ids or names; a part of a number names nothing. RUN_INDEX is one
    element of an array.
    """
    account = session(cluster, site, host)
    records = workflow.runs(account)
    if runs == (CHAIN,) and all(record.name != CHAIN for record in records):
        return _stop_chain(account, yes=yes, as_json=as_json)
    found = tuple(dict.fromkeys(workflow.find(records, name) for name in runs))
    active = tuple(r for r in found if not r.is_over)
    if not as_json:
        view.show_runs(found, everything=True)
    if active and not (yes or _agreed(f"End {len(active)} of them?")):
        return EXIT_FAILED
    if active:
        tell = Progress(quiet=as_json)
        workflow.stop(account, active, tell)
        tell.done()
    if as_json:
        click.echo(view.stop_document(active))
    else:
        click.echo(f"Ended: {', '.join(r.job or r.run_id for r in active) or 'none was active'}.")
    return 0


def _agreed(question: str) -> bool:
    if not may_ask():
        raise ConfigError("There is nobody to ask whether to end them.", "Add -y.")
    if click.confirm(question, err=True):
        return True
    click.echo("Nothing was ended.", err=True)
    return False


def _stop_chain(account: Session, *, yes: bool, as_json: bool) -> int:
    """Keepalive's own jobs are no runs; they are ended by their name alone."""
    from rvstate.workflows import schedule

    if not (yes or _agreed("End the chain of keepalive's jobs?")):
        return EXIT_FAILED
    ended = schedule.stop_chain(account)
    if as_json:
        click.echo(view.stop_document(()))
    else:
        click.echo(f"Ended: {', '.join(ended) or 'no job of the chain waits'}.")
        click.echo("The next `rvstate converge` starts it again while its schedule is declared.")
    return 0
