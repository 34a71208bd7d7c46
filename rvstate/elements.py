"""The elements of an array: how far each is, by queue, accounting and its own mark; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rvstate import sweep
from rvstate.errors import ConfigError
from rvstate.model.job import Array, Element, RunRecord
from rvstate.slurm.sacct import AccountingRow
from rvstate.slurm.squeue import JobRow
from rvstate.slurm.states import FINISHED, JobState

# The state of a whole array is the first of these that one of its elements has: it goes on as long
# as one of them does, and is COMPLETED only if all are.
_ORDER = (
    JobState.RUNNING,
    JobState.COMPLETING,
    JobState.PENDING,
    JobState.UNKNOWN,
    JobState.FAILED,
    JobState.OUT_OF_MEMORY,
    JobState.TIMEOUT,
    JobState.NODE_FAIL,
    JobState.CANCELLED,
)


def from_receipt(found: Mapping[str, Any] | None) -> Array | None:
    """The array that a receipt tells of; None for one job."""
    if not found:
        return None
    parts = tuple((int(offset), str(listed)) for offset, listed in found["parts"])
    indices = tuple(
        offset + i for offset, listed in parts for i in sweep.parse_array(listed).indices
    )
    pairs = tuple((str(name), tuple(map(str, listed))) for name, listed in found["sweep"])
    return Array(indices, found["at_once"], pairs, parts)


def to_receipt(found: Array | None) -> dict[str, Any] | None:
    """What a receipt tells of an array."""
    if found is None:
        return None
    return {"parts": found.parts, "at_once": found.at_once, "sweep": found.sweep}


def elements(
    array: Array,
    jobs: tuple[str, ...],
    rows: Mapping[str, JobRow],
    past: Mapping[str, AccountingRow],
    marks: Mapping[int, int | None],
) -> tuple[Element, ...]:
    """Every element of a run.

    Slurm has one row for all elements of a job that wait, and no word of one that was cancelled
    while it did.

    Args:
        array: What was asked for.
        jobs: Its jobs, one for each part.
        rows: The queue, by job id as printed.
        past: Accounting, by job id as printed.
        marks: Elements that have begun, by index: their exit codes, or None while they have none.
    """
    found = []
    witnesses = (*(r.job for r in rows.values()), *(r.job for r in past.values()))
    known = {str(each.base) for each in witnesses}
    for job, (offset, listed) in zip(jobs, array.parts, strict=False):
        groups = [r for r in rows.values() if str(r.job.base) == job and r.job.array_index is None]
        for number in sweep.parse_array(listed).indices:
            name, index = f"{job}_{number}", offset + number
            one = _element(index, name, rows.get(name), past.get(name), marks)
            if one is None:
                state = next((r.state for r in groups if _holds(r, number)), None)
                if state is None and job in past:
                    # it ended as a whole before any of it began
                    state = past[job].state
                if state is None and index not in marks and job in known:
                    state = JobState.CANCELLED
                one = Element(index, name, state or JobState.UNKNOWN)
            found.append(one)
    return tuple(found)


def _holds(row: JobRow, number: int) -> bool:
    """Whether a row for several elements is also for that one."""
    listed = row.job.array.strip("[]")
    return "..." in listed or number in sweep.parse_array(listed or "%1").indices


def _element(
    index: int,
    name: str,
    row: JobRow | None,
    past: AccountingRow | None,
    marks: Mapping[int, int | None],
) -> Element | None:
    """The queue knows best; then accounting that says the end; then what it noted itself."""
    code = marks.get(index)
    if row is not None:
        return Element(index, name, row.state, code, row.time_used, row.nodes)
    if past is not None and past.state in FINISHED:
        return Element(index, name, past.state, code, past.elapsed, past.nodes)
    if code is not None:
        return Element(index, name, JobState.COMPLETED if code == 0 else JobState.FAILED, code)
    return None


def whole(found: tuple[Element, ...]) -> JobState:
    """The state of a run by those of its elements."""
    states = {element.state for element in found}
    active = states - FINISHED
    bad = states - {JobState.COMPLETED}
    last = JobState.COMPLETED if states else JobState.UNKNOWN
    return min(active or bad or {last}, key=_rank)


def _rank(state: JobState) -> tuple[int, str]:
    # one that is not named here goes on, or failed in its own way
    return (_ORDER.index(state) if state in _ORDER else 1, state.value)


def counts(found: tuple[Element, ...]) -> str:
    """How many are in which state, in words: `3 RUNNING, 1 FAILED, 6 COMPLETED`."""
    known = Counter(element.state for element in found)
    order = sorted(known, key=lambda state: (state is JobState.COMPLETED, _rank(state)))
    return ", ".join(f"{known[state]} {state.value}" for state in order)


def with_results(found: tuple[Element, ...], said: Mapping[int, str]) -> tuple[Element, ...]:
    """Elements with what became of their results; said is by index."""
    return tuple(replace(e, results=said.get(e.index, "")) for e in found)


def results(found: tuple[Element, ...]) -> str:
    """What became of the results of all experiments, as one run says it of its own."""
    words = Counter(e.results.partition(" ")[0] for e in found if e.state in FINISHED)
    if words["kept"]:
        several = f"{words['kept']} of {len(found)} elements"
        return f"kept results of {several} are on the cluster and not pushed"
    return f"pushed the results of {words['pushed']} elements" if words["pushed"] else ""


def record(run: RunRecord, element: Element) -> RunRecord:
    """One element as a run of its own: its state, its logs."""
    return replace(
        run,
        job=element.job,
        jobs=(element.job,),
        state=element.state,
        exit_code=element.exit_code,
        elapsed=element.elapsed,
        nodes=element.nodes,
        reason=run.reason if element.state is JobState.PENDING else "",
        log=log(run, element, "out"),
        error_log=log(run, element, "err"),
        index=element.index,
        results=element.results,
        elements=(),
    )


def log(run: RunRecord, element: Element, kind: str) -> str:
    """The path of an element's log; kind is `out` or `err`."""
    return f"{run.log.rpartition('/')[0]}/{run.name}-{element.job}.{kind}"


def choose(records: Iterable[RunRecord], wanted: str) -> RunRecord | None:
    """The element that `RUN_INDEX` names, as a run of its own; None where none is meant.

    Raises:
        ConfigError: The run has no such element.
    """
    name, found, number = wanted.rpartition("_")
    if not found or not number.isdecimal():
        return None
    for run in records:
        if run.array is None or name not in (run.run_id, run.name, *run.jobs):
            continue
        for element in run.elements:
            # a job id with an index is Slurm's own name, which counts from 0 in each job
            if wanted == element.job or (name not in run.jobs and element.index == int(number)):
                return record(run, element)
        raise ConfigError(
            f"{run.name} ({run.job}) has no element {number}.",
            f"It has {sweep.compress(run.array.indices)}.",
        )
    return None


def failed(run: RunRecord) -> tuple[int, ...]:
    """The elements that have ended without success."""
    return tuple(
        e.index for e in run.elements if e.state in FINISHED and e.state is not JobState.COMPLETED
    )
