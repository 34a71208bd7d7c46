"""Pipelines that were submitted, as the scheduler and their runs' own records know them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rvstate import git
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.job import Part, RunRecord
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows import jobs
from rvstate.workflows.jobs.live import UNKNOWN_END
from rvstate.workflows.pace import Pace
from rvstate.workflows.session import Session

# Runs that are looked through: a pipeline has one for each stage, of which 255 can be.
_RECENT = 300
_POLL = 0.5  # seconds between two looks at the clock


@dataclass(frozen=True, slots=True)
class StageState:
    """A stage of a pipeline that was submitted.

    Args:
        name: The stage.
        record: Its run; None where it did not run, or nothing is known of that any more.
        reason: Why it runs or does not, as it was planned.
        submitted: Whether it was to run.
    """

    name: str
    record: RunRecord | None
    reason: str
    submitted: bool

    @property
    def word(self) -> str:
        """Its state, for people: that of its job, or that it was skipped."""
        if self.record is not None:
            return _state(self.record, self.name).value
        return JobState.UNKNOWN.value if self.submitted else "SKIPPED"


@dataclass(frozen=True, slots=True)
class Listed:
    """One run of a pipeline.

    Args:
        part: What all of its stages say of it.
        stages: Its stages, in order.
    """

    part: Part
    stages: tuple[StageState, ...]

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The runs of its stages, each once: on Ray one run is several."""
        found = (stage.record for stage in self.stages if stage.record is not None)
        return tuple({record.run_id: record for record in found}.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return all(record.is_over for record in self.records)

    @property
    def succeeded(self) -> bool:
        """Whether every stage that ran did."""
        return all(
            stage.record is not None and stage.record.state is JobState.COMPLETED
            for stage in self.stages
            if stage.submitted
        )


def _state(record: RunRecord, stage: str) -> JobState:
    """A stage's state: its job's, or of several stages in one job what the job says of it."""
    told = dict(record.stages)
    if told.get(stage) == "done":
        return JobState.COMPLETED
    if not told or stage in told:
        return record.state
    return JobState.CANCELLED if record.is_over else JobState.PENDING


def pipelines(session: Session, here: Path | None = None) -> tuple[Listed, ...]:
    """The newest pipelines on the account, newest first; one remote command.

    Args:
        session: Which account.
        here: Where the user stands: those of that project and branch count; in no project all do.
    """
    wanted = _place(session, here) if here is not None else None
    answer = session.transport.run(jobs.question(session, _RECENT))
    found: dict[str, list[RunRecord]] = {}
    for record in jobs.read_runs(session, answer):
        if record.part is not None and wanted in (None, (record.project, record.branch)):
            found.setdefault(record.part.pipeline, []).append(record)
    return tuple(_listed(found[name]) for name in sorted(found, reverse=True))


def _place(session: Session, here: Path) -> tuple[str, str | None] | None:
    """Project and branch, by which runs know where they came from; None in no project."""
    try:
        project = git.inspect(here, session.state.firsts())
    except RefusedError:
        return None
    return project.name, project.branch


def _listed(records: list[RunRecord]) -> Listed:
    part = records[0].part
    assert part is not None
    by_run = {record.run_id: record for record in records}
    stages = (StageState(name, by_run.get(run), why, bool(run)) for name, run, why in part.plan)
    return Listed(part, tuple(stages))


def find(found: tuple[Listed, ...], wanted: str | None) -> Listed:
    """The one pipeline that `wanted` names: an id, or a name (its newest); None is the newest.

    Raises:
        ConfigError: None is named so.
    """
    for one in found:
        if wanted is None or wanted in (one.part.pipeline, one.part.name):
            return one
    if wanted is None:
        raise ConfigError(
            "No pipeline of this project and branch was submitted on this account yet.",
            "Start one: `rvstate pipeline run`; another project's is shown by its id or name.",
        )
    known = ", ".join(f"{one.part.pipeline} ({one.part.name})" for one in found[:5])
    raise ConfigError(
        f"No pipeline is called {wanted!r}.", f"The newest are: {known}." if known else "None is."
    )


def newest_of(found: tuple[Listed, ...], stage: str) -> RunRecord:
    """The newest run of a stage, in whichever run of the newest pipeline's name that was.

    Raises:
        ConfigError: There is no such stage, or it never ran.
    """
    newest = find(found, None)
    for one in found:
        if one.part.name == newest.part.name:
            record = next((s.record for s in one.stages if s.name == stage and s.record), None)
            if record is not None:
                return record
    names = tuple(state.name for state in newest.stages)
    if stage in names:
        raise ConfigError(
            f"No run of stage {stage} is known any more.", "`rvstate pipeline ps` lists what is."
        )
    from rvstate.model.stage import unknown_stage

    raise unknown_stage(stage, names)


def await_end(session: Session, pipeline_id: str, tell: Callable[[str], None]) -> Listed:
    """Wait until every stage of a pipeline has ended.

    Args:
        session: Which account.
        pipeline_id: Which.
        tell: Told how far it is, in a few words.
    """
    pace = Pace()
    unknown = 0
    while True:
        if pace.due(time.monotonic()):
            listed = find(pipelines(session), pipeline_id)
            if listed.is_over:
                return listed
            states = [record.state for record in listed.records]
            # a job that just left the queue may not be in accounting yet
            unknown = unknown + 1 if JobState.UNKNOWN in states else 0
            if unknown > UNKNOWN_END:
                return listed
            done = sum(state in FINISHED for state in states)
            tell(f"{done} of {len(states)} stages have ended")
        time.sleep(_POLL)
