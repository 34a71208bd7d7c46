"""Carry out a run's scripts behind what the account lacks, showing what a build says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from rvstate.errors import RvstateError
from rvstate.script import Script
from rvstate.workflows.run.prepared import Prepared
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    # loads pyinfra, which only what changes something needs
    from rvstate.infra.runs import Scripts


def apply(
    session: Session, prepared: Prepared, scripts: Scripts, tell: Callable[[str], None]
) -> tuple[str | None, bool, tuple[str, ...]]:
    """Make the account ready and run the scripts; Ctrl-C ends a build over there, too.

    Args:
        session: Which account.
        prepared: The run: its plan is what the account lacks.
        scripts: What follows.
        tell: Told what is being done, in a few words.

    Returns:
        The job's id, if there is one; whether it is new; and what the scripts said.

    Raises:
        ConvergeError, SubmitError: A step failed; its own words are in the message.
    """
    from rvstate.infra import runs

    transport = session.transport
    if scripts.build is not None:
        # each line in the place of the last
        transport.heard = lambda line: tell(f"building the environment: {line.strip()[:60]}")
    try:
        return runs.run(transport, prepared.layout, prepared.plan, prepared.observed, scripts, tell)
    except KeyboardInterrupt:
        if scripts.build is not None and prepared.generation is not None:
            # ours may have gone while the build goes on over there
            lock = prepared.generation.parent / "lock"
            cancel = Script("build_environment", ("cancel", lock, prepared.run_id))
            with contextlib.suppress(RvstateError):
                transport.run(cancel)
        raise
    finally:
        transport.heard = None
