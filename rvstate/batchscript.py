"""A job's values as the text of its batch script; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rvstate import sweep
from rvstate.model.job import Array, JobSpec, RayStep, StageStep
from rvstate.model.site import Site
from rvstate.paths import RemotePath
from rvstate.shell import assignment, join, quote
from rvstate.slurm.options import SbatchOptions, lines

# What shellcheck says of words that are meant literally: quotes, dollars and odd blanks in them.
_LITERAL = "SC1003,SC1018,SC1110,SC1111,SC1112,SC2016,SC2088"
_KEYWORDS = frozenset({"then", "elif", "else", "fi", "do", "done", "esac"})

# Seconds for four attempts at an address that does not answer, and Slurm's own delays.
_AFTER_TIME = 600
_AFTER_MEM = 100  # MiB
# The last step, by how the command is started.
_LAST = {
    "": "rv_run",
    "once": "rv_launch_once",
    "node": "rv_launch node",
    "rank": "rv_launch rank",
}


def render(spec: JobSpec) -> str:
    """The batch script: `#SBATCH` lines, then the steps, one a line.

    The steps are those of `remote/job.sh`, for several nodes of `remote/launch.sh`, for several
    segments of `remote/chain.sh`, and for a stage of `remote/stage.sh`.
    It reads as what happens, in order, and passes shellcheck whatever the command was.
    """
    parts = [
        "#!/bin/bash",
        *lines(_common(spec)),
        *(f"# one of several jobs, of which one runs: {join(words)}" for words in spec.choices),
        *_comment(f"rvstate run {spec.run_id}: {spec.note}".rstrip(": ")),
        f"# shellcheck source=/dev/null disable={_LITERAL}",
        f". {quote(spec.library / 'job.sh')} || exit 1",
        f"rv_begin {_words((spec.rv, spec.run_directory, spec.options.name))}"
        # what a part of a long array adds to the index
        + (' "${1:-0}"' if spec.array else ""),
    ]
    if spec.array:
        parts += _array(spec.array, named=spec.dvc is not None)
    if spec.announce:
        parts.append(f"rv_announce {quote(spec.library)}")
    gpus = spec.options.gpus[1] if spec.options.gpus else 1
    if not spec.start and spec.ranks not in (1, gpus):
        parts.append(f"rv_share {spec.ranks}")
    if spec.chain is not None:
        known = spec.chain
        told = (known.total, known.lead, known.signal, known.retries, known.most)
        parts += [
            f". {quote(spec.library / 'chain.sh')} || exit 1",
            f"rv_chain {_words(map(str, told))}",
        ]
    if spec.start:
        numbers = (str(spec.options.nodes or 1), str(spec.ranks), str(spec.node_wait))
        parts += [
            f". {quote(spec.library / 'launch.sh')} || exit 1",
            f"rv_nodes {_words(numbers)}",
        ]
    if spec.modules:
        parts.append(f"rv_modules {_words(spec.modules)}")
    if spec.environment is not None:
        parts.append(f"rv_environment {quote(spec.environment)}")
    if spec.activated:
        parts.append(f"rv_activate {_words(spec.activated)}")
    parts += [assignment(name, value, export=True) for name, value in spec.variables]
    if spec.variables_file is not None:
        parts.append(f"rv_variables {quote(spec.variables_file)}")
    if spec.snapshot is not None:
        # of a run of DVC the workspace counts, which is made from the snapshot
        sources = "" if spec.dvc else spec.sources
        parts.append(f"rv_directory {_words((spec.snapshot, spec.subdirectory, sources))}")
    if spec.stage is not None:
        parts += [f". {quote(spec.library / 'stage.sh')} || exit 1", *_stage(spec.stage)]
    if spec.ray is not None:
        parts += _pipeline(spec.ray, spec.library)
    parts.append("rv_enter")
    if spec.stage is not None:
        same = " unless-same" if spec.stage.unless_same else ""
        parts.append(f"rv_stage_begin {quote(spec.library)}{same}")
    if spec.read_only:
        parts.append("rv_read_only")
    if spec.extensions and spec.dvc is None:
        parts.append("rv_extensions")
    if spec.keep:
        parts.append(f"rv_keep {_words(spec.keep)}")
    if spec.fronted and not spec.start:
        parts += [f". {quote(spec.library / 'launch.sh')} || exit 1", "rv_launchers"]
    if spec.ray is not None:
        counts = (str(spec.ray.nodes), str(spec.ray.copies))
        parts += [
            f". {quote(spec.run_directory / 'ray' / 'ray.sh')} || exit 1",
            f"rv_ray {_words((spec.library, *counts))}",
        ]
    elif spec.dvc is not None:
        parts += _experiment(spec)
    else:
        parts.append(f"{_LAST[spec.start]} {_command(spec)}")
    return "\n".join(parts) + "\n"


def _experiment(spec: JobSpec) -> list[str]:
    from rvstate import experiment, overrides  # only runs of DVC need them

    assert spec.dvc is not None
    words = spec.command[len(experiment.WORDS) :]
    lines = experiment.steps(spec.dvc, spec.library)
    given = overrides.settings(words)
    if given:
        lines.append(f"rv_dvc_parameters {_filled(given, spec.array)}")
    return [*lines, f"rv_dvc {spec.dvc.pull} {_filled(words, spec.array)}".rstrip(" ")]


def _filled(words: tuple[str, ...], array: Array | None) -> str:
    """Arguments of a step; in an array with the element's values in them."""
    return _words(words) if array is None else " ".join(sweep.word(word, array) for word in words)


