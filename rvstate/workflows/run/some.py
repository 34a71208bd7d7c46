"""Some elements of an array once more: one, or those that have failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rvstate import elements, sweep
from rvstate.errors import RefusedError
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows import jobs
from rvstate.workflows.session import Session


def some(
    session: Session,
    called: str,
    tell: Callable[[str], None],
    failed: bool,
    receipt: Callable[[str], dict[str, Any]],
) -> dict[str, Any]:
    """The receipt of a run, less the elements that are not to be run again.

    Args:
        session: Which account.
        called: A run, or an element of one.
        tell: Told what is being done, in a few words.
        failed: Only what has ended without success.
        receipt: Finds the receipt of a run.

    Raises:
        ConfigError: No run is called so.
        RefusedError: Nothing of it has failed.
    """
    tell("asking how it went")
    run = jobs.find(jobs.runs(session), called)
    found = receipt(run.run_id)
    bad = run.state in FINISHED and run.state is not JobState.COMPLETED
    if run.elements and failed:
        chosen = elements.failed(run)
    elif run.index is not None and (bad or not failed):
        chosen = (run.index,)
    else:
        chosen = ()
    if failed and not chosen and not (bad and run.array is None):
        raise RefusedError(
            f"Nothing of {run.name} ({run.job}) has failed; it is {run.state.value}.",
            f"Leave out --failed to submit all of it again, or see `rvstate ps {run.job}`.",
        )
    if run.array is None or not chosen:
        return found
    bound = f"%{run.array.at_once}" if run.array.at_once else ""
    most = session.config.site.max_array_size
    array = sweep.array(sweep.compress(chosen) + bound, run.array.sweep, most)
    assert array is not None
    spec = found.get("spec") or {}
    options = {**spec.get("options", {}), "array": array.parts[0][1]}
    return {
        **found,
        "array": elements.to_receipt(array),
        "spec": {**spec, "options": options},
        "order": {**found["order"], "array": sweep.compress(chosen) + bound},
    }
