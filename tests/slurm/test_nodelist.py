import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ParseError
from rvstate.slurm import nodelist


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ""),
        ("(null)", ""),
        ("None assigned", ""),
        ("n1", "n1"),
        ("udc-an28-[1-2,05-07],login1", "udc-an28-1 udc-an28-2 udc-an28-05 udc-an28-06 udc-an28-07"
         " login1"),
        ("a[1-2]b[3-4]", "a1b3 a1b4 a2b3 a2b4"),
        ("r[1-2]-n[01-02]x", "r1-n01x r1-n02x r2-n01x r2-n02x"),
        ("n[8-11]", "n8 n9 n10 n11"),
        ("n[098-101]", "n098 n099 n100 n101"),
        ("b,a,b", "b a b"),
    ],
)  # fmt: skip
def test_expand(text: str, names: str) -> None:
    """Order, repetition and zeros are kept, as scontrol show hostnames does."""
    assert nodelist.expand(text) == tuple(names.split())


@pytest.mark.parametrize(
    "text",
    [
        "n[",
        "n]",
        "n[]",
        "n[2-1]",
        "n[1-]",
        "n[a]",
        ",",
        "a,",
        "a,,b",
        "n[[1]]",
        "n[1-999999999]",
        "n[1-1000][1-1000]",
    ],
)
def test_broken_lists_are_errors(text: str) -> None:
    """A list that is cut in the middle is not half a list, and none fills the memory."""
    with pytest.raises(ParseError):
        nodelist.expand(text)


@given(
    st.text("abcxyz-", min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20), st.integers(1, 5)), min_size=1,
             max_size=4),
)  # fmt: skip
def test_brackets_mean_the_numbers_in_them(prefix: str, ranges: list[tuple[int, int, int]]) -> None:
    """Any list of ranges gives each number once, padded as its first."""
    inside = ",".join(f"{low:0{width}}-{low + more:0{width}}" for low, more, width in ranges)
    expected = [
        f"{prefix}{n:0{max(width, len(str(low)))}}"
        for low, more, width in ranges
        for n in range(low, low + more + 1)
    ]

    assert list(nodelist.expand(f"{prefix}[{inside}]")) == expected


@given(st.lists(st.text("ab1-.", min_size=1, max_size=6), min_size=1, max_size=6))
def test_plain_names_come_back(names: list[str]) -> None:
    """Names without brackets are taken as they are."""
    assert nodelist.expand(",".join(names)) == tuple(names)


@given(st.text("an0123456789[],-", max_size=12))
def test_any_text_is_a_list_or_a_parse_error(text: str) -> None:
    """No other exception leaves the reader."""
    try:
        nodelist.expand(text)
    except ParseError:
        return