def _pipeline(ray: RayStep, library: RemotePath) -> list[str]:
    """Where stages that run in one job have their files."""
    found = [
        f". {quote(library / 'stage.sh')} || exit 1",
        assignment("RV_PIPELINE_DIR", ray.data, export=True),
    ]
    return [*found, f"rv_links {_words(ray.links)}"] if ray.links else found


def stage_cases(stages: Iterable[StageStep]) -> str:
    """What each of several stages of one job is: `. FILE NAME` says it, as a job of its own would.

    Args:
        stages: The stages.
    """
    lines = ["# shellcheck shell=bash", 'case "$1" in']
    for stage in stages:
        lines += [f"    {quote(stage.name)})", *(f"        {step}" for step in _stage(stage))]
        lines.append("        ;;")
    return "\n".join((*lines, "esac", ""))


def _stage(stage: StageStep) -> list[str]:
    """What makes the job a stage; the words of its key hold no line break."""
    key = (f"{word} {value}" for word, value in stage.key)
    given = (
        ("rv_stage", (stage.data, stage.name, *key)),
        ("rv_stage_env", tuple(f"{name}={value}" for name, value in stage.variables)),
        ("rv_after", stage.after),
        ("rv_inputs", stage.inputs),
        ("rv_outputs", stage.outputs),
        ("rv_folders", stage.folders),
        ("rv_links", stage.links),
    )
    return [f"{step} {_words(words)}" for step, words in given if words]


def _array(array: Array, named: bool) -> list[str]:
    """The steps of an array; named: checkpoints by parameters, for other sweeps count anew."""
    known = zip(array.sweep, sweep.strides(array), strict=True)
    steps = [
        f"rv_sweep {_words((name, sweep.variable(name), str(stride), *values))}"
        for (name, values), stride in known
    ]
    return [*steps, f"rv_array {len(array.indices)}{' named' if named else ''}"]


def _command(spec: JobSpec) -> str:
    found = spec.array
    if found is None:
        return _words(spec.command)
    return " ".join(sweep.word(word, found) for word in spec.command)


def _common(spec: JobSpec) -> SbatchOptions:
    """What is asked for by the script itself; in what several jobs differ, is said to sbatch."""
    if not spec.choices:
        return spec.options
    return replace(spec.options, partition="", gpus=None, constraint="")


def render_after(
    site: Site,
    *,
    account: str,
    wckey: str,
    library: RemotePath,
    run: RemotePath,
    logs: RemotePath,
    name: str,
) -> str:
    """What runs behind a job, however it ended: the smallest batch script that can tell.

    Under Slurm it is a job of its own (`afterany`); the process scheduler starts it with state and
    exit code.
    """
    options = SbatchOptions(
        name="rvstate-notify",
        account=account,
        wckey=wckey,
        time=_AFTER_TIME,
        ntasks=1,
        cpus_per_task=1,
        mem=_AFTER_MEM,
        output="/dev/null",
        error="/dev/null",
        comment="rvstate-notify",
        export="NONE",
    )
    head = lines(options) if site.scheduler == "slurm" else ()
    errors = quote(f"{logs}/{name}-")
    return "\n".join(
        (
            "#!/bin/bash",
            *head,
            f". {quote(library / 'lib.sh')} || exit 1",
            f". {quote(library / 'notify.sh')} || exit 1",
            f'main ended {quote(run)} {errors} "${{1:--}}" "${{2:-}}"',
            "",
        )
    )


def _words(words: Iterable[str]) -> str:
    """Arguments of a step, so none of them is a command's name."""
    return " ".join(map(_word, words))


def _word(word: str) -> str:
    text = quote(word)
    # plain to a shell as an argument, and to shellcheck an assignment or a misplaced keyword
    return f"'{text}'" if text.startswith(("=", "+=")) or text in _KEYWORDS else text


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in text.splitlines()]
