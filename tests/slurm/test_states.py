import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ParseError
from rvstate.slurm import states
from rvstate.slurm.states import JobState


def test_each_state_is_in_one_set_and_unknown_in_none() -> None:
    """Unknown is a state of its own: neither running nor finished."""
    sets = [states.WAITING, states.RUNNING, states.FINISHED]

    for state in JobState:
        assert sum(state in one for one in sets) == (state is not JobState.UNKNOWN)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("PENDING", JobState.PENDING),
        ("running", JobState.RUNNING),
        ("CG", JobState.COMPLETING),
        ("OOM", JobState.OUT_OF_MEMORY),
        ("CANCELLED by 1234", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("OUT_OF_ME+", JobState.OUT_OF_MEMORY),
        ("COMPL+", JobState.UNKNOWN),  # COMPLETED or COMPLETING
        ("", JobState.UNKNOWN),
        ("?", JobState.UNKNOWN),
        ("SOMETHING_OF_2030", JobState.UNKNOWN),
    ],
)
def test_parse(text: str, state: JobState) -> None:
    """Long, compact and cut spellings are read, and new ones do not break anything."""
    assert states.parse(text) is state


@given(st.sampled_from(JobState))
def test_names_read_back(state: JobState) -> None:
    """Every state is read from its own name."""
    assert states.parse(state.value) is state


@pytest.mark.parametrize(
    ("state", "text", "code"),
    [
        ("COMPLETED", "0:0", 0),
        ("FAILED", "3:0", 3),
        ("FAILED", "0:9", 137),
        ("FAILED", "1:15", 143),
        ("FAILED", "0:0", 1),
        ("FAILED", "256:0", 1),
        ("FAILED", "0:125", 137),
        ("TIMEOUT", "0:0", 124),
        ("DEADLINE", "0:0", 124),
        ("OUT_OF_MEMORY", "0:125", 137),
        ("CANCELLED", "0:0", 143),
        ("PREEMPTED", "0:0", 143),
        ("NODE_FAIL", "0:0", 1),
        ("BOOT_FAIL", "0:0", 1),
        ("REVOKED", "0:0", 1),
        ("UNKNOWN", "", 1),
    ],
)
def test_exit_status(state: str, text: str, code: int) -> None:
    """Only a completed job ends a follower with 0."""
    assert states.exit_status(JobState[state], text) == code


def test_only_completed_is_success() -> None:
    """No other finished state can look like success, whatever the exit code says."""
    for state in states.FINISHED - {JobState.COMPLETED}:
        assert states.exit_status(state, "0:0") != 0


def test_exit_status_of_nonsense() -> None:
    """A text of another form is an error, and a job that still runs has no exit status."""
    with pytest.raises(ParseError):
        states.exit_status(JobState.FAILED, "x")
    with pytest.raises(ValueError, match="RUNNING"):
        states.exit_status(JobState.RUNNING, "0:0")
