import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rvstate.errors import ParseError
from rvstate.slurm.rows import SEPARATOR, epoch, split_lines, split_rows

WORD = st.text(st.characters(blacklist_characters=SEPARATOR + "\n", codec="utf-8"), max_size=5)
FREE = st.text(st.characters(blacklist_characters=SEPARATOR, codec="utf-8"), max_size=8)
ROW = st.tuples(st.integers(1, 99).map(str), WORD, FREE, FREE)


@given(st.lists(ROW, max_size=5))
@example([("1", "", "\n0", "")])
def test_free_text_cannot_move_a_field(rows: list[tuple[str, ...]]) -> None:
    """Line breaks, bars and spaces in names and comments stay where they are."""
    text = "".join("".join(field + SEPARATOR for field in row) + "\n" for row in rows)

    assert split_rows(text, 4) == tuple(rows)


def test_a_separator_in_the_last_field_is_part_of_it() -> None:
    """The strangest of names spoils no other field."""
    text = "1\x1fa\x1fx\x1fy\x1f\n2\x1fb\x1fz\x1f\n"

    assert split_rows(text, 3) == (("1", "a", "x\x1fy"), ("2", "b", "z"))


def test_noise_is_an_error() -> None:
    """Text that is not the table is not read as one."""
    with pytest.raises(ParseError):
        split_rows("squeue: error\n", 3)
    with pytest.raises(ParseError):
        split_lines("a\x1fb\x1f\n", 3)


def test_nothing_is_no_rows() -> None:
    """An empty queue is not an error."""
    assert split_rows("", 3) == split_rows("\n", 3) == split_lines("", 3) == ()


def test_epoch_never_guesses_a_time_zone() -> None:
    """A clock time, which a wrapper that drops SLURM_TIME_FORMAT would print, is refused."""
    assert epoch("1795233778") == 1795233778
    assert epoch("N/A") is epoch("Unknown") is epoch("None") is None
    with pytest.raises(ParseError):
        epoch("2026-11-21T03:00:00")
