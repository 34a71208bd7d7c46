"""Runs as the scheduler and their own records know them: list, read logs, end; no pyinfra."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rvstate import process
from rvstate.errors import ConfigError, RvstateError, UnreachableError
from rvstate.model.job import RunRecord
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.script import Answer, Script
from rvstate.shell import join
from rvstate.slurm import sacct, squeue
from rvstate.slurm.sacct import AccountingRow
from rvstate.slurm.squeue import JobRow
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows.session import Session

_RECENT = 50  # runs; older ones are history, not news
_POLL = 2.0  # seconds between two questions while following
# paths before any look: the scripts put the real roots in
_SYMBOLIC = Layout(SYMBOLIC)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one run from each witness."""

    job: str | None
    exit_status: int | None
    receipt: dict[str, Any]


def runs(session: Session) -> tuple[RunRecord, ...]:
    """The newest runs on the account, newest first, with one remote command."""
    answer = session.transport.run(_question(session))
    if answer.status != 0:
        raise RvstateError(
            f"The list of runs could not be read: {answer.errors.strip()}", "Try again."
        )
    facts = _facts(answer.first("records").decode("utf-8", "replace"))
    queue, accounting = _queue(answer), _accounting(answer)
    local = _local_jobs(session)
    found = []
    for run_id, fact in sorted(facts.items(), reverse=True):
        job = fact.job or ""
        if local is not None:
            found.append(_from_process(run_id, fact, local.get(job)))
        else:
            found.append(_from_slurm(run_id, fact, queue.get(job), accounting.get(job)))
    return tuple(found)


def _is_local(session: Session) -> bool:
    return session.config.site.scheduler == "process"


def _question(session: Session) -> Script:
    fixed = (session.scratch, session.home, _SYMBOLIC.runs, str(_RECENT))
    if _is_local(session):
        return Script("jobs", (*fixed, "", ""))
    asked = join(squeue.command(finished=True)) + ' --user="$rv_user"'
    return Script("jobs", (*fixed, asked, join(sacct.command())))


def _facts(text: str) -> dict[str, Facts]:
    raw: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        path, _, value = line.partition(":")
        run_id, _, name = path.partition("/")
        if name in ("job", "exit", "receipt.json"):
            raw.setdefault(run_id, {})[name] = value
    return {run_id: _fact(files) for run_id, files in raw.items()}


def _fact(files: dict[str, str]) -> Facts:
    status = files.get("exit", "").split(" ")[0]
    try:
        receipt = json.loads(files.get("receipt.json", "{}"))
    except ValueError:
        # a scratch file system may lose or cut single files; the run is still listed
        receipt = {}
    return Facts(files.get("job") or None, int(status) if status.isdigit() else None, receipt)


def _queue(answer: Answer) -> dict[str, JobRow]:
    if any(name == "queue-failed" for name, _ in answer.sections):
        raise UnreachableError(
            f"squeue failed: {answer.errors.strip() or 'no reason given'}",
            "The Slurm controller may be down; try again in a minute.",
        )
    text = answer.first("queue").decode("utf-8", "replace")
    return {str(row.job): row for row in squeue.parse(text)}


def _accounting(answer: Answer) -> dict[str, AccountingRow]:
    text = answer.first("accounting").decode("utf-8", "replace")
    return {str(row.job): row for row in sacct.parse(text)}


def _local_jobs(session: Session) -> dict[str, process.LocalJob] | None:
    if not _is_local(session):
        return None
    place = Path(session.scratch) / ".rv" / "process"
    return {str(job.job): job for job in process.jobs(place)}


def _base(run_id: str, fact: Facts) -> RunRecord:
    receipt = fact.receipt
    name = str(receipt.get("name", "?"))
    logs = receipt.get("logs", "")
    log = f"{logs}/{name}-{fact.job}" if fact.job and logs else ""
    return RunRecord(
        run_id=run_id,
        job=fact.job,
        name=name,
        state=JobState.UNKNOWN,
        exit_code=fact.exit_status,
        project=str(receipt.get("project", "")),
        branch=receipt.get("branch"),
        commit=receipt.get("commit"),
        dirty=bool(receipt.get("dirty")),
        submitted=receipt.get("submitted_at"),
        log=f"{log}.out" if log else "",
        error_log=f"{log}.err" if log else "",
        command=tuple(receipt.get("command", ())),
    )


