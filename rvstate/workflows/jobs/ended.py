"""How runs ended, and what the hardware had to do with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from rvstate import hardware
from rvstate.errors import UnreachableError
from rvstate.hardware import Trouble
from rvstate.model.job import RunRecord
from rvstate.shell import join
from rvstate.slurm import states
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows.jobs.listing import find, runs
from rvstate.workflows.jobs.logs import read, streams
from rvstate.workflows.pace import settling
from rvstate.workflows.session import Session

_LAST_LINES = 50
# of a node's error log, where each of its ranks tells how it failed, and its launcher behind them
_TOLD_LINES = 1000
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
