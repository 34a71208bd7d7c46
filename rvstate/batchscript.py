"""A job's values as the text of its batch script; pure."""

from __future__ import annotations

from rvstate.model.job import JobSpec
from rvstate.shell import assignment, join, quote
from rvstate.slurm.options import lines


def render(spec: JobSpec) -> str:
    """The batch script: `#SBATCH` lines, then the steps of `remote/job.sh`, one a line.

    It reads as what happens, in order, and passes shellcheck whatever the command was.
    """
    parts = [
        "#!/bin/bash",
        *lines(spec.options),
        *_comment(f"rvstate run {spec.run_id}: {spec.note}"),
        "# shellcheck source=/dev/null",
        f". {quote(spec.library / 'job.sh')} || exit 1",
        f"rv_begin {join((spec.rv, spec.run_directory, spec.options.name))}",
    ]
    if spec.modules:
        parts.append(f"rv_modules {join(spec.modules)}")
    if spec.environment is not None:
        parts.append(f"rv_environment {quote(spec.environment)}")
    parts += [assignment(name, value, export=True) for name, value in spec.variables]
    if spec.variables_file is not None:
        parts.append(f"rv_variables {quote(spec.variables_file)}")
    if spec.snapshot is not None:
        parts.append(f"rv_directory {join((spec.snapshot, spec.subdirectory, spec.sources))}")
    if spec.keep:
        parts.append(f"rv_keep {join(spec.keep)}")
    parts.append(f"rv_run {join(spec.command)}")
    return "\n".join(parts) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in text.splitlines()]
