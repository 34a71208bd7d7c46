"""Runs that a new run is to follow, as the account knows them."""

from __future__ import annotations

from rvstate import following
from rvstate.model.job import Dependency
from rvstate.workflows import jobs
from rvstate.workflows.session import Session


def after(session: Session, wanted: tuple[str, ...]) -> tuple[tuple[Dependency, ...], str]:
    """What `--after` names, and the same in sbatch's words; one remote command.

    Args:
        session: Which account.
        wanted: `RUN`, `RUN:ok`, `RUN:any` or `RUN:failed`, where RUN is as for `rvstate logs`.

    Raises:
        ConfigError: There is no such run.
        RefusedError: It has ended otherwise already, or nobody knows how it did.
    """
    records = jobs.runs(session)
    pairs = map(following.parse, wanted)
    found = tuple(following.dependency(jobs.find(records, name), when) for name, when in pairs)
    return found, following.option(found, {r.run_id: r.state for r in records})
