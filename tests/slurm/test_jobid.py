import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ParseError
from rvstate.slurm import jobid

SPELLINGS = [
    *("12", "12_3", "12_0", "12_[0-9%2]", "12_[1,3,5-7]", "12_[1-5,...]", "12_[0-15:4]"),
    *("12+1", "12+0", "12;cluster", "12_3;c-1.x", "12.batch", "12.0", "12_3.extern", "12+1.0"),
    *("12.interactive", "12.0+1", "4294967295"),
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_round_trips(text: str) -> None:
    """What Slurm prints is written back the same."""
    assert str(jobid.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "0", "012", "-1", "12_", "12_[", "12_[]", "a", "12 13", "12;", "12.", "१२", "1" * 99],
)
def test_anything_else_is_an_error(text: str) -> None:
    """A digit fragment or a cut id is never taken for a job."""
    with pytest.raises(ParseError):
        jobid.parse(text)


def test_parts() -> None:
    """Base, index and step are there to be asked for."""
    task = jobid.parse("12_3.extern")

    assert (task.base, task.array_index, task.step) == (12, 3, "extern")
    assert str(task.job) == "12_3"
    assert jobid.parse("12_[0-9%2]").array_index is None
    assert jobid.parse("12").array_index is None


@given(
    st.builds(
        jobid.JobId,
        base=st.integers(1, 2**32),
        array=st.sampled_from(["", "0", "7", "[0-9%2]"]),
        het=st.none() | st.integers(0, 99),
        step=st.sampled_from(["", "batch", "extern", "0", "12", "0+1"]),
        cluster=st.sampled_from(["", "rivanna", "c-1"]),
    )
)
def test_values_read_back(job: jobid.JobId) -> None:
    """Every value survives being written and read."""
    assert jobid.parse(str(job)) == job


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("12345\n", "12345"),
        ("12345;rivanna\n", "12345;rivanna"),
        ("Welcome to Rivanna\n** 3 messages **\n\n12345\r\n\n", "12345"),
    ],
)
def test_submitted(text: str, job: str) -> None:
    """The id is found below a site's noise."""
    assert str(jobid.parse_submitted(text)) == job


@pytest.mark.parametrize(
    "text", ["", "\n", "sbatch: error: no", "12345\nlogout", "12.batch", "12_3", "Job 12"]
)
def test_submitted_nothing(text: str) -> None:
    """Where sbatch did not answer with an id, none is made up."""
    with pytest.raises(ParseError):
        jobid.parse_submitted(text)
