"""Going along with a run until it ends, across lost connections and silent controllers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from rvstate.errors import UnreachableError
from rvstate.model.job import RunRecord
from rvstate.slurm.squeue import JobRow
from rvstate.slurm.states import FINISHED
from rvstate.workflows.jobs.ended import out_of_use
from rvstate.workflows.jobs.listing import find, runs
from rvstate.workflows.jobs.logs import Piece, Read, read
from rvstate.workflows.pace import Pace
from rvstate.workflows.session import Session

_POLL = 1.0  # seconds between two questions while following
# questions in a row at which nobody knew the job: when that is told, and when it is the end
_UNKNOWN_TOLD, UNKNOWN_END = 3, 6
_SILENCE = 600  # seconds without a word of controller or job


def decided(session: Session, record: RunRecord, tell: Callable[[str], None]) -> RunRecord:
    """A run of several jobs, once it is known which of them runs; any other at once."""
    if not record.undecided:
        return record
    tell(f"waiting for one of jobs {', '.join(record.jobs)} to start")
    pace = Pace()
    while True:
        if pace.due(time.monotonic()):
            try:
                found = find(runs(session), record.run_id)
            except UnreachableError:
                tell("the connection is lost; trying again")
                found = record
            if not found.undecided or found.state in FINISHED:
                return found
        time.sleep(_POLL)


def follow(
    session: Session,
    record: RunRecord,
    streams: tuple[str, ...],
    tell: Callable[[str], None],
    tail: int | None = None,
) -> Iterator[tuple[Piece, ...]]:
    """New log text as it comes, a reading at a time, until the run has ended.

    A lost connection is taken up again.

    Raises:
        UnreachableError: Nobody has known the job for a while, or the controller was silent.
    """
    offsets: dict[str, int] = {}
    pace = Pace()
    silent_since: float | None = None
    unknown = 0
    row: JobRow | None = None
    while True:
        ask = pace.due(time.monotonic())
        try:
            found = read(session, record, streams, offsets, tail, ask)
        except UnreachableError:
            # nothing was counted as read, so no line is lost or repeated
            tell("the connection is lost; trying again")
            time.sleep(5 * _POLL)
            continue
        yield found.pieces
        if found.ended and not found.pieces:
            return
        if ask:
            silent_since = _patience(record, found, silent_since, tell)
            unknown = _lost(record, found, unknown, tell)
            row = _again(session, record, found.row, row, tell)
        if not found.ended:
            time.sleep(_POLL)


def _again(
    session: Session,
    record: RunRecord,
    now: JobRow | None,
    before: JobRow | None,
    tell: Callable[[str], None],
) -> JobRow | None:
    """The job as it was last seen in the queue, with its last nodes; says where it begins anew."""
    if now is None or before is None:
        return now or before
    if now.restarts > before.restarts:
        try:
            down = out_of_use(session, before.nodes)
        except UnreachableError:
            down = frozenset()
        bad = ", ".join(node for node in before.nodes if node in down)
        why = f" ({bad} is out of use)" if bad else ""
        tell(f"Slurm has put job {record.job} back into its queue and will start it again{why}")
    return now if now.nodes else replace(now, nodes=before.nodes)


def _lost(record: RunRecord, found: Read, unknown: int, tell: Callable[[str], None]) -> int:
    """At how many questions in a row nobody has known the job.

    Raises:
        UnreachableError: At too many.
    """
    if found.known or found.silent:
        return 0
    if unknown + 1 == _UNKNOWN_TOLD:
        tell(f"nobody knows job {record.job} any more; waiting for a word of how it ended")
    if unknown + 1 == UNKNOWN_END:
        raise UnreachableError(
            f"Nobody knows job {record.job} any more, so how it ended cannot be said.",
            "Ask again later with `rvstate ps -a`; accounting may lag.",
        )
    return unknown + 1


def _patience(
    record: RunRecord, found: Read, since: float | None, tell: Callable[[str], None]
) -> float | None:
    """Since when the controller has been silent and the log as well (monotonic seconds), or None.

    Raises:
        UnreachableError: For too long.
    """
    if not found.silent or found.pieces:
        return None
    now = time.monotonic()
    if since is None:
        tell("the Slurm controller does not answer; waiting for it, the job may well go on")
        return now
    if now - since > _SILENCE:
        raise UnreachableError(
            f"The Slurm controller has not answered for {_SILENCE // 60} minutes, so whether job "
            f"{record.job} still runs is not known.",
            f"It goes on without you if it does: `rvstate logs -f {record.job}` later.",
        )
    return since
