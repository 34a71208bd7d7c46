"""From a project's stages to a plan, and the jobs that it comes to; submits nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rvstate import diff, notification, probe, staging
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.environment.package import package as own_package
from rvstate.model.layout import Layout
from rvstate.model.project import Tree, difference
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.model.stage import Pipeline
from rvstate.paths import RemotePath
from rvstate.request import Request
from rvstate.script import Script
from rvstate.staging import Known, Verdict
from rvstate.workflows.pipeline.declared import declared_pipeline
from rvstate.workflows.pipeline.stagejobs import (
    Looked,
    key_of,
    needed,
    stage_runs,
)
from rvstate.workflows.run import environment
from rvstate.workflows.run.environment import Chosen
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepare import (
    KINDS,
    check_identity,
    check_package,
    check_plan,
    known_tree,
    new_run_id,
    project_at,
    question,
    reader,
    scanned,
    wanted,
)
from rvstate.workflows.run.prepared import Prepared
from rvstate.workflows.run.scripts import active_jobs
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    # loaded only where a stage adds packages
    from rvstate.workflows.run.layers import Layer

# Stages of one pipeline are told apart by two hexadecimal digits of their runs' ids.
_MOST = 255


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for.

    Args:
        directory: Where the user stands.
        stages: As `--stage` names them; empty for all.
        environments: As `--stage-env` says them.
        force: Whether what has not changed runs, too.
        begin: The stage from which on all run, whatever has changed; or empty.
        code: `FILE:NAME` of a pipeline that is written as code; empty for the declared one.
        pipeline_id: The pipeline to take up again, or empty.
        only: Of one that is taken up again the stages that were to run.
    """

    directory: Path
    stages: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    force: bool = False
    begin: str = ""
    code: str = ""
    pipeline_id: str = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """A pipeline, ready to be submitted; nothing was written yet.

    Args:
        pipeline_id: Names this run of it.
        pipeline: The pipeline.
        data: Its directory.
        verdicts: What becomes of each stage, in order.
        runs: Those that run, in order.
        layers: Environments that they need over the base one.
        tree: What is sent.
        notices: What the user should know.
    """

    pipeline_id: str
    pipeline: Pipeline
    data: RemotePath
    verdicts: tuple[Verdict, ...]
    runs: tuple[Prepared, ...]
    layers: tuple[Layer, ...]
    tree: Tree
    notices: tuple[str, ...] = ()


def prepare_pipeline(session: Session, asked: Wanted, tell: Callable[[str], None]) -> Ready:
    """Look at account, project and stages, and decide; two remote commands.

    Args:
        session: Which account.
        asked: What the user asked for.
        tell: Told what is being done, in a few words.

    Raises:
        ConfigError: The declaration or an option is wrong.
        RefusedError: Something is in the way, or a stage waits or runs already.
    """
    tell(f"looking at {session.label}")
    project = replace(project_at(session, asked.directory), subdirectory="")
    read = reader(project)
    pipeline = declared_pipeline(session, project, read, asked)
    if len(pipeline.stages) > _MOST:
        raise ConfigError(f"There are {len(pipeline.stages)} stages.", f"At most {_MOST} can be.")
    chosen = asked.only or staging.select(pipeline, asked.stages)
    package = own_package(read)
    check_package(package)
    if package is not None and package.extensions:
        raise RefusedError(
            "Each job of this project compiles its extensions in its snapshot, and the stages of a "
            "pipeline share one.",
            "Build a wheel and name it in requirements.txt.",
        )
    # every stage gets the environment as it is declared now, also one that is a line of shell
    about = Order(("python",), Request(), None, (), Path(project.root))
    # the answer travels while the project is read
    questions, script = question(session, project, about)
    running = session.transport.begin(script)
    scan = scanned(session, project)
    declared = environment.declared(session, "", read, scan.tree)
    observed = probe.read(session.transport.finish(script, running), questions)
    layout = Layout(observed.account)
    plan = diff.plan(wanted(session, layout), observed)
    check_plan(plan)
    workspace = layout.workspace(project.name, project.branch_component)
    check_identity(observed, workspace, project)
    base = environment.choose(declared, about.words, layout, project, workspace, observed)
    laid = _laid(session, pipeline, base) if pipeline.backend == "slurm" else {}
    code_state = observed.texts.get(workspace.manifest, "").strip()
    held = known_tree(session, workspace, code_state, scan.tree)
    looked = Looked(
        *(session, project, scan, layout, workspace, observed, package, base, laid, read),
        ray=pipeline.backend != "slurm",
        # what builds environments is not needed where all are there
        plan=plan if not base.ready or laid else plan.only(KINDS - {"tool"}),
        code_state=code_state,
        known=held,
        change=difference(held or Tree(()), scan.tree),
    )
    # what is wrong with any stage is said today, not when its turn comes
    links = {s.name: staging.links(s, scan.tree) for s in pipeline.stages}
    tell("looking at the stages")
    reads = {s.name: staging.data_inputs(s, scan.tree) for s in pipeline.stages}
    known = _known(looked, pipeline, reads)
    keys = {stage.name: key_of(looked, stage) for stage in pipeline.stages}
    forced = _forced(pipeline, asked, chosen)
    verdicts = staging.decide(pipeline, chosen, keys, reads, known, forced)
    if looked.ray:
        from rvstate.rayplan import together

        verdicts = together(pipeline, verdicts)
    if asked.only:
        # what was decided then is what is taken up
        verdicts = tuple(
            Verdict(v.stage, "run", "it was to run") if v.stage in asked.only else v
            for v in verdicts
        )
    else:
        _check_active(pipeline, verdicts, known)
    staging.check_inputs(pipeline, verdicts, reads, known, workspace.data)
    pipeline_id = asked.pipeline_id or f"{new_run_id()[:-2]}00"
    runs = stage_runs(looked, pipeline, verdicts, keys, reads, links, pipeline_id)
    return Ready(
        pipeline_id=pipeline_id,
        pipeline=pipeline,
        data=workspace.data,
        verdicts=verdicts,
        runs=runs,
        layers=needed(looked, pipeline, verdicts),
        tree=scan.tree,
        notices=(
            *scan.notices,
            *notification.notices(session.config.settings, session.config.site),
            *(notice for run in runs for notice in run.notices),
            *environment.doubts(session, "", base.spec, read, observed),
            *(environment.left_behind(session, base, workspace, observed) if runs else ()),
        ),
    )


