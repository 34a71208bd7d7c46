"""`rvstate rerun`: a run once more, from the code at hand or from its snapshot on the cluster."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rvstate import batchscript, diff, git, notification, probe
from rvstate import desired as desired_state
from rvstate.errors import ConfigError, ConvergeError, RefusedError, RvstateError
from rvstate.model.environment.package import package as own_package
from rvstate.model.environment.package import package_files
from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.job import JobSpec
from rvstate.model.layout import SYMBOLIC, Layout, Workspace
from rvstate.model.observed import ObservedState, Present
from rvstate.model.project import PastTree, Project, Tree, difference
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.slurm import token
from rvstate.workflows.run.at_hand import UNNAMED, Code, at_hand
from rvstate.workflows.run.order import ordered
from rvstate.workflows.run.prepare import (
    KINDS,
    begin,
    check_identity,
    check_plan,
    known_tree,
    new_run_id,
    reader,
    wanted,
)
from rvstate.workflows.run.prepared import Prepared, Submitted
from rvstate.workflows.run.receipt import environment_in, spec_in
from rvstate.workflows.run.scripts import PATIENCE
from rvstate.workflows.run.submit import submit
from rvstate.workflows.session import Session

# `YYYYmmdd-HHMMSS-xxxxxxxx`, with which the name of a snapshot ends
_RUN_ID = 24


def rerun(
    session: Session, called: str, here: Path, tell: Callable[[str], None], *, failed: bool = False
) -> Submitted:
    """Submit a run again: the same code, command, options and environment.

    Args:
        session: Which account.
        called: A job id, a run id, or a name; whichever machine it was sent from.  With `_INDEX`
            behind it one element of an array.
        here: Where the user stands.
        tell: Told what is being done, in a few words.
        failed: Only the elements that have ended without success.

    Raises:
        ConfigError: No run is called so.
        RefusedError: Its code is neither here nor on the cluster any more, or nothing has failed.
    """
    keys = ("job_id", "run_id", "name")
    if failed or (_array_of(called) and not _receipt_here(session, (called,), keys)):
        from rvstate.workflows.run.some import some

        found = some(session, called, tell, failed, lambda name: _receipt(session, name, tell))
    else:
        found = _receipt(session, called, tell)
    if (found.get("order") or {}).get("held"):
        raise RefusedError(
            f"Run {found.get('run_id')} was a shell, which has no command to run again.",
            "Use `rvstate up`.",
        )
    with at_hand(session, found, here) as code:
        prepared = repeated(session, found, code, tell)
        if prepared.copied_from is not None:
            copy_snapshot(session, prepared, tell)
        done = submit(session, prepared, tell, repeated=prepared.copied_from is not None)
        return replace(done, notices=(*prepared.notices, *done.notices))


def root_here(session: Session, called: str) -> Path | None:
    """Where the project of a run from this machine lies; None where that is not known."""
    keys = ("job_id", "run_id", "name")
    found = _receipt_here(session, (called,), keys)
    if found is None:
        found = _receipt_here(session, (_array_of(called),), keys)
    root = Path(str(found.get("root"))) if found else None
    return root if root is not None and root.is_dir() else None


def _array_of(called: str) -> str:
    """The run of which `RUN_INDEX` may be an element; empty where it is none."""
    base, _, number = called.rpartition("_")
    return base if number.isdecimal() else ""


def _receipt_here(
    session: Session, called: tuple[str, ...], keys: tuple[str, ...]
) -> dict[str, Any] | None:
    return next(
        (
            receipt
            for receipt in session.state.receipts()
            if receipt.get("cluster") == session.label
            and any(value and value in called for key in keys for value in _called(receipt, key))
        ),
        None,
    )


def _called(receipt: dict[str, Any], key: str) -> tuple[str, ...]:
    said = str(receipt.get(key) or "")
    # an array may have several jobs
    return tuple(said.split(",")) if key == "job_id" else (said,)


def _receipt(session: Session, called: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """What is kept of a run: here, or else on the cluster; of a name the newest from anywhere."""
    found = _receipt_here(session, (called,), ("job_id", "run_id"))
    if found is not None:
        return found
    tell("looking the run up")
    name = f'"name": {json.dumps(called)}'
    asked = (session.scratch, session.home, Layout(SYMBOLIC).runs, called, name)
    answer = session.transport.run(Script("find_receipt", asked))
    if answer.status != 0:
        raise RvstateError(f"The run could not be looked up: {answer.errors.strip()}", "Try again.")
    told = answer.first("receipt").decode("utf-8", "replace")
    if not told.strip():
        # its records over there may be gone, and ours not
        found = _receipt_here(session, (called,), ("name",))
        if found is None:
            raise ConfigError(
                f"No run on {session.label} is called {called!r}.",
                "`rvstate ps -a` lists the runs.",
            )
        return found
    try:
        found = dict(json.loads(told))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"The receipt of run {called!r} on {session.label} cannot be read.",
            "Type the command again.",
        ) from error
    return found | {"job_id": answer.first("job").decode("ascii", "replace").strip()}


def repeated(
    session: Session,
    found: dict[str, Any],
    code: Code | None,
    tell: Callable[[str], None],
    run_id: str = "",
) -> Prepared:
    """A run once more, made from its receipt; writes nothing there.

    Args:
        session: Which account.
        found: The receipt.
        code: The run's code on this machine; None where its snapshot is to serve.
        tell: Told what is being done, in a few words.
        run_id: The run to take up again, whose receipt it is; empty for a new one.

    Raises:
        ConfigError: The receipt is of another version of rvstate.
        RefusedError: Something on the account is in the way.
    """
    then, environment = spec_in(found), environment_in(found)
    _check_alone(then)
    order = ordered(found, Path(str(found.get("root"))))
    if order.after:
        from rvstate.workflows.run.after import after

        # what they came to may be known by now
        follows, dependency = after(session, order.after)
        options = replace(then.options, dependency=dependency)
        then = replace(then, after=follows, options=options)
    project = code.project if code is not None else _remembered(found)
    tree = code.tree if code is not None else PastTree(str(found["tree"]))
    tell(f"looking at {session.label}")
    observed = _look(session, project, then)
    plan = diff.plan(wanted(session, Layout(observed.account)), observed)
    check_plan(plan)
    layout = Layout(observed.account)
    workspace = layout.workspace(project.name, project.branch_component)
    run = run_id or new_run_id()
    spec = _spec(session, then, layout, workspace, run)
    ready = _is_ready(observed, then.environment)
    if not ready:
        _check_recipe(then, environment)
    if ready:
        # what builds environments is not needed then
        plan = plan.only(KINDS - {"tool"})
    code_state, source = tree.state, None
    if code is None and then.snapshot is not None:
        source = RemotePath(str(found["copied_from" if run_id else "snapshot"]))
    elif code is not None:
        check_identity(observed, workspace, project)
        code_state = observed.texts.get(workspace.manifest, "").strip()
    known = known_tree(session, workspace, code_state, tree)
    return Prepared(
        run_id=run,
        project=project,
        tree=tree,
        change=difference(known or Tree(()), tree),
        known=known,
        layout=layout,
        workspace=workspace,
        observed=observed,
        plan=plan,
        environment=environment,
        generation=then.environment,
        environment_ready=ready,
        code_state=code_state,
        spec=spec,
        text=batchscript.render(spec),
        package=_package(code.project, then) if code is not None else (),
        order=order,
        notices=(f"the code is that of the snapshot {source}",) if source is not None else (),
        origin=code.origin if code is not None else str(found.get("root")),
        copied_from=source,
    )


def _remembered(found: dict[str, Any]) -> Project:
    """The project of a run of which nothing is on this machine."""
    return Project(
        root=str(found.get("root")),
        name=str(found["project"]),
        identities=(),
        branch=found.get("branch"),
        commit=found.get("commit"),
        changed=UNNAMED if found.get("dirty") else (),
        subdirectory=found["order"]["subdirectory"],
    )


def _look(session: Session, project: Project, then: JobSpec) -> ObservedState:
    generation = then.environment
    place = Layout(SYMBOLIC).workspace(project.name, project.branch_component)
    asked: tuple[probe.Question, ...] = (
        *probe.questions(wanted(session, Layout(SYMBOLIC))),
        ("text", place.manifest),
        ("text", place.root / "identity"),
    )
    if generation is not None:
        asked += (
            ("text", generation / ".rvstate-environment"),
            ("text", generation / ".rvstate" / "verified"),
            ("stat", generation / "bin" / "python"),
        )
    if then.dvc is not None:
        asked += (("text", then.dvc.store / "rvstate-commits"),)
    script, running = begin(session, probe.script(session.scratch, session.home, asked))
    # what submits takes longer to load than the answer needs to come
    importlib.import_module("rvstate.infra.runs")
    return probe.read(session.transport.finish(script, running), asked)


def _spec(
    session: Session, then: JobSpec, layout: Layout, workspace: Workspace, run_id: str
) -> JobSpec:
    """The job as it was, as a run of its own; our own scripts are today's."""
    snapshot = workspace.snapshot(then.options.name, run_id)
    before = then.snapshot or snapshot
    comment = token.comment(run_id, token.words(then.options.comment))
    if then.run_id == run_id:
        # one that is taken up again; on other nodes it has the snapshot of the run before
        snapshot = before
    activated = tuple(
        f"{snapshot}{place.removeprefix(before)}" if place.startswith(f"{before}/") else place
        for place in then.activated
    )
    return replace(
        then,
        run_id=run_id,
        options=replace(then.options, comment=comment),
        run_directory=layout.run(run_id),
        library=desired_state.script_set(layout).path,
        # what the job clones has none
        snapshot=snapshot if then.snapshot is not None else None,
        activated=activated,
        announce=notification.by_webhook(session.config.settings),
    )


