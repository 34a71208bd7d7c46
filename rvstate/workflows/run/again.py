"""Runs that are taken up where they were cut off, or submitted once more on other nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rvstate import batchscript
from rvstate.errors import (
    ConfigError,
    RefusedError,
    SubmitError,
)
from rvstate.model.plan import Plan
from rvstate.script import Script
from rvstate.slurm import token
from rvstate.workflows.run.order import ordered
from rvstate.workflows.run.prepare import prepare
from rvstate.workflows.run.prepared import Prepared, Submitted
from rvstate.workflows.run.rerun import copy_snapshot, repeated
from rvstate.workflows.run.scripts import PATIENCE, scheduler
from rvstate.workflows.run.submit import submit
from rvstate.workflows.session import Session


def resume(session: Session, here: Path, tell: Callable[[str], None]) -> Submitted:
    """Take up the newest run of this account that was never answered.

    The cluster is asked first; only a run that it does not know is submitted, and only with the
    code that it was begun with.

    Raises:
        ConfigError: Every run was answered.
        RefusedError: It was never submitted, and the code has changed since.
    """
    found = next(
        (
            receipt
            for receipt in session.state.receipts()
            if receipt.get("cluster") == session.label
            and not receipt.get("job_id")
            and not receipt.get("failed")
            and not receipt.get("part")
        ),
        None,
    )
    if found is None:
        raise ConfigError(
            f"Every run that was sent to {session.label} from here was answered.",
            "`rvstate ps` lists them.",
        )
    if found.get("copied_from"):
        return _resume_copy(session, found, tell)
    root = Path(str(found.get("root") or here))
    order = ordered(found, root, str(found["run_id"]))
    tell("looking the run up")
    prepared = prepare(session, order, tell)
    job = _find(session, prepared)
    if job is not None:
        session.state.keep_receipt(prepared.run_id, {**found, "job_id": job})
        return Submitted(prepared, job, False, session.transport.commands)
    if prepared.tree.state != found.get("tree"):
        raise RefusedError(
            f"Run {prepared.run_id} was never submitted, and the code has changed since.",
            "Nothing was submitted. Run the command again for a new run of the code as it is now.",
        )
    return submit(session, prepared, tell)


def _resume_copy(session: Session, found: dict[str, Any], tell: Callable[[str], None]) -> Submitted:
    """Take up a run that repeats another one from its snapshot."""
    tell("looking the run up")
    prepared = repeated(session, found, None, tell, run_id=str(found["run_id"]))
    job = _find(session, prepared)
    if job is not None:
        session.state.keep_receipt(prepared.run_id, {**found, "job_id": job})
        return Submitted(prepared, job, False, session.transport.commands)
    copy_snapshot(session, prepared, tell)
    return submit(session, prepared, tell, repeated=True)


def _find(session: Session, prepared: Prepared) -> str | None:
    """The job that a run became, as the cluster knows it."""
    _, queue, history = scheduler(session, prepared.layout)
    run = prepared.spec.run_directory
    answer = session.transport.run(
        Script("find_job", (prepared.workspace.root / "lock", PATIENCE, run, queue, history))
    )
    if answer.status != 0:
        said = answer.errors.strip().removeprefix("rvstate: ") or "it gave no reason"
        raise SubmitError(f"The run could not be looked up: {said}", "Try again in a minute.")
    word, _, job = answer.body.decode("utf-8", "replace").strip().partition(" ")
    return job if word == "found" else None


def without_nodes(
    session: Session, submitted: Submitted, nodes: tuple[str, ...], tell: Callable[[str], None]
) -> Submitted:
    """Submit a run once more, its snapshot and environment as they are, on other nodes.

    The new run is named after the old one, so asking twice submits once.

    Args:
        session: Which account.
        submitted: The run that failed.
        nodes: Not to be used.
        tell: As for `prepare`.

    Raises:
        SubmitError: The scheduler did not take it, or the snapshot is gone.
    """
    old = submitted.prepared
    run_id = _after(old.run_id)
    options = replace(
        old.spec.options,
        comment=token.comment(run_id, token.words(old.spec.options.comment)),
        # what it was to wait for has come
        begin="",
        exclude=",".join(filter(None, (old.spec.options.exclude, *nodes))),
    )
    spec = replace(old.spec, run_id=run_id, run_directory=old.layout.run(run_id), options=options)
    prepared = replace(
        old,
        run_id=run_id,
        spec=spec,
        text=batchscript.render(spec),
        order=replace(
            old.order, request=replace(old.order.request, exclude=options.exclude, begin="")
        ),
        # all of it is there
        plan=Plan(()),
        code_state=old.tree.state,
        known=old.tree,
        environment_ready=True,
    )
    return submit(session, prepared, tell, repeated=True)


def _after(run_id: str) -> str:
    """The name of the run that repeats this one: a second later, and always the same."""
    import datetime
    import hashlib

    stamp = datetime.datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S") + datetime.timedelta(seconds=1)
    return f"{stamp:%Y%m%d-%H%M%S}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"
