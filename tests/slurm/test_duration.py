import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ConfigError, ParseError
from rvstate.slurm import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90m", 5400),
        ("3d", 259200),
        ("1.5h", 5400),
        ("0.001s", 1),
        ("1d12h", 129600),
        ("45s", 45),
        ("2:59:00", 10740),
        ("1-00:00:00", 86400),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("30:00", 1800),
        ("90:00", 5400),
        (" 2H ", 7200),
    ],
)
def test_what_people_write(text: str, seconds: int) -> None:
    """Each documented spelling means what sbatch(1) would make of it."""
    assert duration.parse(text) == seconds


def test_plain_number_is_refused_with_both_ways_out() -> None:
    """`30` is not guessed at: Slurm would read minutes."""
    with pytest.raises(ConfigError) as caught:
        duration.parse("30")

    assert "write 30m or 0:30:00" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        *("9" * 5000 + "h", "UNLIMITED", "1.h", "1h30"),
        "",
        "h",
        "2x",
        "-1h",
        "2h2h",
        "1:60:00",
        "1-24",
        "1-1:60",
        "0",
        "0h",
        "0:00",
        "1:2:3:4",
        "٣h",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    """Nothing is taken for a time that is none, and no limit is never asked for by accident."""
    with pytest.raises(ConfigError):
        duration.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0),
        ("5:03", 303),
        ("12:00:00", 43200),
        ("7-00:00:00", 604800),
        ("UNLIMITED", None),
        ("infinite", None),
        ("00:01.234", 1),
    ],
)
def test_what_slurm_prints(text: str, seconds: int | None) -> None:
    """squeue, sinfo and sacct spellings are read; no limit is None."""
    assert duration.parse_slurm(text) == seconds


@pytest.mark.parametrize("text", ["", "NOT_SET", "INVALID", "Partition_Limit", "12"])
def test_slurm_words_without_length_are_errors(text: str) -> None:
    """The caller decides what NOT_SET means, not this module."""
    with pytest.raises(ParseError):
        duration.parse_slurm(text)


@given(st.integers(1, 10**9))
def test_written_times_read_back(seconds: int) -> None:
    """Both readers understand what is written for sbatch."""
    assert duration.parse(duration.render(seconds)) == seconds
    assert duration.parse_slurm(duration.render(seconds)) == seconds


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_a_config_error(text: str) -> None:
    """No other exception leaves the reader."""
    try:
        seconds = duration.parse(text)
    except ConfigError:
        return
    assert seconds > 0


def test_render_refuses_less_than_nothing() -> None:
    """A negative length is a bug of the caller."""
    with pytest.raises(ValueError, match="-1"):
        duration.render(-1)
