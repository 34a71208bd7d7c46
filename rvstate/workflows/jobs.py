"""Runs as the scheduler and their own records know them: list, read logs, end; no pyinfra."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rvstate import elements, following, hardware, holding, logmerge, process
from rvstate.errors import ConfigError, RvstateError, UnreachableError
from rvstate.hardware import Trouble
from rvstate.holding import Held
from rvstate.model.job import Chain, Dependency, Element, RunRecord
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.script import Answer, Script
from rvstate.shell import join
from rvstate.slurm import sacct, squeue, states
from rvstate.slurm.sacct import AccountingRow
from rvstate.slurm.squeue import JobRow
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows.pace import Pace, settling
from rvstate.workflows.session import Session

_RECENT = 50  # runs; older ones are history, not news
_POLL = 1.0  # seconds between two questions while following
# questions in a row at which nobody knew the job: when that is told, and when it is the end
_UNKNOWN_TOLD, _UNKNOWN_END = 3, 6
_SILENCE = 600  # seconds without a word of controller or job
# slurm_strerror(ESLURM_INVALID_JOB_ID): the job left the queue
_NO_SUCH_JOB = "Invalid job id"
_LAST_LINES = 50
# of a node's error log, where each of its ranks tells how it failed, and its launcher behind them
_TOLD_LINES = 1000
# what is read of a run's own records, as remote/jobs.sh tells it
_RECORDS = frozenset(
    {
        *("job", "exit", "intent", "receipt.json", "notify/due", "hold/state", "ended", "copies"),
        "chain",
    }
)
_MOST_LOGS = 64  # elements whose logs are shown together
_READ_MOST = 4 << 20  # bytes; of each file, as remote/read_log.sh has it
# paths before any look: the scripts put the real roots in
_SYMBOLIC = Layout(SYMBOLIC)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one run from each witness."""

    job: str | None
    exit_status: int | None
    receipt: dict[str, Any]
    begun: bool = False
    untold: bool = False
    held: Held | None = None
    marks: tuple[tuple[int, int | None], ...] = ()
    """Of an array: elements that have begun, with their exit codes where they have ended."""
    copies: str = ""
    segments: tuple[int, int] = (0, 0)
    """How many segments have begun, and how many seconds those took that have ended."""
    used_up: bool = False
    """Whether the time of all segments is used up."""


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
    facts = _facts(answer.first("records").decode("utf-8", "replace"))
    queue, accounting = _queue(answer) if states else _rows(answer), _accounting(answer)
    local = _local_jobs(session)
    found = []
    for run_id, fact in sorted(facts.items(), reverse=True):
        job = fact.job or ""
        if local is not None:
            found.append(_from_process(run_id, fact, local.get(job)))
        else:
            fact = _foremost(fact, queue)
            job = (fact.job or "").partition(",")[0]
            row = queue.get(job) or queue.get(f"rvstate:{run_id}")
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
        token = re.compile(rf"rvstate:{run.run_id}(?:\.[0-9]+)?")
        found = {row.job.base for row in queue.values() if token.fullmatch(row.comment)}
        jobs = tuple(map(str, sorted(found)))
    known = elements.elements(run.array, jobs, queue, past, dict(fact.marks))
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
        exit_code=next((e.exit_code for e in known if e.state is state), None),
    )


def _is_local(session: Session) -> bool:
    return session.config.site.scheduler == "process"


def question(session: Session) -> Script:
    """What asks for the newest runs on the account."""
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
        if name in _RECORDS:
            raw.setdefault(run_id, {})[name] = value
    return {run_id: _fact(files) for run_id, files in raw.items()}


def _fact(files: dict[str, str]) -> Facts:
    status = files.get("exit", "").split(" ")[0]
    try:
        receipt = json.loads(files.get("receipt.json", "{}"))
    except ValueError:
        # a scratch file system may lose or cut single files; the run is still listed
        receipt = {}
    code = int(status) if status.isdigit() else None
    pairs = (mark.partition("-") for mark in files.get("ended", "").split())
    # `begun` sorts behind any code, and says less
    codes = sorted(((i, c) for i, _, c in pairs if i.isdigit()), reverse=True)
    marks = tuple((int(i), int(c) if c.isdigit() else None) for i, c in codes)
    held = holding.read(files.get("hold/state", ""))
    begun, untold = "intent" in files, "notify/due" in files
    copies = files.get("copies", "")
    words = files.get("chain", "").split()
    segments = (int(words[0]), int(words[1])) if "".join(words[:2]).isdigit() else (0, 0)
    used_up = files.get("exit", "").split(" ")[2:] == ["total"]
    job = files.get("job") or None
    return Facts(job, code, receipt, begun, untold, held, marks, copies, segments, used_up)