def _from_process(run_id: str, fact: Facts, job: process.LocalJob | None) -> RunRecord:
    base = _base(run_id, fact)
    if job is None:
        return base
    until = job.ended or time.time()
    return replace(
        base,
        state=job.state,
        reason="it waits for its turn" if job.state is JobState.PENDING else "",
        exit_code=job.exit_code,
        elapsed=round(until - job.started) if job.started else None,
    )


def _from_slurm(
    run_id: str, fact: Facts, row: JobRow | None, past: AccountingRow | None
) -> RunRecord:
    """The queue knows best; then accounting that says the job ended; then the job's own record."""
    base = _base(run_id, fact)
    if row is not None:
        reason = squeue.reason_in_words(row.reason) if row.state is JobState.PENDING else ""
        return replace(base, state=row.state, reason=reason, elapsed=row.time_used, nodes=row.nodes)
    if past is not None and past.state in FINISHED:
        return replace(base, state=past.state, elapsed=past.elapsed, nodes=past.nodes)
    if fact.exit_status is not None:
        ended = JobState.COMPLETED if fact.exit_status == 0 else JobState.FAILED
        return replace(base, state=ended)
    return base


def find(records: tuple[RunRecord, ...], wanted: str | None) -> RunRecord:
    """The one run that `wanted` names: a job id, a run id, or a name (its newest run).

    Raises:
        ConfigError: None is named so; never a guess from part of a number.
    """
    if not records:
        raise ConfigError("There are no runs on this account yet.", "Start one with `rvstate run`.")
    if wanted is None:
        return records[0]
    for record in records:
        if wanted in (record.job, record.run_id, record.name):
            return record
    known = ", ".join(dict.fromkeys(f"{r.job or r.run_id} ({r.name})" for r in records[:5]))
    raise ConfigError(f"No run is called {wanted!r}.", f"The newest are: {known}.")


@dataclass(frozen=True, slots=True)
class Piece:
    """New log text: `stream` is `out` or `err`."""

    stream: str
    text: bytes


def read(
    session: Session, record: RunRecord, streams: tuple[str, ...], offsets: dict[str, int]
) -> tuple[list[Piece], bool]:
    """What was written behind `offsets`, which are moved on, and whether the run has ended."""
    paths = {"out": record.log, "err": record.error_log}
    words = [word for s in streams for word in (paths[s], str(offsets.get(s, 0)))]
    local = _is_local(session)
    queue = "" if local else join(squeue.command(jobs=(record.job or "",), finished=True))
    fixed = (session.scratch, session.home, queue, _SYMBOLIC.run(record.run_id))
    answer = session.transport.run(Script("read_log", (*fixed, *words)))
    pieces = []
    for number, stream in enumerate(streams):
        text = answer.first(f"log {number}")
        offsets[stream] = offsets.get(stream, 0) + len(text)
        if text:
            pieces.append(Piece(stream, text))
    ended = bool(answer.first("exit").strip()) or _gone(session, record, answer)
    return pieces, ended and not pieces


def _gone(session: Session, record: RunRecord, answer: Answer) -> bool:
    local = _local_jobs(session)
    if local is not None:
        job = local.get(record.job or "")
        return job is None or job.state in FINISHED
    rows = squeue.parse(answer.first("queue").decode("utf-8", "replace"))
    return bool(rows) and rows[0].state in FINISHED


def follow(session: Session, record: RunRecord, streams: tuple[str, ...]) -> Iterator[Piece]:
    """New log text as it comes, until the run has ended; a lost connection is taken up again."""
    offsets: dict[str, int] = {}
    while True:
        try:
            pieces, ended = read(session, record, streams, offsets)
        except UnreachableError:
            # nothing was counted as read, so no line is lost or repeated
            time.sleep(5 * _POLL)
            continue
        yield from pieces
        if ended:
            return
        if not pieces:
            time.sleep(_POLL)


def stop(session: Session, records: tuple[RunRecord, ...], tell: Callable[[str], None]) -> None:
    """End runs, waiting or running."""
    jobs = [record.job for record in records if record.job]
    tell(f"ending {', '.join(jobs)}")
    if _is_local(session):
        place = Path(session.scratch) / ".rv" / "process"
        for job in jobs:
            process.stop(place, int(job))
        return
    done = session.transport.execute(join(("scancel", *jobs)))
    if done.status != 0:
        raise RvstateError(f"scancel failed: {done.errors.strip()}", "Try again.")
