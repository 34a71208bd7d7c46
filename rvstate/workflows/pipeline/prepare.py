"""From a project's stages to a plan, and the jobs that it comes to; submits nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rvstate import batchscript, command, diff, git, notification, probe, request, staging
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.environment.package import Package, package_files
from rvstate.model.environment.package import package as own_package
from rvstate.model.job import Dependency, JobSpec, Part, StageStep
from rvstate.model.layout import Layout, Workspace
from rvstate.model.observed import ObservedState
from rvstate.model.project import Project, Scan, Tree, difference
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.model.stage import Pipeline, Stage
from rvstate.paths import RemotePath
from rvstate.request import Request, raw_option, with_preset
from rvstate.script import Script
from rvstate.slurm import token
from rvstate.staging import Key, Known, Verdict
from rvstate.workflows.pipeline.declared import declared_pipeline
from rvstate.workflows.run import environment
from rvstate.workflows.run.environment import Chosen
from rvstate.workflows.run.jobspec import job_spec, modules
from rvstate.workflows.run.launching import launching
from rvstate.workflows.run.named import check_script
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

# What stands for the base environment where rvstate built none.
_NO_ENVIRONMENT = "none"
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
    check_plan(diff.plan(wanted(session, layout), observed))
    workspace = layout.workspace(project.name, project.branch_component)
    check_identity(observed, workspace, project)
    base = environment.choose(declared, about.words, layout, project, workspace, observed)
    laid = _laid(session, pipeline, base) if pipeline.backend == "slurm" else {}
    looked = Looked(
        *(session, project, scan, layout, workspace, observed, package, base, laid, read),
        ray=pipeline.backend != "slurm",
    )
    # what is wrong with any stage is said today, not when its turn comes
    links = {s.name: staging.links(s, scan.tree) for s in pipeline.stages}
    tell("looking at the stages")
    reads = {s.name: staging.data_inputs(s, scan.tree) for s in pipeline.stages}
    known = _known(looked, pipeline, reads)
    keys = {stage.name: _key(looked, stage) for stage in pipeline.stages}
    forced = _forced(pipeline, asked, chosen)
    verdicts = staging.decide(pipeline, chosen, keys, reads, known, forced)
    if looked.ray:
        from rvstate.rayplan import together

        verdicts = together(pipeline, verdicts)
    if asked.only:
        # what was decided then is what is taken up
        verdicts = tuple(
            replace(v, action="run", reason="it was to run") if v.stage in asked.only else v
            for v in verdicts
        )
    else:
        _check_active(pipeline, verdicts, known)
    staging.check_inputs(pipeline, verdicts, reads, known, workspace.data)
    pipeline_id = asked.pipeline_id or f"{new_run_id()[:-2]}00"
    runs = _runs(looked, pipeline, verdicts, keys, reads, links, pipeline_id)
    return Ready(
        pipeline_id=pipeline_id,
        pipeline=pipeline,
        data=workspace.data,
        verdicts=verdicts,
        runs=runs,
        layers=_needed(looked, pipeline, verdicts),
        tree=scan.tree,
        notices=(
            *scan.notices,
            *notification.notices(session.config.settings, session.config.site),
            *(notice for run in runs for notice in run.notices),
            *(base.notices if runs else ()),
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


@dataclass(frozen=True, slots=True)
class Looked:
    """What all stages share."""

    session: Session
    project: Project
    scan: Scan
    layout: Layout
    workspace: Workspace
    observed: ObservedState
    package: Package | None
    base: Chosen
    layers: dict[RuntimeEnv, Layer]
    read: Callable[[str], str | None]
    ray: bool


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
    """Refuse to run a stage while it, or one that it follows, waits or runs already."""
    runs = [pipeline.stage(v.stage) for v in verdicts if v.runs]
    concerned = {name for stage in runs for name in (stage.name, *pipeline.needs(stage))}
    for stage, _, job in known.active:
        if stage in concerned:
            raise RefusedError(
                f"Stage {stage} waits or runs already, as job {job}; nothing was submitted.",
                "Wait for it (`rvstate pipeline ps`), or end it: `rvstate pipeline stop`.",
            )


def _environment(looked: Looked, stage: Stage) -> tuple[str, RemotePath | None]:
    """What names a stage's environment, and where it lies if rvstate builds it."""
    layer = _layer(looked, stage)
    if layer is not None:
        return layer.key, layer.place
    base = looked.base
    name = base.spec.path if base.spec is not None else _NO_ENVIRONMENT
    if base.spec is not None and base.generation is not None:
        name = base.generation.name
    if looked.ray:
        from rvstate.workflows.pipeline.ray import environment as by_ray

        name = by_ray(looked.session, stage.runtime_env, name)
    return name, base.generation if base.spec is not None else None


def _layer(looked: Looked, stage: Stage) -> Layer | None:
    return looked.layers.get(stage.runtime_env) if stage.runtime_env is not None else None


def _needed(looked: Looked, pipeline: Pipeline, verdicts: tuple[Verdict, ...]) -> tuple[Layer, ...]:
    """The layers of the stages that run, each once."""
    found = (_layer(looked, pipeline.stage(v.stage)) for v in verdicts if v.runs)
    return tuple({layer.key: layer for layer in found if layer is not None}.values())


def _key(looked: Looked, stage: Stage) -> Key:
    if not stage.command:
        raise ConfigError(f"Stage {stage.name} has no command.", "Add one.")
    words = command.resolve(stage.command)
    named = " ".join((_environment(looked, stage)[0], *modules(looked.session)))
    return staging.key(stage, looked.scan.tree, looked.read, words, named)


