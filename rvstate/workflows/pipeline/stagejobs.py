"""The jobs that stages become, from what was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rvstate import batchscript, command, git, request, staging
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.environment.package import Package, package_files
from rvstate.model.job import Dependency, JobSpec, Part, StageStep
from rvstate.model.layout import Layout, Workspace
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Plan
from rvstate.model.project import Project, Scan, Tree, TreeChange
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.model.settings import Settings
from rvstate.model.site import Site
from rvstate.model.stage import Pipeline, Stage
from rvstate.paths import RemotePath
from rvstate.request import Request, raw_option, with_preset
from rvstate.slurm import token
from rvstate.staging import Key, Verdict
from rvstate.workflows.run.environment import Chosen
from rvstate.workflows.run.jobspec import job_spec, modules
from rvstate.workflows.run.launching import launching
from rvstate.workflows.run.named import check_script
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepared import Prepared
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    # loaded only where a stage adds packages
    from rvstate.workflows.run.layers import Layer

# What stands for the base environment where there is none.
_NO_ENVIRONMENT = "none"


@dataclass(frozen=True, slots=True)
class Looked:
    """What all stages share; fields as in `Prepared`.

    Args:
        scan: What is sent.
        package: The project's own package, where it is one.
        base: The project's environment.
        layers: The layer of each runtime_env that adds packages.
        read: The text of a file below the project's root; None where there is none.
        ray: Whether Ray runs the stages, all in one run.
    """

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
    plan: Plan
    code_state: str
    known: Tree | None
    change: TreeChange


def environment_of(looked: Looked, stage: Stage) -> tuple[str, RemotePath | None]:
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


def needed(looked: Looked, pipeline: Pipeline, verdicts: tuple[Verdict, ...]) -> tuple[Layer, ...]:
    """The layers of the stages that run, each once."""
    found = (_layer(looked, pipeline.stage(v.stage)) for v in verdicts if v.runs)
    return tuple({layer.key: layer for layer in found if layer is not None}.values())


def key_of(looked: Looked, stage: Stage) -> Key:
    """What decides about a stage beside its files.

    Raises:
        ConfigError: It has no command.
    """
    if not stage.command:
        raise ConfigError(f"Stage {stage.name} has no command.", "Add one.")
    words = command.resolve(stage.command)
    named = " ".join((environment_of(looked, stage)[0], *modules(looked.session)))
    return staging.key(stage, looked.scan.tree, looked.read, words, named)


def stage_runs(
    looked: Looked,
    pipeline: Pipeline,
    verdicts: tuple[Verdict, ...],
    keys: dict[str, Key],
    reads: dict[str, tuple[str, ...]],
    links: dict[str, tuple[str, ...]],
    pipeline_id: str,
) -> tuple[Prepared, ...]:
    """The jobs that the stages which run become, in order.

    Args:
        looked: What all stages share.
        pipeline: The pipeline.
        verdicts: What becomes of each stage.
        keys: What decides about each beside its files.
        reads: Inputs of each that are no code.
        links: Names of each that lead into the pipeline's directory.
        pipeline_id: Names this run of the pipeline.

    Raises:
        ConfigError, RefusedError: What one asks for is wrong, or nothing at the site.
    """
    ids = {
        # on Ray one run is all of them
        verdict.stage: f"{pipeline_id[:-2]}{1 if looked.ray else number:02x}"
        for number, verdict in enumerate(verdicts, 1)
        if verdict.runs
    }
    plan = tuple((v.stage, ids.get(v.stage, ""), v.reason) for v in verdicts)
    found = []
    steps = {}
    decided = {verdict.stage: verdict for verdict in verdicts}
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
            unless_same=decided[stage.name].unless_same and not looked.ray,
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
        start=stage.resources.start,
    )
    try:
        order = replace(order, request=one_type(order.request, settings, site))
        asked_for = request.options(order.request, settings, site)
        launch = launching(order, project, request.shape_of(order.request, asked_for), site)
        check_script(order, project, tree)
    except (ConfigError, RefusedError) as error:
        # the words are those of options; where a stage says the same, it stands in a table
        where = f"Where that names an option, write it in stages.{stage.name}.resources."
        remedy = f"{error.remedy} {where}" if " -" in f" {error.remedy}" else error.remedy
        raise type(error)(f"Stage {stage.name}: {error.message}", remedy) from error
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
        environment_of(looked, stage)[1],
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
    project, base = looked.project, looked.base
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
    return Prepared(
        run_id=spec.run_id,
        project=project,
        tree=looked.scan.tree,
        change=looked.change,
        known=looked.known,
        layout=looked.layout,
        workspace=looked.workspace,
        observed=looked.observed,
        plan=looked.plan,
        environment=base.spec,
        generation=base.generation,
        environment_ready=base.ready,
        code_state=looked.code_state,
        spec=spec,
        text=batchscript.render(spec),
        package=package_files(looked.package, git.version(project)) if looked.package else (),
        order=order,
        notices=notices,
        part=part,
    )


def one_type(wanted: Request, settings: Settings, site: Site) -> Request:
    """The request with the only type of GPU that serves it.

    A run may stand in the queue for several types, and is then several jobs of which one runs; no
    other job can follow those.

    Args:
        wanted: What is asked for.
        settings: What the user has set.
        site: What there is.

    Raises:
        ConfigError: Several types would do.
        RefusedError: None would.
    """
    if not request.leaves_choice(wanted, settings, site):
        return wanted
    from rvstate import allocator

    found = allocator.choices(wanted, settings, site).found
    if len(found) == 1:
        return replace(wanted, gpu_type=found[0].kind)
    raise ConfigError(
        "It is left open which type of GPU the job gets.",
        "Write gpu_type in its resources, or in [defaults] for all: "
        f"{', '.join(choice.kind for choice in found)}.",
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
        constraint=said.constraint,
        exclusive=said.exclusive,
        raw=tuple(map(raw_option, said.sbatch)),
    )
    return with_preset(asked, said.preset, session.config.settings)