def _is_ready(observed: ObservedState, generation: RemotePath | None) -> bool:
    """Whether the environment is there as it was; else it is built from what the receipt says.

    Raises:
        RefusedError: It is known to be damaged.
    """
    if generation is None:
        return True
    stamp = observed.texts.get(generation / ".rvstate-environment", "").split("\n", 1)[0]
    python = observed.entry(generation / "bin" / "python")
    runs = isinstance(python, Present) and "f" in (python.type, python.leads_to)
    walked = observed.texts.get(generation / ".rvstate" / "verified", "").split()
    if stamp == generation.name and walked[1:] == ["damaged"]:
        raise RefusedError(
            f"The environment {generation} lost files, as `rvstate verify` found.",
            "`rvstate converge` builds the one that its project uses again.",
        )
    return stamp == generation.name and runs


def _check_recipe(then: JobSpec, environment: EnvironmentSpec | None) -> None:
    """Refuse to build an environment from the recipe of another one.

    Raises:
        RefusedError: It was not built from what the project declared then.
    """
    if then.environment is None or (
        environment is not None and environment.digest == then.environment.name
    ):
        return
    raise RefusedError(
        f"The environment {then.environment} is gone, and the run's receipt does not say how to "
        "build it.",
        "Type the command again.",
    )


def _check_alone(then: JobSpec) -> None:
    """Refuse a stage: beside its pipeline it would write the same files.

    Raises:
        RefusedError: It is one.
    """
    steps = then.ray.stages if then.ray is not None else (then.stage,)
    if steps[0] is not None:
        raise RefusedError(
            f"This run is stage {steps[0].name} of a pipeline, which alone knows what else of it "
            "waits or runs.",
            f"`rvstate pipeline rerun --from {steps[0].name}` runs it and what follows it, as the "
            "code is now.",
        )


