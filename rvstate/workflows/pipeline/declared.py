"""The pipeline that a project declares, with what the command line says over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rvstate.errors import ConfigError
from rvstate.model.project import Project
from rvstate.model.runtime_env import RuntimeEnv, stage_env
from rvstate.model.stage import Pipeline, declared, pipeline
from rvstate.paths import component
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    from rvstate.workflows.pipeline.prepare import Wanted


def declared_pipeline(
    session: Session,
    project: Project,
    read: Callable[[str], str | None],
    asked: Wanted,
) -> Pipeline:
    """The project's pipeline.

    Args:
        session: Whose settings count.
        project: The project.
        read: The text of a file below its root; None where there is none.
        asked: What the user asked for: `--stage-env` goes over the declaration, and a pipeline
            as code stands in its place.

    Raises:
        ConfigError: There are no stages, or something about them is wrong.
    """
    if asked.code:
        from rvstate.workflows.pipeline.code import coded

        found = coded(session, project, read, asked.code, asked.directory)
        return _with_environments(found, asked.environments, read)
    tables: dict[str, Any] = {}
    for layer in session.config.stages:
        tables |= layer.table
    if not tables:
        raise ConfigError(
            f"The project {project.name} declares no stages.",
            "Write [stages.NAME] in its rvstate.toml, or [tool.rvstate.stages.NAME] in "
            "pyproject.toml, with a command each.",
        )
    where = " and ".join(layer.name for layer in session.config.stages)
    said = session.config.settings.pipeline
    found = pipeline(
        component(said.name or project.name), declared(tables, where, read), said.backend
    )
    return _with_environments(found, asked.environments, read)


def _with_environments(
    found: Pipeline, environments: Iterable[str], read: Callable[[str], str | None]
) -> Pipeline:
    """The pipeline with what `--stage-env` says."""
    given: dict[str, RuntimeEnv] = {}
    for name, environment in (stage_env(text, read) for text in environments):
        found.stage(name)
        if name in given:
            raise ConfigError(f"--stage-env names {name} twice.", "Leave out one of them.")
        given[name] = environment
    stages = tuple(
        replace(stage, runtime_env=stage.runtime_env.replaced_by(given.get(stage.name)))
        if stage.runtime_env is not None
        else replace(stage, runtime_env=given.get(stage.name))
        for stage in found.stages
    )
    return replace(found, stages=stages)