def _queue(answer: Answer) -> dict[str, JobRow]:
    if any(name == "queue-failed" for name, _ in answer.sections):
        raise UnreachableError(
            f"squeue failed: {answer.errors.strip() or 'no reason given'}",
            "The Slurm controller may be down; try again in a minute.",
        )
    return _rows(answer)


def _rows(answer: Answer) -> dict[str, JobRow]:
    rows = squeue.parse(answer.first("queue").decode("utf-8", "replace"))
    # by id, and by the token in the comment for a run that never heard its id
    return {**{row.comment: row for row in rows}, **{str(row.job): row for row in rows}}


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
        after=tuple(Dependency(**found) for found in receipt.get("after", ())),
    )


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


@dataclass(frozen=True, slots=True)
class Piece:
    """New log text.

    Args:
        stream: `out` or `err` of the job, `node0.out` and so on of its nodes, or `clock`.
        text: The bytes.
        start: The position of the first of them in its file.
    """

    stream: str
    text: bytes
    start: int = 0


class Fold:
    r"""Progress bars as the one line that a terminal would be left with; no other line is touched.

    A carriage return takes the cursor back, so what stands before it was overwritten; one at a
    line's end (CRLF) overwrites nothing.
    """

    def __init__(self) -> None:
        self._line = b""

    def feed(self, text: bytes) -> bytes:
        """Add what came; give back what can be shown.

        A line that has not ended is shown as far as it goes, unless a progress bar is drawn on it.
        """
        *whole, self._line = (self._line + text).split(b"\n")
        done = b"".join(last_drawn(line) + b"\n" for line in whole)
        if b"\r" in self._line:
            return done
        open_line, self._line = self._line, b""
        return done + open_line

    def rest(self) -> bytes:
        """What is left when nothing more comes."""
        line, self._line = self._line, b""
        return last_drawn(line)


def last_drawn(line: bytes) -> bytes:
    """What a terminal would be left with of a line, with or without its end."""
    end = b"\n" if line.endswith(b"\n") else b""
    drawn = line.removesuffix(b"\n").rstrip(b"\r")
    kept = drawn.rpartition(b"\r")[2] if b"\r" in drawn else drawn
    return kept.replace(b"\r", b"") + end


@dataclass(frozen=True, slots=True)
class Read:
    """One reading of a run's logs: new text, and whether the run has ended before it."""

    pieces: tuple[Piece, ...]
    ended: bool
    known: bool
    """Whether anybody knows the job: the queue, accounting that it ended, or its own record."""
    silent: bool = False
    """Whether the controller did not answer, so that nobody can say."""
    exit_code: int | None = None
    """What the job recorded itself at its end."""
    row: JobRow | None = None
    """The job in the queue, where Slurm was asked and has it there."""


def streams(
    record: RunRecord, kinds: tuple[str, ...] = ("out", "err"), node: int | None = None
) -> tuple[str, ...]:
    """The logs that a run has.

    Args:
        record: The run.
        kinds: `out`, `err`.
        node: Only of that node.

    Raises:
        ConfigError: The run has no such node.
    """
    if node is not None and node >= max(1, record.parts):
        has = f"nodes 0 to {record.parts - 1}" if record.parts > 1 else "node 0 only"
        raise ConfigError(f"There is no node {node}: this run has {has}.", "Leave out --node.")
    if record.array is not None and record.index is None:
        return tuple(f"{e.index}.{kind}" for e in _shown(record) for kind in kinds)
    if not record.parts:
        return kinds
    numbers = range(record.parts) if node is None else (node,)
    batch = kinds if node is None else ()
    return (*batch, *(f"node{n}.{kind}" for n in numbers for kind in kinds), logmerge.CLOCK)


def _shown(record: RunRecord) -> tuple[Element, ...]:
    """The elements whose logs are shown together.

    Raises:
        ConfigError: They are too many.
    """
    if record.parts or len(record.elements) > _MOST_LOGS:
        raise ConfigError(
            f"{record.name} ({record.job}) has {len(record.elements)} elements"
            + (", each with logs of several nodes." if record.parts else "."),
            f"Name one of them: `rvstate logs {record.job}_{record.elements[0].index}`.",
        )
    return record.elements


def merge(record: RunRecord) -> logmerge.Merge | None:
    """What puts a run's logs in order; None where there is one pair of them."""
    several = record.parts or (record.array is not None and record.index is None)
    return logmerge.Merge(_READ_MOST) if several else None


