"""A job's comment: the run's token and the user's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ConfigError
from rvstate.slurm import token

RUN = "20260102-030405-0a1b2c3d"


@given(st.text().filter(str.isprintable))
def test_words_come_back_and_never_hide_the_token(text: str) -> None:
    """Whatever is said behind it, the token is the first word."""
    text = text.strip()
    comment = token.comment(RUN, text)
    assert token.token(comment) == token.of_run(RUN)
    assert token.words(comment) == text


def test_a_comment_of_others_has_no_token() -> None:
    """Jobs that rvstate did not submit are no run's."""
    assert token.token("") == token.token("mine rvstate:x") == ""
    assert token.words("mine rvstate:x") == "mine rvstate:x"


@pytest.mark.parametrize("text", ["a\nb", "a\x1fb", f"like {RUN}", f"rvstate:{RUN}"])
def test_what_could_be_taken_for_a_run_is_refused(text: str) -> None:
    """An id of a run in a comment would make its job that run's; a separator breaks a row."""
    with pytest.raises(ConfigError):
        token.check(text)
