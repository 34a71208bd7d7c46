"""Pipelines as Python code: stages, each with packages of its own, and what runs them.

    from rvstate.stages import Pipeline, Stage

    class Upper(Stage):
        runtime_env = {"uv": ["packaging==24.0"]}

        def process(self, batch):
            return [text.upper() for text in batch]

    pipeline = Pipeline("demo", [Upper()], items=["a", "b"])

This one file is all that a pipeline needs: it uses the standard library only, and goes along to
where the pipeline runs.  A pipeline says the same as tables `[stages.NAME]` of a project would, and
`describe` writes those.  Between stages items travel as JSON, for an object that was pickled under
one version of a package may not load under another: hand larger things over as files, by path.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

__all__ = ["Composite", "Pipeline", "Resources", "Stage"]

# The words in front of FILE:NAME and a stage's name with which a stage of Python runs.
RUNNER = ("python", "-m", "rvstate.stages", "run")


class Resources(TypedDict, total=False):
    """What a stage asks for, in the words of `rvstate run`'s options."""

    gpus: int
    gpu_type: str
    gpus_per_node: int
    nodes: int
    mig: bool
    time: str
    mem: str
    cpus: int
    partition: str
    account: str
    constraint: str
    exclusive: bool
    exclude: str
    preset: str
    start: Literal["once", "node", "rank"]
    sbatch: Sequence[str]


