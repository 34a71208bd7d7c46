"""Moments that Slurm reads; which ones, was asked of sbatch --test-only of Slurm 22.05."""

import pytest

from rvstate.errors import ConfigError
from rvstate.slurm import when

TAKEN = (
    *("now", "now+60", "now+1hour", "now+5minutes", "now+2days", "today", "tomorrow", "midnight"),
    *("noon", "fika", "teatime", "16:00", "16:00:30", "4:00PM", "4:00 pm", "2027-01-20"),
    *("2027-01-20T12:34", "2027-01-20T12:34:00", "01/20", "01/20/27", "01.20", "01.20.27"),
    *("0120", "012027", "01/20-12:30", "01/20/27-12:30:10", "012027-10:00", "TOMORROW", "02/29"),
)
REFUSED = (
    *("", "soon", "2h", "now+1h", "now-1hour", "25:00", "16:60", "13:00PM", "13/20", "2027-1-2"),
    *("2027-01-20T25:00", "tomorrow\n", "16:00; rm", "now+", "2027-02-30", "x16:00", "elevenses"),
)


@pytest.mark.parametrize("text", TAKEN)
def test_what_slurm_reads_is_taken(text: str) -> None:
    """Each form of sbatch(1) passes."""
    when.check("--begin", text)


@pytest.mark.parametrize("text", REFUSED)
def test_what_slurm_would_not_read_is_named(text: str) -> None:
    """A day that does not exist is refused as well, which Slurm takes for another one."""
    if text.endswith("\n"):
        text = f"{text}x"
    with pytest.raises(ConfigError) as caught:
        when.check("--deadline", text)
    assert "--deadline" in caught.value.message
    assert "2026-12-01T08:00" in caught.value.remedy