def _laid(session: Session, pipeline: Pipeline, base: Chosen) -> dict[RuntimeEnv, Layer]:
    """The layer of each runtime_env that adds packages."""
    added = (stage.runtime_env for stage in pipeline.stages if stage.runtime_env is not None)
    wanted_layers = [one for one in added if one.layered]
    if not wanted_layers:
        return {}
    from rvstate.workflows.run.layers import layers

    return layers(session, base.spec, base.generation, wanted_layers)


def _known(looked: Looked, pipeline: Pipeline, reads: dict[str, tuple[str, ...]]) -> Known:
    """What the cluster says of the stages; one remote command."""
    paths = dict.fromkeys(
        path for stage in pipeline.stages for path in (*reads[stage.name], *stage.outputs)
    )
    script = Script(
        "stages",
        (
            looked.session.scratch,
            looked.session.home,
            looked.workspace.data,
            looked.layout.runs,
            active_jobs(looked.session, looked.layout),
            "\n".join(pipeline.names),
            "\n".join(paths),
        ),
        public=True,
    )
    answer = looked.session.transport.run(script)
    if answer.status != 0:
        said = answer.errors.strip().removeprefix("rvstate: ") or "no reason given"
        raise RefusedError(f"The stages could not be looked at: {said}", "Mend that; try again.")
    return staging.read(answer)


def _forced(pipeline: Pipeline, asked: Wanted, chosen: tuple[str, ...]) -> dict[str, str]:
    """Stages that run whatever has changed, and why."""
    if asked.begin:
        return dict.fromkeys(pipeline.behind(asked.begin), f"all from {asked.begin} on run again")
    return dict.fromkeys(chosen, "--force was given") if asked.force else {}


def _check_active(pipeline: Pipeline, verdicts: tuple[Verdict, ...], known: Known) -> None:
    """Refuse to run a stage while it, or one before or behind it, waits or runs already."""
    runs = [pipeline.stage(v.stage) for v in verdicts if v.runs]
    concerned = {name for stage in runs for name in (stage.name, *pipeline.needs(stage))}
    names = {stage.name for stage in runs}
    # what it reads would change under it
    concerned |= {s.name for s in pipeline.stages if names & {*pipeline.needs(s)}}
    for stage, _, job in known.active:
        if stage in concerned:
            raise RefusedError(
                f"Stage {stage} waits or runs already, as job {job}; nothing was submitted.",
                "Wait for it (`rvstate pipeline ps`), or end it: `rvstate pipeline stop`.",
            )
