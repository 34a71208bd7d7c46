"""A shell on a compute node: a run whose job holds its allocation for the people who enter it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rvstate import holding, process
from rvstate.errors import RvstateError, SubmitError, UnreachableError
from rvstate.holding import Held
from rvstate.model.job import RunRecord
from rvstate.script import Script
from rvstate.shell import join
from rvstate.slurm import squeue
from rvstate.slurm.squeue import JobRow
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows import enter, jobs
from rvstate.workflows.pace import Pace
from rvstate.workflows.questions import ask
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepared import Prepared, Submitted
from rvstate.workflows.run.scripts import PATIENCE, scheduler
from rvstate.workflows.session import Session

_POLL = 1.0  # seconds between two looks at what the holder says
_AGAIN = 5.0  # seconds until a lost connection is tried again
# questions in a row that Slurm answered without knowing the job
_UNKNOWN_END = 6


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why nobody can enter yet.

    Args:
        state: The job's.
        reason: In words, or empty.
        partition: Where it waits.
        place: Its place among the jobs that wait there, from 1; 0 where nobody knows.
        queue: How many wait there.
        start: When Slurm expects it to start, in seconds since 1970, or None.
    """

    state: JobState
    reason: str = ""
    partition: str = ""
    place: int = 0
    queue: int = 0
    start: int | None = None


def shell_order(order: Order, *, keep: bool, code: bool, several: bool) -> Order:
    """The order of a shell.

    Args:
        order: The resources and what else was asked for; its words do not count.
        keep: Whether leaving the shell leaves the allocation.
        code: Whether the shell is in the workspace itself.
        several: Whether there may be several nodes.
    """
    return replace(
        order,
        # as a command that starts Python it gets the environment as it is declared now
        words=("python",),
        name=order.name or "rv-up",
        held="keep" if keep else "end",
        code=code,
        start="once" if several else None,
    )


def wait(
    session: Session, submitted: Submitted, tell: Callable[[Waiting | str], None]
) -> tuple[Submitted, Held]:
    """Wait until the job can be entered.

    A lost connection is taken up again.  Of several jobs the one that runs is given back.

    Args:
        session: Which account.
        submitted: The run.
        tell: Told why it cannot yet, whenever that was asked.

    Raises:
        SubmitError: The job ended before.
        UnreachableError: Nobody knows the job any more.
    """
    pace = Pace()
    unknown = 0
    while True:
        due = pace.due(time.monotonic())
        try:
            owner, held, found = _look(session, submitted, due)
        except UnreachableError:
            tell("the connection is lost; trying again")
            time.sleep(_AGAIN)
            continue
        if held is not None:
            return replace(submitted, job=owner or submitted.job), held
        if found is not None:
            tell(found)
            unknown = unknown + 1 if found.state is JobState.UNKNOWN else 0
            if found.state in FINISHED:
                raise _ended(session, submitted, found)
            if unknown >= _UNKNOWN_END:
                raise UnreachableError(
                    f"Nobody knows job {submitted.job} any more.", "See `rvstate ps -a`."
                )
        time.sleep(_POLL)


def _look(
    session: Session, submitted: Submitted, due: bool
) -> tuple[str, Held | None, Waiting | None]:
    """Which job it is, what the holder says, and if it is due what the scheduler does."""
    run = submitted.prepared.spec.run_directory
    # the job first: who holds has claimed the run
    questions = {"hold": join(("cat", run / "claim", run / "hold" / "state")) + " 2>/dev/null"}
    local = session.config.site.scheduler == "process"
    wanted = tuple(submitted.job.split(","))
    if due and not local:
        questions["job"] = join(squeue.command(jobs=wanted, finished=True))
        questions["place"] = _place(submitted.prepared.spec.options.partition, wanted[0])
    answers = ask(session, questions)
    told = answers["hold"].body.decode("utf-8", "replace")
    owner, _, state = told.strip().partition("\n")
    held = holding.read(state)
    if not due or held is not None:
        return owner, held, None
    if local:
        return owner, None, _local(session, submitted)
    said = answers["job"]
    if said.text is None and "Invalid job id" not in said.errors:
        return owner, None, Waiting(JobState.PENDING, "Slurm does not answer.")
    rows = squeue.parse(said.text or "")
    return owner, None, _waiting(rows, wanted[0], answers["place"].text or "")


