"""Runs of several segments: how many, warned when, and what does not fit."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import batchscript, chain
from rvstate.errors import ConfigError
from rvstate.model.job import Chain, RunRecord
from rvstate.slurm.states import JobState
from rvstate.views.runs import state_word
from rvstate.workflows.jobs import Facts, listing, records
from tests.test_batchscript import SMALL

HOUR = 3600
CHAIN = Chain(3 * 24 * HOUR, 300, "USR1", 0, 60)


def test_a_long_run_is_made_of_segments() -> None:
    """Three days of three hours each: time to save in is taken from each, and there is a bound."""
    found = chain.chain("3d", "", None, 3 * HOUR)
    assert found == Chain(72 * HOUR, 300, "USR1", 0, 2 * 25 + 10)
    more = chain.chain("3d", "USR2@10m", 4, 3 * HOUR)
    assert more == Chain(72 * HOUR, 600, "USR2", 4, 2 * 26 + 14)
    assert chain.chain("", "", None, HOUR) is None


@pytest.mark.parametrize(
    ("total", "signal", "retries", "walltime", "says"),
    [
        ("", "USR1", None, HOUR, "--total-time"),
        ("", "", 2, HOUR, "--total-time"),
        ("3d", "", None, None, "--time"),
        ("1h", "", None, HOUR, "not longer"),
        ("3d", "TERM", None, HOUR, "no warning"),
        ("3d", "USR1@", None, HOUR, "no warning"),
        ("3d", "USR1@30", None, HOUR, "does not fit"),
        ("3d", "USR1@31m", None, HOUR, "does not fit"),
        ("3d", "", None, 100, "does not fit"),
        ("365d", "", None, 600, "At most 1000"),
    ],
)
def test_what_does_not_fit_is_refused(
    total: str, signal: str, retries: int | None, walltime: int | None, says: str
) -> None:
    """Before anything is sent, with the option to use."""
    with pytest.raises(ConfigError) as caught:
        chain.chain(total, signal, retries, walltime)
    assert says in f"{caught.value.message} {caught.value.remedy}"


@settings(max_examples=100, deadline=None)
@given(st.integers(180, 7 * 24 * HOUR), st.integers(1, 900), st.integers(0, 9))
def test_the_bound_leaves_room_for_all_of_the_time(walltime: int, times: int, retries: int) -> None:
    """Never fewer segments than the time needs, each as long as the warning lets it be."""
    total = walltime * times + 1
    try:
        found = chain.chain(str(total), "", retries, walltime)
    except ConfigError:
        return
    assert found is not None
    assert found.most * (walltime - found.lead) >= total
    assert 60 <= found.lead <= 300


def test_the_script_has_its_segments() -> None:
    """A step of its own file, in front of what a visitor of the job does not go through."""
    spec = replace(SMALL, chain=CHAIN)
    text = batchscript.render(spec)
    assert "rv_chain 259200 300 USR1 0 60\n" in text
    assert text.index("rv_chain") < text.index("rv_enter")
    assert "chain.sh" not in batchscript.render(SMALL)


FACT = Facts("41", None, {"name": "x", "chain": {"total": 7200, "lead": 60, "signal": "USR1",
                                                 "retries": 0, "most": 9}})  # fmt: skip


def test_segments_are_one_run() -> None:
    """The time of all of them; RESUBMITTED between two; TIMEOUT where the time is used up."""
    run = listing._base("r", replace(FACT, segments=(2, 3600)))
    run = replace(run, elapsed=60)
    found = listing._in_segments(
        replace(run, state=JobState.RUNNING), replace(FACT, segments=(2, 3600))
    )
    assert (found.elapsed, found.segment, state_word(found)) == (3660, 2, "RUNNING")
    waits = listing._in_segments(
        replace(run, state=JobState.PENDING), replace(FACT, segments=(2, 3600))
    )
    assert (waits.elapsed, state_word(waits)) == (3600, "RESUBMITTED")
    first = listing._in_segments(replace(run, state=JobState.PENDING), FACT)
    assert state_word(first) == "PENDING"
    over = replace(FACT, segments=(2, 7180), used_up=True)
    assert listing._in_segments(replace(run, state=JobState.FAILED), over).state is JobState.TIMEOUT
    assert listing._in_segments(replace(run, state=JobState.CANCELLED), over).state == "CANCELLED"
    plain = RunRecord("r", "1", "x", JobState.RUNNING)
    assert listing._in_segments(plain, FACT) is plain


def test_the_numbers_of_a_run_are_read_as_they_lie() -> None:
    """Segment and seconds from the run's own record; a damaged one is no error."""
    text = "r/job:41\nr/chain:2 3600 1700000000 0\nr/exit:124 1700000000 total\n"
    found = records.read_facts(text)["r"]
    assert (found.segments, found.used_up) == ((2, 3600), True)
    assert records.read_facts("r/chain:\n")["r"].segments == (0, 0)
