"""The experiments on the account: what waits, what runs, what became of the results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rvstate import experiment, overrides, sweep
from rvstate.model.job import RunRecord
from rvstate.slurm.states import FINISHED, JobState
from rvstate.workflows.jobs import listing
from rvstate.workflows.session import Session

# as rv_dvc_tell of remote/dvc.sh says it
_NAMED = re.compile(r"(?:pushed|kept) experiment (.+?)(?: is on the cluster\b.*)?")


@dataclass(frozen=True, slots=True)
class Queued:
    """One experiment.

    Args:
        name: Its name, empty as long as DVC has given it none that is known here.
        job: Its job, or None where nobody heard of one.
        index: Which element of an array, or None.
        state: How far the job is.
        parameters: What `-S` sets, name to value.
        results: `pushed`, `kept` (on the cluster alone), `none`, or empty while it goes on.
        about: That in words.
        run: The run that it belongs to.
        elapsed: Seconds, or None.
        exit_code: The job's own, or None.
    """

    name: str
    job: str | None
    index: int | None
    state: JobState
    parameters: tuple[tuple[str, str], ...]
    results: str
    about: str
    run: RunRecord
    elapsed: int | None = None
    exit_code: int | None = None

    @property
    def is_news(self) -> bool:
        """Whether it goes on, or left something that is not pushed."""
        return self.state not in FINISHED or self.results == "kept"


def queue(session: Session) -> tuple[Queued, ...]:
    """The experiments of the newest runs, newest run first; one remote command."""
    return tuple(experiments(listing.runs(session)))


def experiments(records: Iterable[RunRecord]) -> Iterator[Queued]:
    """Those of these runs that are DVC's, the elements of an array one by one."""
    for run in records:
        if run.command[: len(experiment.WORDS)] != experiment.WORDS or not run.begun:
            continue
        words = run.command[len(experiment.WORDS) :]
        if run.array is None:
            yield _one(
                run, words, run.job, None, run.state, run.results, run.elapsed, run.exit_code
            )
            continue
        for e in run.elements:
            values = (*sweep.values(run.array, e.index), (sweep.INDEX, str(e.index)))
            own = tuple(_filled(word, values) for word in words)
            yield _one(run, own, e.job, e.index, e.state, e.results, e.elapsed, e.exit_code)


def _filled(word: str, values: tuple[tuple[str, str], ...]) -> str:
    known = {f"{{{name}}}": value for name, value in values}
    return re.sub("|".join(map(re.escape, known)), lambda mark: known[mark[0]], word)


def _one(
    run: RunRecord,
    words: tuple[str, ...],
    job: str | None,
    index: int | None,
    state: JobState,
    results: str,
    elapsed: int | None,
    exit_code: int | None,
) -> Queued:
    word, _, about = results.partition(" ") if state in FINISHED else ("", "", "")
    named = _NAMED.fullmatch(results)
    return Queued(
        # where the Git remote had another one of the name that was asked for, it got a new one
        name=(named[1] if named else "") or overrides.called(words),
        job=job,
        index=index,
        state=state,
        parameters=overrides.parameters(words),
        results=word,
        about=about,
        run=run,
        elapsed=elapsed,
        exit_code=exit_code,
    )
