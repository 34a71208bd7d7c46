"""Which type of GPU a run gets that names none: the scheduler is asked about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rvstate import allocator
from rvstate.allocator import Allocation, Choice, Choices
from rvstate.errors import ParseError, SubmitError
from rvstate.model.job import JobSpec
from rvstate.shell import join, printf_b, quote
from rvstate.slurm import sinfo
from rvstate.slurm.options import SbatchOptions, lines
from rvstate.workflows.questions import Said, ask
from rvstate.workflows.session import Session

# A controller that does not answer holds nobody up for longer.
_PATIENCE = "30"  # seconds
_CLOCK = ("date", "+%s %Y-%m-%dT%H:%M:%S")


def allocate(
    session: Session,
    asked: SbatchOptions,
    choices: Choices,
    single: bool,
    tell: Callable[[str], None],
) -> Allocation:
    """Choose among the types that serve a request, with one remote command.

    Args:
        session: Which account.
        asked: What is asked of the scheduler, whichever type it is.
        choices: The types.
        single: Whether it must be one job.
        tell: Told what is being done, in a few words.

    Raises:
        SubmitError: Slurm would take the job for none of them.
    """
    tell(f"asking when each of {len(choices.found)} types could start")
    names = {f"choice-{n}": choice for n, choice in enumerate(choices.found)}
    questions = {name: _question(_like(asked, c.options)) for name, c in names.items()}
    questions |= {"clock": join(_CLOCK), "nodes": join(sinfo.NODES_COMMAND)}
    answers = ask(session, questions)
    epoch, _, face = (answers["clock"].text or "").strip().partition(" ")
    if not epoch.isdigit():
        raise SubmitError("The cluster did not say what time it is.", "Try again in a minute.")
    clock = (int(epoch), face)
    estimates = tuple(
        allocator.read_estimate(choice, answers[name].status, _all(answers[name]), clock)
        for name, choice in names.items()
    )
    best = allocator.ranked(estimates, clock[0])
    refused = tuple(e for e in estimates if e.refusal)
    if not best:
        said = "; ".join(f"{e.choice.kind}: {e.refusal}" for e in refused)
        raise SubmitError(
            f"Slurm would take this job for no type of GPU ({said}).",
            "Change the options, or ask the site what your account may use.",
        )
    picked = allocator.merged(allocator.chosen(best, clock[0]), _nodes(answers["nodes"]))
    if single:
        picked = picked[:1]
    unit = session.config.site.prices.unit
    return Allocation((*best, *refused), picked, choices.left_out, clock[0], unit)


def with_choices(spec: JobSpec, picked: tuple[Choice, ...]) -> JobSpec:
    """The job with what was chosen; the first of several is the one that its values tell of."""
    chosen = _like(spec.options, picked[0].options)
    several = tuple(choice.words for choice in picked) if len(picked) > 1 else ()
    return replace(spec, options=chosen, choices=several)


def _like(asked: SbatchOptions, choice: SbatchOptions) -> SbatchOptions:
    return replace(
        asked, partition=choice.partition, gpus=choice.gpus, constraint=choice.constraint
    )


def _all(said: Said) -> str:
    return said.body.decode("utf-8", "replace") + said.errors


def _nodes(said: Said) -> tuple[sinfo.Node, ...]:
    """All nodes; none where Slurm did not say, and then nothing is merged."""
    try:
        return sinfo.parse_nodes(said.text or "")
    except ParseError:
        return ()


def _question(options: SbatchOptions) -> str:
    """A command line that asks when such a job could start."""
    text = "\n".join(("#!/bin/bash", *lines(options), "exit 0", ""))
    unset = ("-u", "SBATCH_PARTITION", "-u", "SBATCH_ACCOUNT", "SLURM_TIME_FORMAT=%s")
    words = ("env", *unset, "timeout", _PATIENCE, "sbatch", "--test-only")
    return f"printf %b {quote(printf_b(text.encode()))} | {join(words)}"
