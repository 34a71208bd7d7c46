"""Stages and the pipeline that they are: values, and what cannot be right about them; pure.

Declared in a project's configuration, or made in Python: both come to the same values.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from rvstate import schema
from rvstate.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rvstate.model.runtime_env import RuntimeEnv

# A stage's name is one of a job, a directory, and an end of `A..B`.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
_LONGEST = 60
# What a shell would do something with: signs, and words at the beginning that only a shell knows.
_SHELL = re.compile(r"[;&|<>$`(){}*?!~#\n\\]")
_BEGINNING = re.compile(
    r"\s*(?:\.|cd|command|eval|exec|exit|export|set|source|trap|ulimit|umask|unset)(?:\s|$)"
)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a stage asks of the scheduler, in the words of `rvstate run`'s options; see there."""

    gpus: int | None = None
    gpu_type: str | None = None
    gpus_per_node: int | None = None
    nodes: int | None = None
    mig: bool = False
    time: str | None = None
    mem: str | None = None
    cpus: int | None = None
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclusive: bool | None = None
    exclude: str | None = None
    preset: str | None = None
    start: Literal["once", "node", "rank"] | None = None
    sbatch: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a pipeline.

    Args:
        name: Its name, unique in the pipeline.
        command: The words of its command; a single word with blanks is a line of shell.
        resources: What it asks of the scheduler.
        after: Names of stages that it follows; those whose outputs it reads it follows anyway.
        inputs: Paths that it reads, from the project's root on, or absolute on the cluster.
        outputs: Paths that it makes, from the project's root on.
        folders: Those outputs that are directories, which are there before it begins.
        code: Paths of the project whose change makes it run again; empty for all of it.
        runtime_env: What it adds to the base environment; None for the base itself.
        batch_size: How many records a call of `process` gets, with Ray.
        num_workers: How many workers it has, with Ray.
    """

    name: str
    command: tuple[str, ...] = ()
    resources: Resources = Resources()
    after: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    runtime_env: RuntimeEnv | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages in the order in which they can run.

    Args:
        name: The pipeline's name.
        stages: Each behind those that it needs, else in the order of their declaration.
        backend: What runs them: `slurm`, `ray-data` or `ray-actors`.
    """

    name: str
    stages: tuple[Stage, ...]
    backend: Literal["slurm", "ray-data", "ray-actors"] = "slurm"

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, in order."""
        return tuple(stage.name for stage in self.stages)

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            ConfigError: There is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise unknown_stage(name, self.names)

    def needs(self, stage: Stage) -> tuple[str, ...]:
        """The stages that one follows: those that it names, and those whose outputs it reads."""
        return _needs(stage, self.stages)

    def behind(self, name: str) -> tuple[str, ...]:
        """A stage and all that follow it, in order."""
        found = {self.stage(name).name}
        for stage in self.stages:
            if found & {*self.needs(stage)}:
                found.add(stage.name)
        return tuple(one for one in self.names if one in found)


def pipeline(
    name: str,
    stages: Iterable[Stage],
    backend: Literal["slurm", "ray-data", "ray-actors"] = "slurm",
) -> Pipeline:
    """Stages, checked and put in the order in which they can run.

    Args:
        name: The pipeline's name.
        stages: In the order of their declaration.
        backend: What runs them.

    Raises:
        ConfigError: Two have one name or make one output, one follows a stage that is not there,
            or they follow each other in a circle.
    """
    declared = tuple(stages)
    known: dict[str, Stage] = {}
    for stage in declared:
        _check_name(stage.name)
        if stage.name in known:
            raise ConfigError(f"There are two stages {stage.name}.", "Rename one of them.")
        known[stage.name] = stage
    for stage in declared:
        for other in stage.after:
            if other not in known:
                raise unknown_stage(other, known, f"Stage {stage.name} follows")
    _check_outputs(declared)
    return Pipeline(name, _ordered(declared), backend)


def unknown_stage(name: str, known: Iterable[str], by: str = "") -> ConfigError:
    """The error for a stage that nobody declared, with the nearest that somebody did."""
    names = tuple(known)
    near = nearest(name, names)
    hint = f"Did you mean {near}?" if near else f"Declared: {', '.join(names) or 'none'}."
    said = f"{by} {name!r}, and there is no such stage." if by else f"There is no stage {name!r}."
    return ConfigError(said, hint)


def declared(
    tables: Mapping[str, Any],
    where: str,
    read: Callable[[str], str | None],
) -> tuple[Stage, ...]:
    """The stages that a project's configuration declares, in order.

    Args:
        tables: The table `stages`: a table for each stage.
        where: The files that it stands in, for messages.
        read: The text of a file below the project's root; None where there is none.

    Raises:
        ConfigError: A table is wrong.
    """
    from rvstate.model.runtime_env import runtime_env

    found = []
    for name, table in tables.items():
        _check_name(name)
        at = ("stages", name)
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"stages.{name} in {where} is not a table.", f"Write [stages.{name}]."
            )
        said: _Table = schema.build(_Table, dict(table), where, at)
        by = f"runtime_env of stage {name}"
        found.append(
            Stage(
                name=name,
                command=_words(said.command, name, where),
                resources=said.resources,
                after=tuple(dict.fromkeys(said.after)),
                inputs=_paths(said.inputs, f"stages.{name}.inputs", where, absolute=True),
                outputs=_paths(said.outputs, f"stages.{name}.outputs", where),
                code=_paths(said.code, f"stages.{name}.code", where),
                runtime_env=runtime_env(said.runtime_env, by, read),
                batch_size=_positive(said.batch_size, f"stages.{name}.batch_size", where),
                num_workers=_positive(said.num_workers, f"stages.{name}.num_workers", where),
                folders=tuple(
                    posixpath.normpath(path) for path in said.outputs if path.endswith("/")
                ),
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Table:
    """A stage's table, as it may be written."""

    command: str | tuple[str, ...]
    resources: Resources = Resources()
    after: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    runtime_env: dict[str, Any] | None = None
    batch_size: int | None = None
    num_workers: int | None = None