def _path(record: RunRecord, stream: str) -> str:
    if stream == logmerge.CLOCK:
        return stream
    if record.elements:
        index, _, kind = stream.partition(".")
        return elements.log(record, next(e for e in record.elements if e.index == int(index)), kind)
    return f"{record.log.removesuffix('.out')}.{stream}"


def read(
    session: Session,
    record: RunRecord,
    streams: tuple[str, ...],
    offsets: dict[str, int],
    tail: int | None = None,
    ask: bool = True,
) -> Read:
    """What was written behind `offsets`, which are moved on.

    Args:
        session: Which account.
        record: The run, which must have a job.
        streams: As `streams` gives them.
        offsets: Bytes read of each stream; one that is missing begins at the start.
        tail: Begin that many lines before the end, where there is no offset yet.
        ask: Whether Slurm is asked; else the job's own record alone says whether it has ended.
    """
    lines = "0" if tail is None else f"+{tail}"
    first = {stream: lines if stream != logmerge.CLOCK else "0" for stream in streams}
    words = [w for s in streams for w in (_path(record, s), str(offsets.get(s, first[s])))]
    queue = past = ""
    if ask and not _is_local(session):
        jobs = record.jobs or (record.job or "",)
        queue = join(squeue.command(jobs=jobs, finished=True))
        past = join(sacct.command(jobs=jobs))
    fixed = (session.scratch, session.home, queue, past, run_directory(record))
    answer = session.transport.run(Script("read_log", (*fixed, *words)))
    pieces = []
    for header, text in answer.sections:
        word, _, rest = header.partition(" ")
        number, _, start = rest.partition(" ")
        if word != "log":
            continue
        stream = streams[int(number)]
        offsets[stream] = int(start) + len(text)
        if text:
            pieces.append(Piece(stream, text, int(start)))
    row, state = _state(session, record, answer)
    status = answer.first("exit").split(b" ")[0].strip()
    silent = bool(answer.all("queue-failed")) and _NO_SUCH_JOB not in answer.errors
    # a job that waits again was put back by Slurm after its first attempt
    ended = state in FINISHED or (bool(status) and state is not JobState.PENDING)
    known = bool(status) or state is not JobState.UNKNOWN
    code = int(status) if status.isdigit() else None
    return Read(tuple(pieces), ended, known, silent, code, row)


def _state(session: Session, record: RunRecord, answer: Answer) -> tuple[JobRow | None, JobState]:
    local = _local_jobs(session)
    if local is not None:
        job = local.get(record.job or "")
        return None, job.state if job is not None else JobState.UNKNOWN
    rows = squeue.parse(answer.first("queue").decode("utf-8", "replace").lstrip("\n"))
    past = sacct.parse(answer.first("accounting").decode("utf-8", "replace"))
    if record.elements:
        return None, _array_state(rows, past)
    if rows:
        return rows[0], rows[0].state
    # accounting never hears the end of a job that the controller lost: it says RUNNING for ever
    return None, past[0].state if past and past[0].state in FINISHED else JobState.UNKNOWN


def _array_state(rows: tuple[JobRow, ...], past: tuple[AccountingRow, ...]) -> JobState:
    """Whether an array goes on; how its elements ended is for `ending` to find out."""
    states = [row.state for row in rows] or [row.state for row in past]
    active = next((state for state in states if state not in FINISHED), None)
    if active is not None and rows:
        return active
    return JobState.COMPLETED if states and active is None else JobState.UNKNOWN


def run_directory(record: RunRecord) -> str:
    """The directory that a run or an element of one has on the account, before any look."""
    base = _SYMBOLIC.run(record.run_id)
    return base if record.index is None else base / "elements" / str(record.index)


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
    if unknown + 1 == _UNKNOWN_END:
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


# sinfo(1), NODE STATE CODES: not answering, or taken out of use.
_OUT_OF_USE = re.compile(r" (?:\S*\*|down|drain|drng|fail|failg|error|unk)\S*$")
# Words of Slurm and the kernel in a job's error log where its state does not say it.
_MEMORY = re.compile(
    rb"[Ee]xceeded (?:job |step )?memory limit|oom[-_]kill|[Oo]ut[ -][Oo]f[ -][Mm]emory handler"
    rb"|OOM Killed"
)


