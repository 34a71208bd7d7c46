"""Which stages of a pipeline run and which are skipped, and why: by content; pure."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rvstate.errors import ConfigError, ParseError, RefusedError
from rvstate.model.project import File, Tree
from rvstate.model.stage import Pipeline, Stage, overlap
from rvstate.script import Answer

# What decides about a stage beside its files, as its record tells it; in this order it is compared.
_WORDS = {
    "code": "the code has changed",
    "command": "its command has changed",
    "environment": "its environment has changed",
    "variables": "its variables have changed",
}
# Where stages are declared: no code, for what of it concerns a stage is in the stage's own key.
_DECLARATION = "rvstate.toml"
_SHARED_DECLARATION = "pyproject.toml"

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What a stage was made from, and made, when it last succeeded.

    Args:
        run_id: The run that did it.
        key: What decides beside files, by `_WORDS`.
        after: For each stage that it followed the run that had succeeded then.
        inputs: Digests by path.
        outputs: Digests by path.
    """

    run_id: str
    key: Mapping[str, str]
    after: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """What the cluster says of a pipeline.

    Args:
        records: By stage; None for one that was begun and has not succeeded since.
        digests: What files hold now, by path; None where there is nothing.
        active: Stage, run and job of stages that wait or run.
    """

    records: Mapping[str, Record | None]
    digests: Mapping[str, str | None]
    active: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a stage, and why: it may be left out, as it was not selected.

    Args:
        stage: The stage.
        action: What becomes of it.
        reason: Why.
        unless_same: Of one that runs, whether only what other stages make now can be a reason: its
            job looks at that, and ends at once where it came out as it was.
    """

    stage: str
    action: Literal["run", "skip", "leave"]
    reason: str
    unless_same: bool = False

    @property
    def runs(self) -> bool:
        """Whether it is submitted."""
        return self.action == "run"


def select(pipeline: Pipeline, texts: Iterable[str]) -> tuple[str, ...]:
    """The stages that `--stage` names, in order; all where nothing is said.

    Args:
        pipeline: The pipeline.
        texts: `NAME`, `A..B`, `A..` or `..B`: a range goes along the order in which they run.

    Raises:
        ConfigError: There is no such stage, or a range that ends before it begins.
    """
    names = pipeline.names
    found: set[str] = set()
    said = tuple(texts)
    for text in said:
        first, dots, last = text.partition("..")
        for name in filter(None, (first, last)):
            pipeline.stage(name)
        if not first and not last:
            raise ConfigError(f"--stage {text!r} names no stage.", "For example: --stage a..b.")
        begin = names.index(first) if first else 0
        end = (names.index(last) if last else len(names) - 1) if dots else begin
        if end < begin:
            raise ConfigError(
                f"--stage {text}: {last} runs before {first}.", f"Write --stage {last}..{first}."
            )
        found.update(names[begin : end + 1])
    return tuple(name for name in names if name in found) if said else names


def code_digest(stage: Stage, tree: Tree, read: Callable[[str], str | None]) -> str:
    """The digest of the code that a stage depends on: all of it, or what it names.

    What declares the pipeline does not count by itself: a stage that asks for more memory is the
    same stage.

    Args:
        stage: The stage.
        tree: What is sent.
        read: The text of a file of it.
    """
    named = (*stage.code, *code_inputs(stage, tree)) if stage.code else ()
    total = hashlib.sha256()
    for file in tree.files:
        if file.path == _DECLARATION or not (stage.code == () or _within(file.path, named)):
            continue
        digest = file.digest
        if file.path == _SHARED_DECLARATION and file.kind != "l":
            digest = _without_stages(read(file.path) or "") or digest
        total.update(f"{file.kind} {digest} {file.path}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _without_stages(text: str) -> str:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return ""
    tools = table.pop("tool", {})
    table["tool"] = {name: tool for name, tool in tools.items() if name != "rvstate"}
    return _digest(json.dumps(table, sort_keys=True, default=str))


def _within(path: str, above: Iterable[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in above)


def code_inputs(stage: Stage, tree: Tree) -> tuple[str, ...]:
    """Inputs that are sent with the code."""
    return tuple(path for path in stage.inputs if _holds(tree.files, path))


def data_inputs(stage: Stage, tree: Tree) -> tuple[str, ...]:
    """Inputs that are no code: in the pipeline's directory, or anywhere on the cluster."""
    code = {*code_inputs(stage, tree)}
    return tuple(path for path in stage.inputs if path not in code)


