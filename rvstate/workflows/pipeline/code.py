"""The pipeline that a Python file of the project makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rvstate import codefile
from rvstate.errors import ConfigError
from rvstate.model.project import Project
from rvstate.model.runtime_env import RuntimeEnv, runtime_env
from rvstate.model.stage import Pipeline, Stage, declared, pipeline
from rvstate.paths import component
from rvstate.workflows.session import Session


def coded(
    session: Session,
    project: Project,
    read: Callable[[str], str | None],
    code: str,
    directory: Path,
) -> Pipeline:
    """The pipeline that a file makes, as the same values that a declaration comes to.

    Args:
        session: Whose settings count.
        project: The project.
        read: The text of a file below its root; None where there is none.
        code: `FILE:NAME`, or a file in which it is called `pipeline`.
        directory: Where the user stands, where the file's path begins.

    Raises:
        ConfigError: The file is not the project's, or cannot be read, or what it makes is wrong.
    """
    file, _, name = code.partition(":")
    root = Path(project.root).resolve()
    path = (directory / file).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise ConfigError(
            f"There is no file {file} in the project {project.name}.",
            "Name a Python file of the project, and the pipeline in it: FILE.py:NAME.",
        )
    said = session.config.settings.pipeline
    spec = f"{path.relative_to(root).as_posix()}:{name or 'pipeline'}"
    found = codefile.describe(root, spec, streams=said.backend != "slurm")
    stages = declared(found["stages"], spec, read)
    if not stages:
        raise ConfigError(f"The pipeline {spec} has no stages.", "Give it some.")
    laid = {
        stage: tuple(_environment(one, stage, read) for one in given)
        for stage, given in found["laid"].items()
    }
    merged = (_merged(stage, laid.get(stage.name, ())) for stage in stages)
    return pipeline(component(said.name or found["name"]), merged, said.backend)


def _environment(table: object, stage: str, read: Callable[[str], str | None]) -> RuntimeEnv:
    found = runtime_env(table, f"runtime_env of stage {stage}", read)
    assert found is not None
    return found


def _merged(stage: Stage, laid: tuple[RuntimeEnv, ...]) -> Stage:
    """The stage with what its code has laid over its environment."""
    found = stage.runtime_env
    for one in laid:
        found = one if found is None else found.replaced_by(one)
    return replace(stage, runtime_env=found)
