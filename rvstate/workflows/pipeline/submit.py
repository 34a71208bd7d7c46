"""Make a prepared pipeline so: the code, its environments, and then every stage at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rvstate.errors import (
    ConfigError,
    Interrupted,
    ProbeError,
    RefusedError,
    RvstateError,
    SubmitError,
    UnreachableError,
)
from rvstate.model.plan import Plan
from rvstate.script import Script
from rvstate.shell import join
from rvstate.workflows.pipeline.prepare import Ready, Wanted, prepare_pipeline
from rvstate.workflows.run.apply import apply
from rvstate.workflows.run.prepared import Prepared, tree_key
from rvstate.workflows.run.receipt import receipt
from rvstate.workflows.run.scripts import (
    PATIENCE,
    build_script,
    keep_after,
    push_script,
    run_texts,
    scheduler,
)
from rvstate.workflows.run.submit import told
from rvstate.workflows.session import Session

_RESUME = "Run `rvstate pipeline run --resume`: it finds the jobs, or submits them, never twice."


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it.

    Args:
        ready: What was asked.
        jobs: Each run's job, by the run's id.
        remote_commands: How many it took in all.
        notices: What the cluster had to say.
    """

    ready: Ready
    jobs: dict[str, str]
    remote_commands: int
    notices: tuple[str, ...] = ()


def submit_pipeline(session: Session, ready: Ready, tell: Callable[[str], None]) -> Sent:
    """Submit the stages that are to run, all or none; nothing where there are none.

    Args:
        session: Which account.
        ready: The pipeline.
        tell: Told what is being done, in a few words.

    Raises:
        ConvergeError, SubmitError: A step failed; its own words are in the message.
        RefusedError: A stage waits or runs already, by somebody else's hand.
        Interrupted: Ctrl-C while they were submitted.
    """
    if not ready.runs:
        return Sent(ready, {}, session.transport.commands)
    begun = {run.run_id: receipt(session, run, None) for run in ready.runs}
    _keep(session, begun)
    steps: list[str] = []

    def note(step: str) -> None:
        steps.append(step)
        tell(step)

    try:
        jobs, said = _until_sent(session, ready, note)
    except KeyboardInterrupt:
        from rvstate.infra.runs import SUBMITTING

        if SUBMITTING in steps:
            raise Interrupted(
                "Whether the stages were submitted is not known here.", _RESUME
            ) from None
        _keep(session, begun, {"failed": "interrupted"})
        raise
    except (UnreachableError, ProbeError) as error:
        raise type(error)(
            f"{error.message} Whether the stages were submitted is not known here.", _RESUME
        ) from error
    except RvstateError as failed:
        _keep(session, begun, {"failed": failed.message})
        raise
    first = ready.runs[0]
    if first.known is not first.tree:
        session.state.keep_tree(tree_key(session, first.workspace), first.tree)
    for run in ready.runs:
        session.state.keep_receipt(run.run_id, receipt(session, run, jobs[run.run_id]))
    return Sent(ready, jobs, session.transport.commands, told(said, first))


def _keep(
    session: Session, receipts: dict[str, dict[str, Any]], more: dict[str, str] | None = None
) -> None:
    for run_id, found in receipts.items():
        session.state.keep_receipt(run_id, found | (more or {}))