def _place(partition: str, job: str) -> str:
    """A command line that says a job's place among those that wait, and how many these are."""
    words = ("--noheader", "--all", "--states=PENDING", "--sort=-p", "--format=%A")
    where = (f"--partition={partition}",) if partition else ()
    count = f"awk '$1 == {job} {{ at = NR }} END {{ print at + 0, NR }}'"
    return f"{join((*squeue.COMMAND[:-2], *words, *where))} | {count}"


def _waiting(rows: tuple[JobRow, ...], first: str, place: str) -> Waiting:
    """What the queue says; of several jobs of the one that has come farthest, else of the first."""
    if not rows:
        return Waiting(JobState.UNKNOWN)

    def key(row: JobRow) -> tuple[int, bool]:
        waits = 1 if row.state is JobState.PENDING else 0
        return 2 if row.state in FINISHED else waits, str(row.job) != first

    row = min(rows, key=key)
    numbers = [int(word) for word in place.split() if word.isdigit()]
    at, count = numbers if len(numbers) == 2 else (0, 0)
    waits = row.state is JobState.PENDING
    return Waiting(
        row.state,
        squeue.reason_in_words(row.reason) if waits and row.reason else "",
        row.partition,
        at if waits and str(row.job) == first else 0,
        count,
        row.start if waits else None,
    )


def _local(session: Session, submitted: Submitted) -> Waiting:
    place = Path(session.scratch) / ".rv" / "process"
    found = next((j for j in process.jobs(place) if str(j.job) == submitted.job), None)
    if found is None:
        return Waiting(JobState.UNKNOWN)
    return Waiting(found.state, "It waits for its turn." if found.state is JobState.PENDING else "")


def _ended(session: Session, submitted: Submitted, found: Waiting) -> RvstateError:
    record = _record(submitted)
    read = jobs.read(session, record, ("err",), {}, tail=3)
    said = b"".join(piece.text for piece in read.pieces).decode("utf-8", "replace").strip()
    words = f": {said}" if said else "."
    return SubmitError(
        f"Job {submitted.job} is {found.state.value} before anybody could enter it{words}",
        f"`rvstate logs {submitted.job}` shows all that it wrote.",
    )


def _record(submitted: Submitted, node: str = "") -> RunRecord:
    return RunRecord(
        run_id=submitted.prepared.run_id,
        job=submitted.job,
        name=submitted.prepared.spec.options.name,
        state=JobState.RUNNING,
        log=submitted.log,
        error_log=submitted.error_log,
        nodes=(node,) if node else (),
    )


def shell(session: Session, submitted: Submitted, held: Held) -> int:
    """The shell, for the person at the terminal; its exit status.

    Raises:
        CutError: The connection went away under it.
    """
    # jobs on this machine have no node to name
    node = "" if session.config.site.scheduler == "process" else held.node
    return enter.shell(session, enter.Place(_record(submitted, node), node))


def cancel(session: Session, prepared: Prepared) -> tuple[str, ...]:
    """Give a run up for good: its job is cancelled, and none is submitted for it any more.

    Returns:
        The jobs that it had become.

    Raises:
        RvstateError: The cluster did not say that it is done.
    """
    _, queue, _ = scheduler(session, prepared.layout)
    local = session.config.site.scheduler == "process"
    words = (":",) if local else ("scancel",)
    run = prepared.spec.run_directory
    lock = prepared.workspace.root / "lock"
    answer = session.transport.run(Script("cancel", (lock, PATIENCE, run, queue, *words)))
    if answer.status != 0:
        said = answer.errors.strip().removeprefix("rvstate: ") or "no reason given"
        raise SubmitError(
            f"Whether run {prepared.run_id} is cancelled is not known: {said}",
            "See `rvstate ps`, and end it with `rvstate stop`.",
        )
    lines = answer.body.decode("utf-8", "replace").splitlines()
    found = tuple(x.removeprefix("cancelled ") for x in lines if x.startswith("cancelled "))
    if local:
        for job in found:
            process.stop(Path(session.scratch) / ".rv" / "process", int(job))
    return found
