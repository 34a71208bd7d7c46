"""Ending runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rvstate import process
from rvstate.errors import ConfigError, RvstateError
from rvstate.model.job import RunRecord
from rvstate.script import Script
from rvstate.shell import join
from rvstate.workflows.jobs.listing import is_local
from rvstate.workflows.jobs.logs import run_directory
from rvstate.workflows.session import Session


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
    if is_local(session):
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