def _runs(
    looked: Looked,
    pipeline: Pipeline,
    verdicts: tuple[Verdict, ...],
    keys: dict[str, Key],
    reads: dict[str, tuple[str, ...]],
    links: dict[str, tuple[str, ...]],
    pipeline_id: str,
) -> tuple[Prepared, ...]:
    """The jobs that the stages which run become."""
    ids = {
        # on Ray one run is all of them
        verdict.stage: f"{pipeline_id[:-2]}{1 if looked.ray else number:02x}"
        for number, verdict in enumerate(verdicts, 1)
        if verdict.runs
    }
    plan = tuple((v.stage, ids.get(v.stage, ""), v.reason) for v in verdicts)
    found = []
    steps = {}
    for stage in pipeline.stages:
        if stage.name not in ids:
            continue
        step = StageStep(
            name=stage.name,
            data=looked.workspace.data,
            key=keys[stage.name],
            links=links[stage.name],
            after=pipeline.needs(stage),
            inputs=reads[stage.name],
            outputs=stage.outputs,
            folders=stage.folders,
            variables=stage.runtime_env.env_vars if stage.runtime_env is not None else (),
        )
        steps[stage.name] = step
        if looked.ray:
            continue
        after = tuple(
            Dependency(ids[name], f"{pipeline.name}-{name}", "", "ok")
            for name in pipeline.needs(stage)
            if name in ids
        )
        part = Part(pipeline_id, pipeline.name, stage.name, plan)
        found.append(_run(looked, stage, step, after, part, ids[stage.name]))
    if looked.ray and steps:
        from rvstate.workflows.pipeline.ray import ray_run

        return (ray_run(looked, pipeline, steps, plan, pipeline_id, next(iter(ids.values()))),)
    return tuple(found)


def _run(
    looked: Looked,
    stage: Stage,
    step: StageStep,
    after: tuple[Dependency, ...],
    part: Part,
    run_id: str,
) -> Prepared:
    """One stage as a run that is ready to be submitted."""
    session, project, tree = looked.session, looked.project, looked.scan.tree
    settings, site = session.config.settings, session.config.site
    order = Order(
        words=stage.command,
        request=stage_request(session, stage),
        name=f"{part.name}-{stage.name}",
        keep=(),
        directory=Path(project.root),
    )
    if request.leaves_choice(order.request, settings, site):
        raise ConfigError(
            f"Stage {stage.name} leaves open which type of GPU it gets.",
            f"Name one in stages.{stage.name}.resources.gpu_type.",
        )
    asked_for = request.options(order.request, settings, site)
    launch = launching(order, project, request.shape_of(order.request, asked_for), site)
    check_script(order, project, tree)
    base = looked.base
    spec = job_spec(
        session,
        order,
        project,
        tree,
        looked.package,
        looked.layout,
        looked.workspace,
        base.spec,
        _environment(looked, stage)[1],
        asked_for,
        launch,
        run_id,
    )
    spec = replace(
        spec,
        after=after,
        stage=step,
        variables=tuple(sorted({**dict(spec.variables), **dict(step.variables)}.items())),
    )
    return prepared(
        looked, order, spec, part, tuple(f"stage {stage.name}: {one}" for one in launch.notices)
    )


def prepared(
    looked: Looked, order: Order, spec: JobSpec, part: Part, notices: tuple[str, ...]
) -> Prepared:
    """A run of a pipeline, ready to be submitted.

    Args:
        looked: What all stages share.
        order: What it runs.
        spec: Its job, which gets the pipeline's snapshot.
        part: What it is of the pipeline.
        notices: What the user should know.
    """
    session, project, tree, base = looked.session, looked.project, looked.scan.tree, looked.base
    snapshot = looked.workspace.snapshots / f"{part.name}-{part.pipeline}"
    spec = replace(
        spec,
        # nothing of one stage's code is another's to change
        read_only=True,
        snapshot=snapshot,
        activated=tuple(
            place.replace(spec.snapshot or snapshot, snapshot, 1) for place in spec.activated
        ),
        # whoever looks for what the queue needs finds the snapshot's name, too
        options=replace(
            spec.options,
            comment=token.comment(
                spec.run_id, f"{part.pipeline} {token.words(spec.options.comment)}".rstrip()
            ),
        ),
    )
    plan = diff.plan(wanted(session, looked.layout), looked.observed)
    code_state = looked.observed.texts.get(looked.workspace.manifest, "").strip()
    known = known_tree(session, looked.workspace, code_state, tree)
    return Prepared(
        run_id=spec.run_id,
        project=project,
        tree=tree,
        change=difference(known or Tree(()), tree),
        known=known,
        layout=looked.layout,
        workspace=looked.workspace,
        observed=looked.observed,
        # what builds environments is not needed where all are there
        plan=plan if not base.ready or looked.layers else plan.only(KINDS - {"tool"}),
        environment=base.spec,
        generation=base.generation,
        environment_ready=base.ready,
        code_state=code_state,
        spec=spec,
        text=batchscript.render(spec),
        package=package_files(looked.package, git.version(project)) if looked.package else (),
        order=order,
        notices=notices,
        part=part,
    )


def stage_request(session: Session, stage: Stage) -> Request:
    """What a stage asks of the scheduler, as `rvstate run` would be told it."""
    said = stage.resources
    asked = Request(
        gpus=said.gpus,
        nodes=said.nodes,
        gpus_per_node=said.gpus_per_node,
        exclude=said.exclude,
        gpu_type=said.gpu_type,
        mig=said.mig,
        time=said.time,
        mem=said.mem,
        cpus=said.cpus,
        partition=said.partition,
        account=said.account,
        raw=tuple(map(raw_option, said.sbatch)),
    )
    return with_preset(asked, said.preset, session.config.settings)
