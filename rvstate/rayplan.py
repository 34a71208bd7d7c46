"""Stages as Ray gets them, from the same values: the plan that `ray_driver.py` runs; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from rvstate import assets, batchscript
from rvstate.errors import ConfigError
from rvstate.model.job import JobSpec
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.model.stage import Pipeline, Stage
from rvstate.slurm import memory
from rvstate.stages import RUNNER, items_path
from rvstate.staging import Verdict

# What Ray's plugins for pip and uv need of the environment that they clone
# (ray/_private/runtime_env/pip.py and uv.py).
NEEDED = ("pip", "virtualenv", "uv")
# What a worker asks of Ray; all else the job asks of the scheduler.
_OF_WORKERS = ("gpus", "cpus", "mem")
# Seconds that an environment may take to be made on a node: Ray's 600 are few for large packages.
_SETUP = 1800


def runtime_env(declared: RuntimeEnv | None) -> dict[str, Any]:
    """What a stage adds to the base, in Ray's words; empty where it adds nothing.

    Packages come in one order and one spelling, for Ray takes lists that differ in these for
    different environments; of a requirements file they are its contents, for Ray knows it by name.
    The installer's cache is used, which Ray would not do by itself.

    Args:
        declared: What is declared.
    """
    if declared is None or declared.empty:
        return {}
    found: dict[str, Any] = {}
    if declared.layered:
        packages = list(declared.lines)
        if declared.installer == "uv":
            options = list(declared.options)
            found["uv"] = {"packages": packages, "uv_pip_install_options": options}
        else:
            options = ["--disable-pip-version-check", *declared.options]
            found["pip"] = {"packages": packages, "pip_install_options": options}
        found["config"] = {"setup_timeout_seconds": _SETUP}
    if declared.env_vars:
        found["env_vars"] = dict(declared.env_vars)
    return found


def copies(stages: Iterable[Stage]) -> int:
    """How many environments of its own Ray makes on a node that runs all of these stages."""
    added = (stage.runtime_env for stage in stages)
    return len({json.dumps(runtime_env(one)) for one in added if one is not None and one.layered})


def run_files(spec: JobSpec) -> dict[str, str]:
    """What a run that is a stage, or several on Ray, brings along: path to text.

    Args:
        spec: The job.
    """
    files: dict[str, str] = {}
    commands = [spec.command]
    if spec.ray is not None:
        files = {
            "ray/ray.sh": assets.script("ray"),
            "ray/driver.py": assets.program("ray_driver"),
            "ray/plan.json": spec.ray.plan,
            "ray/stages.sh": batchscript.stage_cases(spec.ray.stages),
        }
        found = json.loads(spec.ray.plan)["chains"]
        commands = [tuple(one["command"]) for chain in found for one in chain["stages"]]
    if any(command[: len(RUNNER)] == RUNNER for command in commands):
        files |= {f"python/{path}": text for path, text in assets.pipeline_modules().items()}
    return files


def together(pipeline: Pipeline, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """The same with all stages of a chain that runs: what passes between them is kept nowhere.

    Args:
        pipeline: The pipeline.
        verdicts: What becomes of each stage by itself.
    """
    decided = {verdict.stage: verdict for verdict in verdicts}
    for chain in chains(pipeline):
        first = next((name for name in chain if decided[name].runs), "")
        if first:
            why = f"it is in one chain with {first}, which runs"
            decided |= {n: Verdict(n, "run", why) for n in chain if not decided[n].runs}
    return tuple(decided[verdict.stage] for verdict in verdicts)


def chains(pipeline: Pipeline) -> tuple[tuple[str, ...], ...]:
    """Python stages that stand in a row and pass items to each other; others are alone.

    Args:
        pipeline: The pipeline.
    """
    found: list[list[Stage]] = []
    for stage in pipeline.stages:
        last = found[-1] if found else []
        if (
            last
            and is_python(stage)
            and is_python(last[-1])
            and pipeline.needs(stage) == (last[-1].name,)
            and stage.command[:-1] == last[-1].command[:-1]
        ):
            last.append(stage)
        else:
            found.append([stage])
    return tuple(tuple(stage.name for stage in chain) for chain in found)


def is_python(stage: Stage) -> bool:
    """Whether a stage is a class with `process`, and not a command."""
    return len(stage.command) == len(RUNNER) + 2 and stage.command[: len(RUNNER)] == RUNNER


def plan(pipeline: Pipeline, names: Iterable[str], nodes: int, pins: Iterable[str]) -> str:
    """The plan that the driver runs, as JSON.

    Args:
        pipeline: The pipeline.
        names: Which of its stages run.
        nodes: How many nodes the job has.
        pins: Patterns of packages that no stage may have otherwise than the base.

    Raises:
        ConfigError: A stage asks for what a worker of Ray cannot have.
    """
    wanted = set(names)
    runs = [
        [name for name in chain if name in wanted]
        for chain in chains(pipeline)
        if wanted.intersection(chain)
    ]
    return json.dumps(
        {
            "backend": pipeline.backend,
            "nodes": nodes,
            "pins": list(pins),
            "chains": [
                {
                    "reads": _reads(pipeline, chain[0]),
                    "stages": [_stage(pipeline, name, wanted) for name in chain],
                }
                for chain in runs
            ],
        }
    )


def _reads(pipeline: Pipeline, name: str) -> str:
    """The file from which the first stage of a chain has its items; empty where it makes them."""
    stage = pipeline.stage(name)
    kept = [items_path(other.name) for other in pipeline.stages if is_python(other)]
    return next((path for path in reversed(kept) if path in stage.inputs), "")


def _stage(pipeline: Pipeline, name: str, wanted: set[str]) -> dict[str, Any]:
    stage = pipeline.stage(name)
    asked = stage.resources
    for field in fields(asked):
        key = field.name
        if key not in _OF_WORKERS and getattr(asked, key):
            raise ConfigError(
                f"Stage {stage.name} asks for {key}, which a worker of Ray has from the job.",
                "Write it in [pipeline.resources].",
            )
    return {
        "name": stage.name,
        "command": list(stage.command),
        "after": [name for name in pipeline.needs(stage) if name in wanted],
        "runtime_env": runtime_env(stage.runtime_env),
        "cpus": asked.cpus or 1,
        "gpus": asked.gpus or 0,
        "memory": memory.parse(asked.mem) * 2**20 if asked.mem else None,
        "batch_size": stage.batch_size or 1,
        "num_workers": stage.num_workers or 1,
        "items": items_path(stage.name),
    }
