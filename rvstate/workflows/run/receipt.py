"""What is kept of a run, and what can be made of it again."""

from __future__ import annotations

import datetime
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from rvstate import elements
from rvstate.errors import ConfigError
from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.job import Chain, JobSpec, StageStep
from rvstate.paths import RemotePath
from rvstate.slurm.options import SbatchOptions
from rvstate.workflows.run.prepared import Prepared, log_parts
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    # loaded only for a run of DVC
    from rvstate.model.experiment import Experiment

_PATHS = ("rv", "run_directory", "library", "variables_file", "environment", "snapshot")


def receipt(session: Session, prepared: Prepared, job: str | None) -> dict[str, Any]:
    """What ran, from what, where, with which script; no secret is in it."""
    project, spec, order = prepared.project, prepared.spec, prepared.order
    environment = prepared.environment
    return {
        "schema": 1,
        "run_id": prepared.run_id,
        "job_id": job,
        "cluster": session.label,
        "name": spec.options.name,
        "project": project.name,
        "root": prepared.origin or project.root,
        "branch": project.branch,
        "commit": project.commit,
        "dirty": project.dirty,
        "dirty_digest": prepared.tree.state if project.dirty else None,
        "tree": prepared.tree.state,
        "snapshot": spec.snapshot,
        "copied_from": prepared.copied_from,
        "environment": spec.environment,
        "environment_digest": prepared.generation.name if prepared.generation else None,
        "script": spec.run_directory / "job.sh",
        "script_digest": _digest(prepared.text),
        "logs": prepared.layout.logs,
        "parts": log_parts(spec),
        "command": list(spec.command),
        "order": {
            "words": list(order.words),
            "request": asdict(order.request),
            "name": order.name,
            "keep": list(order.keep),
            "writable": order.writable,
            "environment": order.environment,
            "subdirectory": project.subdirectory,
            "start": order.start,
            # a name may mean another run tomorrow
            "after": [f"{d.run_id}:{d.when}" for d in spec.after],
            "held": order.held,
            "code": order.code,
            "array": order.array,
            "sweep": list(order.sweep),
            "total_time": order.total_time,
            "signal": order.signal,
            "retries": order.retries,
            "dvc": asdict(order.dvc) if order.dvc else None,
        },
        "array": elements.to_receipt(spec.array),
        "chain": asdict(spec.chain) if spec.chain else None,
        "dvc": asdict(spec.dvc) if spec.dvc else None,
        "after": [asdict(d) for d in spec.after],
        "stage": asdict(spec.stage) if spec.stage else None,
        "ray": spec.ray is not None,
        "part": asdict(prepared.part) if prepared.part else None,
        # what its script was rendered from, so that it can be made once more
        "spec": told(spec),
        "recipe": _values(environment) if environment is not None else None,
        "plan": [f"{c.action.word} {c.kind} {c.resource.name}" for c in prepared.plan.changes],
        "submitted_at": int(datetime.datetime.now(datetime.UTC).timestamp()),
    }


def told(spec: JobSpec) -> dict[str, Any]:
    """A job as `spec_in` reads it.

    Which runs it follows is said by names of runs, in its order; array, segments and stage beside
    it.
    """
    options = _values(replace(spec.options, dependency=""))
    told = replace(spec, after=(), array=None, chain=None, dvc=None, stage=None, ray=None)
    return {**_values(told), "options": options}


def _values(value: JobSpec | SbatchOptions | EnvironmentSpec) -> dict[str, Any]:
    """The fields of a value that say more than their defaults."""
    found = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
    return {name: own for name, (own, default) in found.items() if own != default}


def spec_in(found: dict[str, Any]) -> JobSpec:
    """The job that a receipt tells of.

    Raises:
        ConfigError: The receipt is of another version of rvstate.
    """
    said = found.get("spec")
    if found.get("ray"):
        raise ConfigError(
            f"Run {found.get('run_id')} is several stages of a pipeline, on Ray.",
            "Run them again with `rvstate pipeline rerun --from STAGE`.",
        )
    try:
        values = {key: _tuples(value) for key, value in dict(said).items()}  # type: ignore[arg-type]
        options = SbatchOptions(**{k: _tuples(v) for k, v in values.pop("options").items()})
        values |= {key: RemotePath(values[key]) for key in _PATHS if key in values}
        values["array"] = elements.from_receipt(found.get("array"))
        values["chain"] = Chain(**found["chain"]) if found.get("chain") else None
        values["dvc"] = _experiment(found["dvc"]) if found.get("dvc") else None
        values["stage"] = _stage(found.get("stage"))
        return JobSpec(**values, options=options)
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"The receipt of run {found.get('run_id')} does not say how its job was made: another "
            "version of rvstate wrote it.",
            "Type the command again.",
        ) from error


def _experiment(said: dict[str, Any]) -> Experiment:
    from rvstate.model.experiment import Experiment

    values = {key: _tuples(value) for key, value in said.items()}
    paths = ("store", "cache", "place")
    values |= {key: RemotePath(values[key]) for key in paths if values.get(key)}
    return Experiment(**values)


def _stage(said: dict[str, Any] | None) -> StageStep | None:
    if not said:
        return None
    told = {key: _tuples(value) for key, value in said.items()}
    return StageStep(**{**told, "data": RemotePath(said["data"])})


def environment_in(found: dict[str, Any]) -> EnvironmentSpec | None:
    """The environment that a receipt tells of, or None where the run had none."""
    said = found.get("recipe")
    return EnvironmentSpec(**{k: _tuples(v) for k, v in said.items()}) if said else None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