def _until_sent(
    session: Session, ready: Ready, tell: Callable[[str], None]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Send it, once more where somebody changed the workspace meanwhile."""
    first = ready.runs[0]
    said: tuple[str, ...] = ()
    # as it is known here; then with an environment that somebody removed; then all of the code
    for _ in range(3):
        if ready.layers:
            more = _build(session, first, ready, tell)
            said = (*said, *more)
            if "stale" in more:
                first = replace(first, code_state="", known=None)
                continue
            if not first.environment_ready:
                # both are there by now
                first = replace(first, environment_ready=True, code_state=first.tree.state)
            # and what the account lacked
            first = replace(first, plan=Plan(()))
        jobs, more = _attempt(session, first, ready, tell)
        said = (*said, *more)
        if len(jobs) == len(ready.runs):
            return jobs, said
        busy = next((line.split() for line in more if line.startswith("busy ")), None)
        if busy is not None:
            raise RefusedError(
                f"Stage {busy[1]} waits or runs already, as job {busy[-1]}; nothing was submitted.",
                "Wait for it (`rvstate pipeline ps`), or end it: `rvstate pipeline stop`.",
            )
        if "unbuilt" in more:
            first = replace(first, environment_ready=False, code_state=first.tree.state)
        else:
            first = replace(first, code_state="", known=None)
    raise SubmitError(
        "Another rvstate keeps changing this workspace.", "Wait for it, then try again."
    )


def _build(
    session: Session, first: Prepared, ready: Ready, tell: Callable[[str], None]
) -> tuple[str, ...]:
    """Bring what the layers lie over, and build those that are not there; what was said."""
    from rvstate.infra import runs
    from rvstate.workflows.run import layers

    said: tuple[str, ...] = ()
    if not first.environment_ready or not first.plan.empty:
        build = build_script(first)
        # what is built is built from the code
        push = push_script(first, first.known, tell) if build is not None else None
        scripts = runs.Scripts(push, build, None)
        _, _, said = apply(session, first, scripts, tell)
        if "stale" in said:
            return said
    wanted = layers.look(session, ready.layers)
    if not wanted:
        return said
    uv = first.observed.tools.get("uv") or first.layout.tools / "bin" / "uv"
    built = layers.build(session, first.layout, uv, wanted, ready.pipeline_id, tell)
    return (*said, *(f"note {notice}" for notice in built.notices))


def _attempt(
    session: Session, first: Prepared, ready: Ready, tell: Callable[[str], None]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The jobs by their runs, as far as there are any, and what the scripts said."""
    from rvstate.infra import runs

    scripts = runs.Scripts(
        push_script(first, first.known, tell), build_script(first), _script(session, ready)
    )
    _, _, said = apply(session, first, scripts, tell)
    words = (line.split(" ") for line in said)
    jobs = {w[1]: w[2] for w in words if len(w) == 3 and w[0] in ("submitted", "found")}
    return jobs, tuple(x for x in said if not x.startswith(("submitted ", "found ")))


def _script(session: Session, ready: Ready) -> Script:
    """What takes the snapshot and submits every stage."""
    first = ready.runs[0]
    words, queue, history = scheduler(session, first.layout)
    stages = tuple(
        (
            name,
            run.run_id,
            run.spec.environment or "",
            " ".join(other.run_id for other in run.spec.after),
        )
        for run in ready.runs
        for name in _stages(run)
    )
    return Script(
        "submit_stages",
        (
            first.workspace.root / "lock",
            PATIENCE,
            first.workspace.root,
            first.tree.state,
            first.spec.snapshot or "",
            "link",
            keep_after(session, first),
            first.layout.runs,
            ready.data,
            queue,
            history,
            join(_ending(words)),
            str(len(stages)),
            *(word for stage in stages for word in stage),
            *words,
        ),
        _parcels(session, ready.runs),
    )


def _stages(run: Prepared) -> tuple[str, ...]:
    """The stages that a run is: one, or on Ray several."""
    assert run.part is not None
    return tuple(step.name for step in run.spec.ray.stages) if run.spec.ray else (run.part.stage,)


def _ending(words: tuple[str, ...]) -> tuple[str, ...]:
    """What ends a job, by how one is submitted."""
    if words[0] == "sbatch":
        return ("scancel",)
    return tuple("stop" if word == "submit" else word for word in words)


def _parcels(session: Session, runs: tuple[Prepared, ...]) -> bytes:
    """Each run's own files below its id, as a tar archive."""
    from rvstate import archive

    texts: dict[str, str] = {}
    for run in runs:
        told = {
            "job.sh": run.text,
            "receipt.json": json.dumps(receipt(session, run, None)),
            **run_texts(session, run),
        }
        texts |= {f"{run.run_id}/{name}": text for name, text in told.items()}
    return archive.bundle(texts, {})


def resume_pipeline(session: Session, asked: Wanted, tell: Callable[[str], None]) -> Sent:
    """Take up the newest pipeline from this machine that nobody answered for.

    Raises:
        ConfigError: Every one was answered.
        RefusedError: It was not submitted whole, and the code has changed since.
    """
    open_ones = [
        found
        for found in session.state.receipts()
        if found.get("cluster") == session.label
        and found.get("part")
        and not found.get("job_id")
        and not found.get("failed")
    ]
    if not open_ones:
        raise ConfigError(
            f"Every pipeline that was sent to {session.label} from here was answered.",
            "`rvstate pipeline ps` shows the newest.",
        )
    pipeline_id = str(open_ones[0]["part"]["pipeline"])
    stages = tuple(name for name, run, _ in open_ones[0]["part"]["plan"] if run)
    ready = prepare_pipeline(session, replace(asked, pipeline_id=pipeline_id, only=stages), tell)
    if open_ones[0].get("tree") != ready.tree.state:
        raise RefusedError(
            f"Pipeline {pipeline_id} was never answered, and the code has changed since.",
            "Bring the code back as it was to take it up, or look with `rvstate pipeline ps` and "
            "run a new one.",
        )
    return submit_pipeline(session, ready, tell)