class Stage:
    """One step of a pipeline: a class with `process`, or a command.

    What is set on the class holds for all its instances; `with_` and the arguments change one.

    Args:
        name: Its name, unique in the pipeline; the class's own if it is left out.
        command: What it runs in place of `process`: a line of shell, or words.
        resources: What it asks for.
        after: Names of stages that it follows; the one in front of it if it is left out.
        inputs: Paths that it reads, from the project's root on, or absolute on the cluster.
        outputs: Paths that it makes, from the project's root on.
        code: Paths of the project whose change makes it run again; all of it if it is left out.
        batch_size: How many items a call of `process` gets.
        num_workers: How many workers it has, with Ray.
        runtime_env: What it adds to the base environment: `uv` or `pip`, and `env_vars`; None and
            an empty one are the base itself.
    """

    name: str = ""
    command: str | Sequence[str] = ()
    resources: Resources = {}  # noqa: RUF012 - never changed in place
    after: Sequence[str] | None = None
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    code: Sequence[str] = ()
    batch_size: int | None = None
    num_workers: int | None = None
    runtime_env: ClassVar[Mapping[str, Any] | None] = None
    laid: Sequence[Mapping[str, Any]] = ()
    """What was laid over `runtime_env` by `with_`, in order."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """A class with an `__init__` of its own has its name all the same."""
        made = super().__new__(cls)
        made.name = cls.name or cls.__name__
        return made

    def __init__(self, name: str = "", **changes: Any) -> None:
        """See the class."""
        for key, value in changes.items():
            if key not in _ARGUMENTS:
                raise TypeError(f"{key} is no argument of a stage{_nearest(key, _ARGUMENTS)}")
            vars(self)[key] = value
        self.name = name or self.name

    def setup(self) -> None:
        """Prepare a worker; called once on each, before its first batch."""

    def process(self, batch: list[Any]) -> Iterable[Any] | None:
        """Turn a batch of items into what goes on to the next stage, as many as there are.

        Args:
            batch: At most `batch_size` items.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither process nor command")

    def with_(
        self,
        *,
        name: str | None = None,
        resources: Resources | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> Any:
        """A deep copy with these in the place of its own; None keeps what it has.

        An empty `runtime_env` is the base environment; another one replaces what was declared, and
        is laid over it only where it says `merge`.

        Args:
            name: See the class, as for all.
            resources: As above.
            batch_size: As above.
            num_workers: As above.
            runtime_env: As above.
        """
        changed = copy.deepcopy(self)
        given = {
            "name": name,
            "resources": resources,
            "batch_size": batch_size,
            "num_workers": num_workers,
        }
        vars(changed).update((key, copy.deepcopy(v)) for key, v in given.items() if v is not None)
        if runtime_env is not None and runtime_env.get("merge"):
            changed.laid = (*changed.laid, copy.deepcopy(runtime_env))
        elif runtime_env is not None:
            vars(changed).update(runtime_env=copy.deepcopy(runtime_env), laid=())
        return changed

    def parts(self) -> tuple[Stage, ...]:
        """The stages that this is: itself."""
        return (self,)


class Composite(Stage):
    """Stages that are used as one, one behind the other.

    Args:
        name: Its name.
        stages: What it consists of: stages, and composites again.
    """

    def __init__(self, name: str = "", stages: Iterable[Stage] = ()) -> None:
        """See the class."""
        super().__init__(name)
        self.stages = list(stages)

    def parts(self) -> tuple[Stage, ...]:
        """The stages that this is, in order.

        Raises:
            ValueError: Two of them have one name.
        """
        found = tuple(itertools.chain.from_iterable(stage.parts() for stage in self.stages))
        names = [part.name for part in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{self.name} has two stages {twice}: give one another name")
        return found

    def with_(self, changes: Mapping[str, Mapping[str, Any]]) -> Any:  # type: ignore[override]
        """A deep copy whose parts are changed, each as its own `with_` does it.

        Args:
            changes: Names of parts, however deep they are, and what `with_` is to get.

        Raises:
            ValueError: There is no such part, or there are two.
        """
        names = [part.name for part in self.parts()]
        for name in changes:
            if name not in names:
                raise ValueError(f"{self.name} has no stage {name}{_nearest(name, names)}")
        changed = copy.deepcopy(self)
        _change(changed, changes)
        changed.parts()
        return changed


class Pipeline(Composite):
    """Stages, and what goes into the first of them.

    Args:
        name: The pipeline's name.
        stages: In order; each follows the one in front of it, unless its `after` says otherwise.
        items: What the first stage gets, or what gives it; called where the pipeline runs.
    """

    def __init__(
        self,
        name: str,
        stages: Iterable[Stage],
        items: Iterable[Any] | Callable[[], Iterable[Any]] = (),
    ) -> None:
        """See the class."""
        super().__init__(name, stages)
        self.items = items

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            ValueError: There is none.
        """
        found = {part.name: part for part in self.parts()}
        if name not in found:
            raise ValueError(f"{self.name} has no stage {name}{_nearest(name, found)}")
        return found[name]


_ARGUMENTS = (
    *("command", "resources", "after", "inputs", "outputs", "code"),
    *("batch_size", "num_workers", "runtime_env"),
)


def _change(composite: Composite, changes: Mapping[str, Mapping[str, Any]]) -> None:
    for at, stage in enumerate(composite.stages):
        if isinstance(stage, Composite):
            _change(stage, changes)
        elif stage.name in changes:
            composite.stages[at] = stage.with_(**changes[stage.name])


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known) or 'none'}"


# ------------------------------------------------------------ as a declaration
def table(stage: Stage, spec: str, after: Sequence[str], reads: str, keeps: bool) -> dict[str, Any]:
    """The table `[stages.NAME]` that says what a stage does.

    Args:
        stage: The stage.
        spec: `FILE:NAME` of its pipeline.
        after: The stages that it follows where it does not say so itself.
        reads: The Python stage whose items it reads from a file, or empty.
        keeps: Whether what comes out of it is kept in a file; for Python stages.
    """
    found: dict[str, Any] = {"command": stage.command}
    inputs, outputs = [*stage.inputs], [*stage.outputs]
    python = is_python(stage)
    if python:
        found["command"] = (*RUNNER, spec, stage.name)
        inputs += [items_path(reads)] if reads else []
        outputs += [items_path(stage.name)] if keeps else []
    said = {
        "resources": dict(stage.resources),
        "after": list(after if stage.after is None else stage.after),
        "inputs": inputs,
        "outputs": outputs,
        # the file that says what the stage is belongs to it
        "code": [*stage.code, spec.partition(":")[0]] if stage.code and python else [*stage.code],
        "batch_size": stage.batch_size,
        "num_workers": stage.num_workers,
        "runtime_env": stage.runtime_env,
    }
    return found | {key: value for key, value in said.items() if value or value == 0}


def describe(pipeline: Pipeline, spec: str, *, streams: bool = False) -> dict[str, Any]:
    """What a project's configuration would say: the pipeline's name and its tables.

    Args:
        pipeline: The pipeline.
        spec: `FILE:NAME` of it.
        streams: Whether Python stages that stand in a row pass items to each other by themselves;
            else each reads a file that the one in front of it has left.

    Returns:
        `name`, `stages` (name to table) and `laid` (name to what is laid over its `runtime_env`).

    Raises:
        ValueError: Two stages have one name.
    """
    parts = pipeline.parts()
    tables = {}
    reads = ""
    for at, stage in enumerate(parts):
        after = (parts[at - 1].name,) if at else ()
        joined = streams and at > 0 and _joined(parts[at - 1], stage)
        keeps = not (streams and at + 1 < len(parts) and _joined(stage, parts[at + 1]))
        tables[stage.name] = table(stage, spec, after, "" if joined else reads, keeps)
        if is_python(stage):
            reads = stage.name
    laid = {stage.name: list(stage.laid) for stage in parts if stage.laid}
    return {"name": pipeline.name, "stages": tables, "laid": laid}


def _joined(stage: Stage, following: Stage) -> bool:
    """Whether the items of one stage are what the one behind it gets."""
    behind = following.after is None or tuple(following.after) == (stage.name,)
    return is_python(stage) and is_python(following) and behind


def is_python(stage: Stage) -> bool:
    """Whether a stage is a class with `process`, and not a command."""
    return not stage.command


def items_path(name: str) -> str:
    """Where what comes out of a Python stage is kept, below the pipeline's directory."""
    return f"stages/{name}.jsonl"


# ------------------------------------------------------------ where it runs
def load(spec: str) -> Pipeline:
    """The pipeline that `FILE:NAME` names: a variable, or a function that makes it.

    Args:
        spec: A path from the current directory on, a colon and a name; `pipeline` without one.

    Raises:
        ValueError: There is none.
    """
    file, _, name = spec.partition(":")
    path = Path(file).absolute()
    sys.path.insert(0, str(path.parent))
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None or not path.is_file():
        raise ValueError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    pipeline = getattr(module, name or "pipeline", None)
    if callable(pipeline):
        pipeline = pipeline()
    if not isinstance(pipeline, Pipeline):
        raise ValueError(f"{file} has no pipeline named {name or 'pipeline'}")
    return pipeline


def source(pipeline: Pipeline) -> list[Any]:
    """The items that go into the first stage."""
    items = pipeline.items() if callable(pipeline.items) else pipeline.items
    return [checked(item, f"items of {pipeline.name}") for item in items]


def apply(stage: Stage, batch: list[Any]) -> list[Any]:
    """What a stage makes of a batch.

    Args:
        stage: A stage that is set up.
        batch: The items.

    Raises:
        TypeError: Something comes out that is not JSON.
    """
    return [checked(item, f"stage {stage.name}") for item in stage.process(batch) or ()]


def checked(item: Any, by: str) -> Any:
    """An item as it arrives at the next stage.

    Args:
        item: It.
        by: Where it comes from, for messages.

    Raises:
        TypeError: It is not JSON.
    """
    try:
        return json.loads(json.dumps(item))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{by} gives something of type {type(item).__name__}, and only what JSON can hold goes "
            f"on to the next stage ({error}); write it to a file, and hand over its path"
        ) from None


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Items by so many at a time; the last may be fewer."""
    left = iter(items)
    while batch := list(itertools.islice(left, size)):
        yield batch


def read_items(path: str) -> list[Any]:
    """Items as `write_items` left them."""
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_items(path: str, items: Iterable[Any]) -> None:
    """Write items, one a line; the file is there as a whole or not at all."""
    to = Path(path)
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.part-{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(item) + "\n" for item in items)
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)


def run(spec: str, name: str) -> None:
    """Run one Python stage here: from what the one in front of it left to what it leaves.

    Args:
        spec: `FILE:NAME` of its pipeline.
        name: Its name.
    """
    pipeline = load(spec)
    stage = pipeline.stage(name)
    before = None
    for part in pipeline.parts():
        if part.name == name:
            break
        before = part if is_python(part) else before
    items = source(pipeline) if before is None else read_items(items_path(before.name))
    stage.setup()
    made = (apply(stage, batch) for batch in batches(items, stage.batch_size or 1))
    write_items(items_path(name), itertools.chain.from_iterable(made))


def main(words: Sequence[str]) -> int:
    """What `python -m rvstate.stages` does, as `usage` below says it."""
    match words:
        case ["describe", spec, *how] if how in ([], ["streams"]):
            answer = sys.stdout
            # what the file prints while it is read is not the answer
            sys.stdout = sys.stderr
            json.dump(describe(load(spec), spec, streams=bool(how)), answer)
        case ["run", spec, name]:
            run(spec, name)
        case _:
            usage = "describe FILE:NAME [streams], or run FILE:NAME STAGE"
            sys.stderr.write(f"usage: python -m rvstate.stages {usage}\n")
            return 64
    return 0


if __name__ == "__main__":
    # the classes of this module must be those that the pipeline's file imports
    from rvstate.stages import main as imported

    sys.exit(imported(sys.argv[1:]))
