"""Runs as the scheduler and their own records know them."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rvstate import elements, following, holding, process
from rvstate.errors import ConfigError, RvstateError, UnreachableError
from rvstate.model.job import Chain, Dependency, Part, RunRecord
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.script import Answer, Script
from rvstate.shell import join
from rvstate.slurm import sacct, squeue, token
from rvstate.slurm.sacct import AccountingRow
from rvstate.slurm.squeue import JobRow
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows.jobs.records import Facts, read_facts
from rvstate.workflows.session import Session

_RECENT = 50  # runs; older ones are history, not news
# paths before any look: the scripts put the real roots in
LAYOUT = Layout(SYMBOLIC)


def runs(session: Session, *, states: bool = True) -> tuple[RunRecord, ...]:
    """The newest runs on the account, newest first, with one remote command.

    Args:
        session: Which account.
        states: Whether their states matter; else a controller that is down does not.
    """
    return read_runs(session, session.transport.run(question(session)), states=states)


def read_runs(session: Session, answer: Answer, *, states: bool = True) -> tuple[RunRecord, ...]:
    """The runs in the answer to `question`, newest first; `states` is as for `runs`.

    Raises:
        RvstateError: It holds none.
        UnreachableError: The controller did not answer.
    """
    if answer.status != 0:
        raise RvstateError(
            f"The list of runs could not be read: {answer.errors.strip()}", "Try again."
        )
    facts = read_facts(answer.first("records").decode("utf-8", "replace"))
    queue, accounting = _queue(answer) if states else _rows(answer), _accounting(answer)
    local = local_jobs(session)
    found = []
    for run_id, fact in sorted(facts.items(), reverse=True):
        job = fact.job or ""
        if local is not None:
            found.append(_from_process(run_id, fact, local.get(job)))
        else:
            fact = _foremost(fact, queue)
            job = (fact.job or "").partition(",")[0]
            row = queue.get(job) or queue.get(token.of_run(run_id))
            one = _one_of_several(_from_slurm(run_id, fact, row, accounting.get(job)))
            one = _in_segments(one, fact)
            found.append(_with_elements(one, fact, queue, accounting) if one.array else one)
    records = tuple(found)
    return tuple(_with_reason(records, record) for record in records)


def _foremost(fact: Facts, queue: dict[str, JobRow]) -> Facts:
    """Of several jobs of which one runs, the one in front that has come farthest."""
    if "," not in (fact.job or "") or fact.receipt.get("array") or fact.exit_status is not None:
        return fact

    def key(job: str) -> int:
        row = queue.get(job)
        if row is None or row.state in FINISHED:
            return 2
        return 1 if row.state is JobState.PENDING else 0

    # stable: the best choice stays in front of others that have come as far
    return replace(fact, job=",".join(sorted((fact.job or "").split(","), key=key)))


def _one_of_several(record: RunRecord) -> RunRecord:
    if not record.undecided or record.state is not JobState.PENDING:
        return record
    jobs = ", ".join(record.jobs)
    return replace(record, reason=f"One of jobs {jobs} is to run. {record.reason}".rstrip())


def _with_reason(records: tuple[RunRecord, ...], record: RunRecord) -> RunRecord:
    reason = following.waiting(records, record) if record.after else ""
    return replace(record, reason=reason) if reason else record


def _in_segments(run: RunRecord, fact: Facts) -> RunRecord:
    """A run of several segments as one: the time of all, and TIMEOUT where that is used up."""
    if run.chain is None or run.array is not None:
        return run
    segment, spent = fact.segments
    active = run.state is JobState.RUNNING
    elapsed = spent + ((run.elapsed or 0) if active else 0) if segment else run.elapsed
    state = JobState.TIMEOUT if fact.used_up and run.state is JobState.FAILED else run.state
    return replace(run, state=state, elapsed=elapsed, segment=segment, spent=spent)


def _with_elements(
    run: RunRecord, fact: Facts, queue: dict[str, JobRow], past: dict[str, AccountingRow]
) -> RunRecord:
    """An array with what is known of its elements, and the state that they make."""
    assert run.array is not None
    jobs = run.jobs
    if not jobs:
        # nobody heard the answer: the queue knows the job by its token
        ours = re.compile(re.escape(token.of_run(run.run_id)) + r"(?:\.[0-9]+)?")
        found = {row.job.base for row in queue.values() if ours.fullmatch(token.token(row.comment))}
        jobs = tuple(map(str, sorted(found)))
    known = elements.elements(run.array, jobs, queue, past, dict(fact.marks))
    results = ""
    if fact.element_results:
        known = elements.with_results(known, dict(fact.element_results))
        results = elements.results(known)
    waiting = [row for row in queue.values() if str(row.job.base) in jobs]
    reasons = (row.reason for row in waiting if row.state is JobState.PENDING)
    state = elements.whole(known)
    return replace(
        run,
        job=jobs[0] if jobs else None,
        jobs=jobs,
        state=state,
        reason=squeue.reason_in_words(next(reasons, "")) if state is JobState.PENDING else "",
        elapsed=max((e.elapsed for e in known if e.elapsed is not None), default=None),
        nodes=tuple(dict.fromkeys(n for e in known for n in e.nodes)),
        elements=known,
        results=results,
        exit_code=next((e.exit_code for e in known if e.state is state), None),
    )


def is_local(session: Session) -> bool:
    """Whether jobs are processes of this machine."""
    return session.config.site.scheduler == "process"


def question(session: Session, newest: int = _RECENT) -> Script:
    """What asks for the newest runs on the account; `newest` is how many."""
    fixed = (session.scratch, session.home, LAYOUT.runs, str(newest))
    if is_local(session):
        return Script("jobs", (*fixed, "", ""))
    asked = join(squeue.command(finished=True)) + ' --user="$rv_user"'
    return Script("jobs", (*fixed, asked, join(sacct.command())))


def _queue(answer: Answer) -> dict[str, JobRow]:
    if any(name == "queue-failed" for name, _ in answer.sections):
        raise UnreachableError(
            f"squeue failed: {answer.errors.strip() or 'no reason given'}",
            "The Slurm controller may be down; try again in a minute.",
        )
    return _rows(answer)


def _rows(answer: Answer) -> dict[str, JobRow]:
    rows = squeue.parse(answer.first("queue").decode("utf-8", "replace"))
    # by id, and by the token in the comment for a run that never heard its id; a job that is not
    # rvstate's has none, and is no run's
    return {
        **{found: row for row in rows if (found := token.token(row.comment))},
        **{str(row.job): row for row in rows},
    }


def _accounting(answer: Answer) -> dict[str, AccountingRow]:
    text = answer.first("accounting").decode("utf-8", "replace")
    return {str(row.job): row for row in sacct.parse(text)}


def local_jobs(session: Session) -> dict[str, process.LocalJob] | None:
    """The jobs of this machine by their numbers; None where Slurm has them."""
    if not is_local(session):
        return None
    place = Path(session.scratch) / ".rv" / "process"
    return {str(job.job): job for job in process.jobs(place)}


def _base(run_id: str, fact: Facts) -> RunRecord:
    receipt = fact.receipt
    name = str(receipt.get("name", "?"))
    logs = receipt.get("logs", "")
    # an array may have several
    jobs = tuple(fact.job.split(",")) if fact.job else ()
    log = f"{logs}/{name}-{jobs[0]}" if jobs and logs else ""
    return RunRecord(
        run_id=run_id,
        job=jobs[0] if jobs else None,
        jobs=jobs,
        array=elements.from_receipt(receipt.get("array")),
        copies=tuple(fact.copies.split(",")) if fact.copies else (),
        chain=Chain(**receipt["chain"]) if receipt.get("chain") else None,
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
        parts=int(receipt.get("parts") or 0),
        untold=fact.untold,
        results=fact.results,
        stages=fact.stages,
        after=tuple(Dependency(**found) for found in receipt.get("after", ())),
        part=_part(receipt.get("part")),
    )


def _part(told: dict[str, Any] | None) -> Part | None:
    if not told:
        return None
    plan = tuple((name, run, reason) for name, run, reason in told.get("plan", ()))
    return Part(str(told["pipeline"]), str(told["name"]), str(told["stage"]), plan)


def _from_process(run_id: str, fact: Facts, job: process.LocalJob | None) -> RunRecord:
    base = _base(run_id, fact)
    if job is None:
        return base
    until = job.ended or time.time()
    return replace(
        base,
        state=job.state,
        reason="it waits for its turn" if job.state is JobState.PENDING else _held(fact, job.state),
        exit_code=job.exit_code,
        elapsed=round(until - job.started) if job.started else None,
    )


def _from_slurm(
    run_id: str, fact: Facts, row: JobRow | None, past: AccountingRow | None
) -> RunRecord:
    """The queue knows best; then accounting that says the job ended; then the job's own record."""
    base = _base(run_id, fact)
    if row is not None:
        waits = row.state is JobState.PENDING
        reason = squeue.reason_in_words(row.reason) if waits else _held(fact, row.state)
        known = base if base.job else _base(run_id, replace(fact, job=str(row.job.base)))
        return replace(
            known,
            state=row.state,
            reason=reason,
            elapsed=row.time_used,
            nodes=row.nodes,
            gpus=row.gres,
        )
    if past is not None and past.state in FINISHED:
        return replace(base, state=past.state, elapsed=past.elapsed, nodes=past.nodes)
    if fact.exit_status is not None:
        ended = JobState.COMPLETED if fact.exit_status == 0 else JobState.FAILED
        return replace(base, state=ended)
    if base.job is None:
        reason = "submission was begun and never answered; rvstate run --resume looks it up"
        reason = reason if fact.begun else "it was never submitted"
        return replace(base, reason=reason, begun=fact.begun)
    return base


def _held(fact: Facts, state: JobState) -> str:
    """What becomes of an allocation that is held for people."""
    if fact.held is None or state is not JobState.RUNNING:
        return ""
    return holding.in_words(fact.held)


def find(records: tuple[RunRecord, ...], wanted: str | None) -> RunRecord:
    """The one run that `wanted` names: a job id, a run id, or a name (its newest run).

    With `_INDEX` behind it, one element of an array, as a run of its own.

    Args:
        records: Newest first.
        wanted: None for the newest.

    Raises:
        ConfigError: None is named so; never a guess from part of a number.
    """
    if not records:
        raise ConfigError("There are no runs on this account yet.", "Start one with `rvstate run`.")
    if wanted is None:
        return records[0]
    for record in records:
        if wanted in (record.job, record.run_id, record.name, *record.jobs, *record.copies):
            return record
    element = elements.choose(records, wanted)
    if element is not None:
        return element
    known = ", ".join(dict.fromkeys(f"{r.job or r.run_id} ({r.name})" for r in records[:5]))
    raise ConfigError(f"No run is called {wanted!r}.", f"The newest are: {known}.")