def ending(session: Session, record: RunRecord, tell: Callable[[str], None]) -> RunRecord:
    """How a run that has ended did so, as soon as the scheduler says it.

    The job's own record is there a moment before the scheduler has noticed; where it never says
    anything (no accounting), the record is what counts.
    """
    tell("asking how it ended")
    found = record
    for pause in settling():
        try:
            name = record.run_id if record.index is None else f"{record.run_id}_{record.index}"
            found = find(runs(session), name)
        except UnreachableError:
            # each question to a controller that is down takes seconds: the job's own record counts
            found = replace(record, exit_code=read(session, record, (), {}).exit_code)
            break
        if found.state in FINISHED:
            break
        time.sleep(pause)
    if found.state not in FINISHED and found.exit_code is not None:
        ended = JobState.COMPLETED if found.exit_code == 0 else JobState.FAILED
        found = replace(found, state=ended)
    if found.state is JobState.FAILED and not found.elements and _ran_out_of_memory(session, found):
        found = replace(found, state=JobState.OUT_OF_MEMORY)
    return found


def _ran_out_of_memory(session: Session, record: RunRecord) -> bool:
    found = read(session, record, streams(record, ("err",)), {}, tail=_LAST_LINES)
    return any(_MEMORY.search(piece.text) for piece in found.pieces)


def hardware_trouble(session: Session, record: RunRecord) -> Trouble | None:
    """What the hardware did to a run that has ended, or None."""
    if record.state in (JobState.COMPLETED, JobState.CANCELLED) or not record.nodes:
        return None
    if record.elements:
        # `rerun --failed` is the way there: the others are not to be run again
        return None
    wanted = streams(record, ("err",))
    found = read(session, record, wanted, {}, tail=_TOLD_LINES)
    alone = 0 if len(record.nodes) == 1 else None
    texts = tuple(
        (
            int(piece.stream.removeprefix("node").partition(".")[0])
            if piece.stream.startswith("node")
            else alone,
            piece.text.decode("utf-8", "replace"),
        )
        for piece in found.pieces
    )
    down = out_of_use(session, record.nodes)
    return hardware.trouble(record.state, record.elapsed, record.nodes, texts, down)


def out_of_use(session: Session, nodes: tuple[str, ...]) -> frozenset[str]:
    """Those of the nodes that Slurm does not use any more; one remote command."""
    if not nodes:
        return frozenset()
    words = ("sinfo", "--noheader", "--Node", "--format=%N %t", f"--nodes={','.join(nodes)}")
    rows = session.transport.execute(join(words)).output.decode("utf-8", "replace").splitlines()
    return frozenset(row.split()[0] for row in rows if _OUT_OF_USE.search(row))


def exit_status(record: RunRecord) -> int:
    """The exit code of a command that waited for this run (see `slurm.states.exit_status`)."""
    if record.state not in FINISHED:
        return 1
    return states.exit_status(record.state, f"{(record.exit_code or 0) & 255}:0")


def pull(
    session: Session, record: RunRecord, directory: Path, node: int | None = None
) -> tuple[Path, ...]:
    """Bring a run's log files here, whole, or those of one node; returns where they are."""
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    for stream in streams(record, node=node):
        if stream == logmerge.CLOCK:
            continue
        target = directory / _path(record, stream).rsplit("/", 1)[-1]
        part = target.with_name(f".{target.name}.part")
        offsets: dict[str, int] = {}
        with part.open("wb") as file:
            while pieces := read(session, record, (stream,), offsets).pieces:
                file.writelines(piece.text for piece in pieces)
        if offsets:
            part.replace(target)
            found.append(target)
        else:
            part.unlink()
    return tuple(found)


def stop(session: Session, records: tuple[RunRecord, ...], tell: Callable[[str], None]) -> None:
    """End runs, waiting or running.

    Raises:
        ConfigError: None of them is known to have a job.
        RvstateError: scancel failed.
    """
    jobs = [job for record in records for job in record.jobs or (record.job,) if job]
    if not jobs:
        raise ConfigError(
            f"Run {records[0].run_id} was never answered with a job id, so it cannot be ended.",
            "`rvstate run --resume` looks it up.",
        )
    tell(f"ending {', '.join(jobs)}")
    if _is_local(session):
        place = Path(session.scratch) / ".rv" / "process"
        for job in jobs:
            process.stop(place, int(job))
        return
    if any(record.chain for record in records):
        pairs = (
            (run_directory(r), ",".join(r.jobs) or r.job or "") for r in records if r.jobs or r.job
        )
        words = [word for pair in pairs for word in pair]
        answer = session.transport.run(Script("stop", (session.scratch, session.home, *words)))
        if answer.status != 0:
            raise RvstateError(f"scancel failed: {answer.errors.strip()}", "Try again.")
        return
    done = session.transport.execute(join(("scancel", *jobs)))
    if done.status != 0:
        raise RvstateError(f"scancel failed: {done.errors.strip()}", "Try again.")
