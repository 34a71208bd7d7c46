"""What runs wrote: their logs, a part at a time or whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rvstate import elements, logmerge
from rvstate.errors import ConfigError
from rvstate.model.job import Element, RunRecord
from rvstate.script import Answer, Script
from rvstate.shell import join
from rvstate.slurm import sacct, squeue
from rvstate.slurm.sacct import AccountingRow
from rvstate.slurm.squeue import JobRow
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows.jobs.listing import LAYOUT, is_local, local_jobs
from rvstate.workflows.session import Session

# slurm_strerror(ESLURM_INVALID_JOB_ID): the job left the queue
_NO_SUCH_JOB = "Invalid job id"
_MOST_LOGS = 64  # elements whose logs are shown together
_READ_MOST = 4 << 20  # bytes; of each file, as remote/read_log.sh has it


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
    if ask and not is_local(session):
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
    local = local_jobs(session)
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
    base = LAYOUT.run(record.run_id)
    return base if record.index is None else base / "elements" / str(record.index)


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
