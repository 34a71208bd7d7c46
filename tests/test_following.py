"""What `--after` means: decided before anything is submitted, and said afterwards."""

from dataclasses import replace

import pytest

from rvstate import following
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.job import Dependency, RunRecord
from rvstate.slurm.options import SbatchOptions, lines
from rvstate.slurm.states import FINISHED, JobState

FIRST = RunRecord("r1", "12", "prepare", JobState.RUNNING)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("prepare", ("prepare", "ok")),
        ("12:any", ("12", "any")),
        ("12:failed", ("12", "failed")),
        ("a:b", ("a:b", "ok")),
        ("a:b:any", ("a:b", "any")),
        ("any", ("any", "ok")),
    ],
)
def test_a_run_is_named_with_a_condition(text: str, meant: tuple[str, str]) -> None:
    """Success is meant where nothing is said; names may hold colons."""
    assert following.parse(text) == meant


@pytest.mark.parametrize("text", ["", ":any"])
def test_no_run_is_an_error(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match="names no run"):
        following.parse(text)


@pytest.mark.parametrize("state", sorted(FINISHED))
@pytest.mark.parametrize("when", ["ok", "any", "failed"])
def test_what_cannot_come_true_is_refused(state: JobState, when: str) -> None:
    """Slurm would start it at once where it has forgotten the first; so it is decided here."""
    good = when == "any" or (when == "ok") == (state == "COMPLETED")
    record = replace(FIRST, state=state)
    if good:
        found = following.dependency(record, when)
        assert following.option([found], {"r1": state}) == ""
    else:
        with pytest.raises(RefusedError, match=f"is {state}"):
            following.dependency(record, when)


def test_what_nobody_knows_is_not_followed() -> None:
    """UNKNOWN is never taken for an end, and a run without a job for one that has it."""
    with pytest.raises(RefusedError, match="Nobody knows"):
        following.dependency(replace(FIRST, state=JobState.UNKNOWN), "any")
    with pytest.raises(RefusedError, match="never became a job"):
        following.dependency(replace(FIRST, job=None), "any")


def test_slurm_is_told_and_asked_to_cancel_what_cannot_start() -> None:
    """Several runs are one option, and an impossible job does not wait for ever."""
    found = [Dependency("r1", "a", "12", "ok"), Dependency("r2", "b", "13", "failed")]
    text = following.option(found, {"r1": JobState.RUNNING, "r2": JobState.PENDING})
    assert text == "afterok:12,afternotok:13"
    said = lines(SbatchOptions(dependency=text))
    assert said == (
        "#SBATCH --dependency=afterok:12,afternotok:13",
        "#SBATCH --kill-on-invalid-dep=yes",
    )


@pytest.mark.parametrize(
    ("first", "state", "elapsed", "said"),
    [
        (JobState.RUNNING, JobState.PENDING, None, "waits for prepare (12) and starts if that"),
        (JobState.FAILED, JobState.CANCELLED, 0, "it never started: it was to follow prepare (12)"),
        (JobState.FAILED, JobState.CANCELLED, None, "and it is FAILED"),
        (JobState.RUNNING, JobState.CANCELLED, 0, ""),
        (JobState.COMPLETED, JobState.CANCELLED, 0, ""),
        (JobState.FAILED, JobState.CANCELLED, 5, ""),
        (JobState.COMPLETED, JobState.RUNNING, 5, ""),
    ],
)
def test_why_it_waits_or_never_started_is_said(
    first: JobState, state: JobState, elapsed: int | None, said: str
) -> None:
    """Only where the other run is the reason: what the user cancelled is not explained so."""
    records = (
        RunRecord("r2", "13", "train", state, elapsed=elapsed,
                  after=(Dependency("r1", "prepare", "12", "ok"),)),
        replace(FIRST, state=first),
    )  # fmt: skip
    found = following.waiting(records, records[0])
    assert (said in found) if said else found == ""
