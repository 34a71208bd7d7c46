import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rvstate import rcblock
from rvstate.errors import ConfigError, RefusedError
from rvstate.rcblock import BEGIN, END, Block, Broken, Missing

BYTES = st.binary(max_size=30).map(lambda raw: raw.decode(errors="surrogateescape"))
LINES = st.lists(
    st.sampled_from(["", "\n", "\r\n", "alias a=b", "# >>> conda", " ", "\r", "é"]), max_size=8
).map("".join)
FOREIGN = (BYTES | LINES).filter(lambda text: BEGIN not in text and END not in text)
BODY = st.sampled_from(["", "x\n", "x", "export A=1\n\nexport B=2\n"])


@given(FOREIGN, BODY)
@example("", "x")
@example("\n", "x")
@example("a", "x")
@example("a\r\n", "x")
@example("a\r", "x")
@example("a\n\n", "x")
def test_taking_it_back_restores_every_byte(text: str, body: str) -> None:
    """remove(replace(t)) == t for a file without our block."""
    assert rcblock.remove(rcblock.replace(text, body)) == text


@given(FOREIGN, BODY, BODY)
def test_twice_is_once(text: str, body: str, other: str) -> None:
    """Writing again changes nothing, and a new body leaves no trace of the old one."""
    once = rcblock.replace(text, body)

    assert rcblock.replace(once, body) == once
    assert rcblock.replace(rcblock.replace(text, other), body) == once


@given(FOREIGN, FOREIGN, BODY, BODY)
def test_foreign_text_is_never_altered(before: str, after: str, old: str, new: str) -> None:
    """What stands before and after the block stays byte for byte."""
    written = rcblock.replace(before, old)
    replaced = rcblock.replace(written + after, new)
    found = rcblock.find(replaced)

    assert isinstance(found, Block)
    assert replaced.startswith(before)
    assert replaced[found.end :] == after
    assert found.body == (new if not new or new.endswith("\n") else new + "\n")


@given(FOREIGN, FOREIGN)
def test_remove_never_joins_lines(before: str, after: str) -> None:
    """A line that was added below the block does not become part of the one above."""
    gone = rcblock.remove(rcblock.replace(before, "x") + after)

    gap = "\n" if after and before and not before.endswith("\n") else ""
    assert gone == before + gap + after


def test_appended_after_one_blank_line() -> None:
    """The block is easy to see, and an empty file gets no blank line."""
    assert rcblock.replace("a\n", "x") == f"a\n\n{BEGIN}\nx\n{END}\n"
    assert rcblock.replace("", "x") == f"{BEGIN}\nx\n{END}\n"


@pytest.mark.parametrize(
    "text",
    [
        f"a\n{BEGIN}\nx\n",
        f"x\n{END}\n",
        f"{END}\n{BEGIN}\n",
        f"{BEGIN}\n{END}\n" * 2,
        f"{BEGIN}\n{BEGIN}\n{END}\n",
    ],
)
def test_damaged_markers_are_refused(text: str) -> None:
    """A missing end never means "to the end of the file"."""
    assert isinstance(rcblock.find(text), Broken)
    with pytest.raises(RefusedError) as caught:
        rcblock.replace(text, "x")
    assert caught.value.remedy
    with pytest.raises(RefusedError):
        rcblock.remove(text)


def test_markers_changed_by_an_editor_are_still_ours() -> None:
    """CRLF and indentation do not make a second block."""
    text = f"a\r\n  {BEGIN}\r\nx\r\n{END} \r\nb\r\n"

    assert rcblock.replace(text, "y") == f"a\r\n{BEGIN}\ny\n{END}\nb\r\n"
    assert rcblock.remove(text) == "a\r\nb\r\n"


def test_mention_in_a_line_is_not_a_marker() -> None:
    """Only whole lines count."""
    assert rcblock.find(f"echo '{BEGIN}'\n{END}x\n") == Missing()


def test_a_missing_blank_line_takes_nothing_with_it() -> None:
    """Where a user removed our blank line, their own line end stays."""
    assert rcblock.remove(f"a\n{BEGIN}\nx\n{END}\nb\n") == "a\nb\n"


def test_markers_in_the_body_are_refused() -> None:
    """Two blocks can never come from one."""
    with pytest.raises(ConfigError):
        rcblock.replace("", f"x\n{END}\n")


def test_a_shell_reads_the_file() -> None:
    """The markers are comments."""
    text = rcblock.replace("A=1", 'B="$A"2')
    done = subprocess.run(["sh"], input=f"{text}printf %s $B", capture_output=True, text=True)

    assert done.stdout == "12"
