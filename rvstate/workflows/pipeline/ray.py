"""The stages of a pipeline as one job, in which Ray runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rvstate import rayplan, request, schema
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.job import Part, RayStep, StageStep
from rvstate.model.launch import Launch
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.model.stage import Pipeline, Resources, Stage
from rvstate.workflows.run.jobspec import job_spec
from rvstate.workflows.run.layers import pinned
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepared import Prepared

if TYPE_CHECKING:
    from rvstate.workflows.pipeline.stagejobs import Looked
    from rvstate.workflows.session import Session


def environment(session: Session, added: RuntimeEnv | None, base: str) -> str:
    """What names the environment that Ray makes of a stage's packages.

    Args:
        session: Whose settings count.
        added: What the stage adds.
        base: What names the base.
    """
    pins = pinned(session.config.settings.environment.pin_to_base)
    key = added.key(base, pins) if added is not None else ""
    return key or base


def notice(pipeline: Pipeline) -> str:
    """What the environment gets beside the declaration, in words."""
    return (
        f"backend {pipeline.backend}: the base environment also has "
        f"{', '.join(rayplan.NEEDED)}, which Ray needs to add packages of stages"
    )


def ray_run(
    looked: Looked,
    pipeline: Pipeline,
    steps: Mapping[str, StageStep],
    plan: tuple[tuple[str, str, str], ...],
    pipeline_id: str,
    run_id: str,
) -> Prepared:
    """The one run that is all the stages which run.

    Args:
        looked: What all stages share.
        pipeline: The pipeline.
        steps: Those that run, by name and in order.
        plan: Every stage: its name, its run or nothing, and why it runs or does not.
        pipeline_id: Names this run of the pipeline.
        run_id: Names the run.

    Raises:
        ConfigError: What a stage asks for cannot be had so.
        RefusedError: The environment is one that Ray cannot add to.
    """
    from rvstate.workflows.pipeline.stagejobs import one_type, prepared, stage_request

    session = looked.session
    settings, site = session.config.settings, session.config.site
    if looked.base.spec is not None and looked.base.spec.kind == "apptainer":
        raise RefusedError(
            f"The backend {pipeline.backend} starts Ray on every node, which it cannot do within "
            "a container.",
            'Declare an environment that rvstate builds, or set backend = "slurm" in [pipeline].',
        )
    where = "[pipeline] resources"
    asked: Resources = schema.build(Resources, dict(settings.pipeline.resources), where)
    if asked.start is not None:
        raise ConfigError(f"{where} has start, and Ray starts the stages.", "Leave it out.")
    wanted = stage_request(session, Stage("", resources=asked))
    wanted = one_type(wanted, settings, site)
    order = Order(
        words=("ray", *steps),
        request=wanted,
        name=f"{pipeline.name}-ray",
        keep=(),
        directory=Path(looked.project.root),
    )
    asked_for = request.options(wanted, settings, site)
    nodes = asked_for.nodes or 1
    spec = job_spec(
        session,
        order,
        looked.project,
        looked.scan.tree,
        looked.package,
        looked.layout,
        looked.workspace,
        looked.base.spec,
        looked.base.generation,
        # one of Ray's on each node, which has all of its CPUs
        replace(asked_for, ntasks_per_node=1),
        Launch(nodes=nodes),
        run_id,
    )
    pins = pinned(settings.environment.pin_to_base)
    step = RayStep(
        data=looked.workspace.data,
        nodes=nodes,
        copies=rayplan.copies(pipeline.stage(name) for name in steps),
        plan=rayplan.plan(pipeline, steps, nodes, pins),
        stages=tuple(steps.values()),
    )
    _check_room(pipeline, steps, nodes, asked_for.cpus_per_task)
    part = Part(pipeline_id, pipeline.name, next(iter(steps)), plan)
    return prepared(looked, order, replace(spec, ray=step), part, (notice(pipeline),))


def _check_room(
    pipeline: Pipeline, steps: Mapping[str, StageStep], nodes: int, cpus: int | None
) -> None:
    """Refuse a chain whose workers do not fit at once, before anything waits in a queue."""
    if cpus is None:
        return
    for chain in rayplan.chains(pipeline):
        stages = [pipeline.stage(name) for name in chain if name in steps]
        wanted = sum((one.resources.cpus or 1) * (one.num_workers or 1) for one in stages)
        if wanted > nodes * cpus:
            raise ConfigError(
                f"Stages {', '.join(chain)} need {wanted} CPUs at once, and {nodes} nodes with "
                f"{cpus} each have {nodes * cpus}.",
                "Ask for more in [pipeline] resources (nodes, cpus), or lower num_workers.",
            )
