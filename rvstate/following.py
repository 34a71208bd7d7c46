"""Runs that follow other runs: what `--after` means, and why one waits or never started; pure."""

from __future__ import annotations

from collections.abc import Iterable

from rvstate.errors import ConfigError, RefusedError
from rvstate.model.job import FOLLOWING, Dependency, RunRecord
from rvstate.slurm.states import FINISHED, JobState


def parse(text: str) -> tuple[str, str]:
    """The run that `--after RUN[:ok|any|failed]` names, and when it may be followed.

    Raises:
        ConfigError: It names none.
    """
    name, found, when = text.rpartition(":")
    if when not in FOLLOWING or not found:
        name, when = text, "ok"
    if not name:
        raise ConfigError(f"--after {text!r} names no run.", "For example: --after prepare:any.")
    return name, when


def dependency(record: RunRecord, when: str) -> Dependency:
    """That a run follows this one.

    Raises:
        RefusedError: It has ended otherwise already, or nobody knows how it did.
    """
    if record.job is None:
        raise RefusedError(
            f"Run {record.name} ({record.run_id}) never became a job, so nothing can follow it.",
            "`rvstate run --resume` looks it up.",
        )
    if record.state is JobState.UNKNOWN:
        # Slurm itself would start at once what is to follow a job that it has forgotten
        raise RefusedError(
            f"Nobody knows whether {record.name} ({record.job}) has ended, and how.",
            "Look with `rvstate ps -a`, or leave out --after.",
        )
    if record.undecided and when != "any" and record.state not in FINISHED:
        raise RefusedError(
            f"Which of jobs {', '.join(record.jobs)} runs {record.name} is not known yet, so Slurm "
            f"cannot be told to wait until it {FOLLOWING[when]}.",
            f"Wait until it has started, or write --after {record.job}:any.",
        )
    found = Dependency(record.run_id, record.name, ",".join(record.jobs) or record.job, when)
    if record.state in FINISHED and not found.met_by(record.state):
        raise RefusedError(
            f"{record.name} ({record.job}) is {record.state.value}, so a run that follows it only "
            f"if it {FOLLOWING[when]} would never start.",
            f"Leave out --after, or write --after {record.job}:any.",
        )
    return found


def option(found: Iterable[Dependency], states: dict[str, JobState]) -> str:
    """As sbatch reads it (sbatch(1), --dependency); empty where nothing is to be waited for.

    Args:
        found: What is to be followed.
        states: State of each run by its id; those that have ended need no waiting.
    """
    waiting = (d for d in found if states.get(d.run_id, JobState.UNKNOWN) not in FINISHED)
    return ",".join(d.option for d in waiting)


def waiting(records: tuple[RunRecord, ...], record: RunRecord) -> str:
    """Why a run waits for another, or never started because of it; empty where neither is so."""
    if record.state not in (JobState.PENDING, JobState.CANCELLED) or record.elapsed:
        return ""
    known = {other.run_id: other for other in records}
    for after in record.after:
        found = known.get(after.run_id)
        state = found.state if found is not None else JobState.UNKNOWN
        # which job a stage of the same pipeline became was not known yet
        job = after.job or (found.job if found is not None else None)
        other = f"{after.name} ({job})" if job else after.name
        if state in FINISHED and not after.met_by(state):
            never = "never started" if record.state in FINISHED else "can never start"
            return (
                f"it {never}: it was to follow {other} only if that "
                f"{FOLLOWING[after.when]}, and it is {state.value}"
            )
        if state not in FINISHED and record.state is JobState.PENDING:
            return f"it waits for {other} and starts if that {FOLLOWING[after.when]}"
    return ""