KEYS = tuple(field.name for field in fields(_Table))
"""The keys of a stage's table."""


def overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one lies in the other."""
    a, b = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return a.startswith(b) or b.startswith(a)


def _needs(stage: Stage, stages: Iterable[Stage]) -> tuple[str, ...]:
    reads = (
        other.name
        for other in stages
        if other is not stage and any(overlap(a, b) for a in stage.inputs for b in other.outputs)
    )
    return tuple(dict.fromkeys((*stage.after, *reads)))


def _ordered(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Each behind those that it needs; else as declared.

    Raises:
        ConfigError: They follow each other in a circle.
    """
    left = list(stages)
    needed = {stage.name: {*_needs(stage, stages)} for stage in stages}
    done: dict[str, Stage] = {}
    while left:
        ready = next((stage for stage in left if needed[stage.name] <= done.keys()), None)
        if ready is None:
            circle = _circle(left[0].name, {k: v - done.keys() for k, v in needed.items()})
            raise ConfigError(
                f"Stages follow each other in a circle: {' follows '.join(circle)}.",
                "Take one out of `after`, `inputs` or `outputs`.",
            )
        left.remove(ready)
        done[ready.name] = ready
    return tuple(done.values())


def _circle(first: str, needed: Mapping[str, set[str]]) -> tuple[str, ...]:
    """A way from a stage along what it needs that comes back to where it was."""
    way = [first]
    while True:
        following = min(needed[way[-1]])
        if following in way:
            return (*way[way.index(following) :], following)
        way.append(following)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise ConfigError(
            f"{name!r} cannot be a stage's name.",
            f"Use letters, digits, dashes, underscores and single dots, at most {_LONGEST}.",
        )


def _check_outputs(stages: tuple[Stage, ...]) -> None:
    made: dict[str, str] = {}
    for stage in stages:
        for path in stage.outputs:
            for other, owner in made.items():
                if owner != stage.name and overlap(path, other):
                    raise ConfigError(
                        f"Stages {owner} and {stage.name} both make {path}.",
                        "Give each output to one stage.",
                    )
            made[path] = stage.name
        for path in stage.inputs:
            both = next((out for out in stage.outputs if overlap(path, out)), None)
            if both is not None:
                raise ConfigError(
                    f"Stage {stage.name} reads {path} and makes {both}.",
                    "Write to another path than the one that is read.",
                )


def _words(command: str | tuple[str, ...], name: str, where: str) -> tuple[str, ...]:
    words = _split(command) if isinstance(command, str) else command
    if not words or not words[0].strip() or any("\0" in word for word in words):
        raise ConfigError(
            f"stages.{name}.command in {where} names no command.", 'For example "train.py --lr 1".'
        )
    return words


def _split(text: str) -> tuple[str, ...]:
    """The words of one plain command; a line that needs a shell stays one word."""
    if _SHELL.search(text) or _BEGINNING.match(text):
        return (text,)
    try:
        return tuple(shlex.split(text))
    except ValueError:
        # bash says what is wrong with its quotes
        return (text,)


def _positive(value: int | None, key: str, where: str) -> int | None:
    if value is not None and value < 1:
        raise ConfigError(f"{key} in {where} is {value}.", "Write at least 1.")
    return value


def _paths(
    paths: Iterable[str], key: str, where: str, *, absolute: bool = False
) -> tuple[str, ...]:
    """Paths as they are compared: without `.`, `//` and a slash at the end."""
    found = []
    for path in paths:
        normal = posixpath.normpath(path) if path else ""
        if normal.startswith("//"):
            normal = normal[1:]
        outside = normal.startswith(("/", "~")) and not (absolute and normal.startswith("/"))
        above = normal in ("", ".", "..", "/") or normal.startswith("../")
        odd = not normal.isprintable() or normal.split("/")[0] == ".rvstate"
        if outside or above or odd:
            which = " or an absolute path on the cluster" if absolute else ""
            raise ConfigError(
                f"{path!r} in {key} of {where} cannot be used.",
                f"Write a path below the project's root{which}.",
            )
        found.append(normal)
    return tuple(dict.fromkeys(found))