def _package(project: Project, then: JobSpec) -> tuple[tuple[str, str], ...]:
    """Metadata and commands of the project's own package, of the version that it was."""
    found = own_package(reader(project))
    version = dict(then.variables).get("SETUPTOOLS_SCM_PRETEND_VERSION", "")
    return package_files(found, version or git.version(project)) if found else ()


def copy_snapshot(session: Session, prepared: Prepared, tell: Callable[[str], None]) -> None:
    """Make a run's snapshot on the cluster from the one that it repeats.

    Raises:
        RefusedError: That one was removed, or does not hold what ran any more; nor does another.
        ConvergeError: It could not be copied.
    """
    spec, source = prepared.spec, prepared.copied_from
    assert source is not None
    assert spec.snapshot is not None
    run_id = source.name[-_RUN_ID:]
    args = (
        *(prepared.workspace.root / "lock", PATIENCE, source, spec.snapshot),
        *("link" if spec.read_only else "copy", prepared.tree.state),
        *(prepared.layout.run(run_id) if spec.sources else "-", spec.run_directory),
    )
    tell("taking the snapshot")
    answer = session.transport.run(Script("copy_snapshot", args))
    said = answer.errors.strip().removeprefix("rvstate: ") or "it gave no reason"
    if answer.status != 0:
        raise ConvergeError(
            f"The snapshot was not taken, so no job was submitted: {said}",
            "Mend that and run the command again.",
        )
    word, _, what = answer.body.decode("utf-8", "replace").strip().partition(" ")
    if word == "copied":
        return
    state = "was removed" if word == "gone" else f"is not what ran any more ({what})"
    raise RefusedError(
        f"The code of run {run_id} is not on this machine, and its snapshot {source} {state}.",
        f"Check out commit {(prepared.project.commit or '')[:10]} of {prepared.project.name} here, "
        "and run this again."
        if prepared.project.commit and not prepared.project.dirty
        else "Its code was never committed: type the command again with the code as it is now.",
    )