def _holds(files: Iterable[File], path: str) -> bool:
    return any(_within(file.path, (path,)) for file in files)


def links(stage: Stage, tree: Tree) -> tuple[str, ...]:
    """Names at the top of the snapshot that lead into the pipeline's directory.

    Raises:
        ConfigError: Code lies there, so the two would mix.
    """
    paths = (*data_inputs(stage, tree), *stage.outputs)
    found = dict.fromkeys(p.split("/")[0] for p in paths if not p.startswith("/"))
    for name in found:
        file = next((f.path for f in tree.files if _within(f.path, (name,))), None)
        if file is not None:
            path = next(p for p in paths if _within(p, (name,)))
            raise ConfigError(
                f"Stage {stage.name} has {path}, and {name} is code, for {file} is sent.",
                "Keep inputs and outputs in a directory of their own, or hold that file back by "
                ".rvignore.",
            )
    return tuple(found)


def key(
    stage: Stage,
    tree: Tree,
    read: Callable[[str], str | None],
    command: tuple[str, ...],
    environment: str,
) -> Key:
    """What decides about a stage beside its files; what it asks of the scheduler does not.

    Args:
        stage: The stage.
        tree: What is sent.
        read: The text of a file of it.
        command: The words that its job runs.
        environment: Names its environment by everything that decides what is in it.
    """
    variables = stage.runtime_env.env_vars if stage.runtime_env is not None else ()
    return (
        ("code", code_digest(stage, tree, read)),
        ("command", _digest(json.dumps(command))),
        ("environment", environment),
        ("variables", _digest(json.dumps(variables))),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def decide(
    pipeline: Pipeline,
    chosen: Iterable[str],
    keys: Mapping[str, Key],
    reads: Mapping[str, tuple[str, ...]],
    known: Known,
    forced: Mapping[str, str],
) -> tuple[Verdict, ...]:
    """What becomes of each stage, in order.

    Args:
        pipeline: The pipeline.
        chosen: Which of its stages are to be made so.
        keys: What decides about each beside its files.
        reads: Its inputs that are no code.
        known: What the cluster says.
        forced: Stages that run whatever has changed, and why.
    """
    selected = {*chosen}
    found: dict[str, Verdict] = {}
    for stage in pipeline.stages:
        name = stage.name
        why = forced.get(name) or _why(pipeline, stage, keys[name], reads[name], known, found)
        if name not in selected:
            said = f"it is not selected, though {why}" if why else "it is not selected"
            found[name] = Verdict(name, "leave", said)
        elif why:
            waits = name not in forced and _unless_same(
                pipeline, stage, keys[name], reads[name], known, found
            )
            found[name] = Verdict(name, "run", why, waits)
        else:
            record = known.records[name]
            assert record is not None
            said = f"nothing has changed since run {record.run_id}"
            found[name] = Verdict(name, "skip", said)
    return tuple(found.values())


def _why(
    pipeline: Pipeline,
    stage: Stage,
    wanted: Key,
    reads: tuple[str, ...],
    known: Known,
    found: Mapping[str, Verdict],
) -> str:
    """Why a stage is to run; empty where it is as it was."""
    if stage.name not in known.records:
        return "it has not run yet"
    record = known.records[stage.name]
    if record is None:
        return "it has not succeeded since it last began"
    for word, value in wanted:
        if record.key.get(word) != value:
            return _WORDS[word]
    for name in pipeline.needs(stage):
        if found[name].runs:
            return f"{name} runs, which it follows"
    return (
        _declared_otherwise(stage, reads, record)
        or _changed(record, known)
        or _followed(pipeline, stage, record, known)
    )


def _declared_otherwise(stage: Stage, reads: tuple[str, ...], record: Record) -> str:
    if {*record.inputs} != {*reads}:
        return "its inputs are declared otherwise"
    if {*record.outputs} != {*stage.outputs}:
        return "its outputs are declared otherwise"
    return ""


def _changed(record: Record, known: Known) -> str:
    for path, digest in record.inputs.items():
        if known.digests.get(path) is None:
            return f"its input {path} is gone"
        if known.digests[path] != digest:
            return f"its input {path} has changed"
    for path, digest in record.outputs.items():
        if known.digests.get(path) is None:
            return f"its output {path} is gone"
        if known.digests[path] != digest:
            return f"its output {path} was changed since it was made"
    return ""


def _followed(pipeline: Pipeline, stage: Stage, record: Record, known: Known) -> str:
    for name in pipeline.needs(stage):
        other = known.records.get(name)
        # where its outputs are read, what they hold decides
        if _reads(stage, pipeline.stage(name)) or other is None:
            continue
        if record.after.get(name) != other.run_id:
            return f"{name} has run since, which it follows"
    return ""


def _reads(stage: Stage, other: Stage) -> bool:
    """Whether a stage reads what another one makes."""
    return any(overlap(a, b) for a in stage.inputs for b in other.outputs)


def _unless_same(
    pipeline: Pipeline,
    stage: Stage,
    wanted: Key,
    reads: tuple[str, ...],
    known: Known,
    found: Mapping[str, Verdict],
) -> bool:
    """Whether a stage that runs does so only for what stages before it may make anew.

    What is not in a file cannot be compared, so a stage that it follows without reading anything
    of it must not run.
    """
    record = known.records.get(stage.name)
    before = [pipeline.stage(name) for name in pipeline.needs(stage) if found[name].runs]
    return (
        record is not None
        and bool(before)
        and all(_reads(stage, other) for other in before)
        and all(record.key.get(word) == value for word, value in wanted)
        and not _declared_otherwise(stage, reads, record)
        and not _followed(pipeline, stage, record, known)
    )


def check_inputs(
    pipeline: Pipeline,
    verdicts: Iterable[Verdict],
    reads: Mapping[str, tuple[str, ...]],
    known: Known,
    data: str,
) -> None:
    """Refuse a stage whose input is neither there nor made before it.

    Args:
        pipeline: The pipeline.
        verdicts: What becomes of each stage.
        reads: Inputs of each that are no code.
        known: What the cluster says.
        data: The pipeline's directory there.

    Raises:
        RefusedError: The first that lacks something, or would read what a failed stage has left.
    """
    decided = {verdict.stage: verdict for verdict in verdicts}
    for stage in pipeline.stages:
        if not decided[stage.name].runs:
            continue
        for path in reads[stage.name]:
            makers = [s for s in pipeline.stages if any(overlap(path, out) for out in s.outputs)]
            for maker in makers:
                # one that never ran here has its outputs from somebody who knows what they are
                begun = maker.name in known.records and known.records[maker.name] is None
                if begun and not decided[maker.name].runs:
                    raise RefusedError(
                        f"Stage {stage.name} needs {path}, which stage {maker.name} makes, and "
                        f"{maker.name} has not succeeded since it last began.",
                        f"Run stage {maker.name} too: what it has left may be half written.",
                    )
            if known.digests.get(path) is not None or any(decided[m.name].runs for m in makers):
                continue
            where = path if path.startswith("/") else f"{data}/{path}"
            raise RefusedError(
                f"Stage {stage.name} needs {path}, and there is nothing at {where}.",
                f"Run stage {makers[0].name} too, which makes it."
                if makers
                else "Copy it there, or send it with the code: an ignore rule may hold it back.",
            )


def read(answer: Answer) -> Known:
    """The answer of `remote/stages.sh` as values.

    Raises:
        ParseError: It is not of the form it should have.
    """
    records: dict[str, Record | None] = {}
    for name, body in answer.sections:
        if name.startswith("record "):
            text = body.decode("utf-8", "surrogateescape").rstrip("\n")
            records[name.removeprefix("record ")] = _record(text)
    digests: dict[str, str | None] = {}
    for line in _lines(answer.first("digests")):
        digest, _, path = line.partition(" ")
        digests[path] = None if digest == "-" else digest
    active = []
    for line in _lines(answer.first("stages")):
        word, *rest = line.split(" ")
        if word != "active" or len(rest) != 3:
            raise ParseError(f"The look at the stages answered {line!r}.", "Run `rvstate doctor`.")
        active.append((rest[0], rest[1], rest[2]))
    return Known(records, digests, tuple(active))


def _lines(body: bytes) -> list[str]:
    return [x for x in body.decode("utf-8", "surrogateescape").split("\n") if x]


def _record(text: str) -> Record | None:
    """A stage's record; None where it is cut, or only says that the stage was begun."""
    lines = text.split("\n")
    if lines[-1] != "//":
        return None
    run_id = ""
    key: dict[str, str] = {}
    listed: dict[str, dict[str, str]] = {"after": {}, "input": {}, "output": {}}
    for line in lines[:-1]:
        word, _, rest = line.partition(" ")
        if word in listed:
            value, _, name = rest.partition(" ")
            listed[word][name] = value
        elif word == "run":
            run_id = rest
        else:
            key[word] = rest
    return Record(run_id, key, listed["after"], listed["input"], listed["output"])
