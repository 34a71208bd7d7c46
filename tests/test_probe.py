"""The look's questions, and its answer read as values."""

from __future__ import annotations

import pytest

from rvstate import desired, probe
from rvstate.errors import ProbeError
from rvstate.model.layout import SYMBOLIC
from rvstate.model.observed import Absent, Present, Space, Tree, Unreadable
from rvstate.model.settings import Settings
from rvstate.model.site import Site
from rvstate.script import Answer

ACCOUNT = (
    b"user u\0uid 1000\0home /home/u\0scratch /scratch/u\0shell /bin/bash\0node n1\0clock 100\n"
)


def answer(*sections: tuple[str, bytes], status: int = 0, account: bytes = ACCOUNT) -> Answer:
    return Answer(status, (("account", account), *sections), "no such user")


def test_each_question_once() -> None:
    """What several resources want to know is asked once."""
    asked = probe.questions(desired.account(Settings(), Site("s", "s"), SYMBOLIC, {"A": "1"}))
    assert len(asked) == len(set(asked))
    assert ("stat", "/{home}/.cache") in asked
    assert ("tool", "rsync") in asked
    assert not any("1" in value for _, value in asked if value.endswith("user.env"))


def test_symbolic_roots_become_real() -> None:
    """Answers carry the number of their question, and its path with the real roots."""
    asked = (("text", "/{home}/.bashrc"), ("tree", "/{scratch}/x"), ("text", "/{home}2/x"))
    seen = probe.read(answer(("text 0", b"a"), ("tree 1", b"2048 3\n"), ("text 2", b"c")), asked)
    assert seen.texts == {"/home/u/.bashrc": "a", "/{home}2/x": "c"}
    assert seen.trees == {"/scratch/u/x": Tree(2048, 2)}


def test_entries() -> None:
    """Entries by NUL, so that no name can be mistaken for another line."""
    body = b"d 755 1000 40 d /a b\0\0l 777 1 9 N /l\0to\nnowhere\0s 600 0 0 s /sock\0\0\n"
    seen = probe.read(answer(("stat_all", body)), ())
    assert seen.entry("/a b") == Present("d", 0o755, 1000, 40, "", "d")
    assert seen.entry("/l") == Present("l", 0o777, 1, 9, "to\nnowhere", "N")
    assert seen.entry("/sock") == Present("o", 0o600, 0, 0, "", "s")
    assert seen.entry("/else") == Absent()


def test_a_closed_door_overrules_absence() -> None:
    """What lies behind a closed door is not taken for absent."""
    seen = probe.read(answer(("unreadable 0", b"/closed")), (("stat", "/closed/x"),))
    assert seen.entry("/closed/x") == Unreadable("/closed")


def test_digests_with_escaped_names() -> None:
    """sha256sum marks a name that it had to escape with a backslash in front."""
    body = b"aa  /plain\n\\bb  /back\\\\slash\n"
    seen = probe.read(answer(("rv_sha256", body)), ())
    assert seen.digests == {"/plain": "aa", "/back\\slash": "bb"}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (b"100 50 7 /mnt/a b\n", Space("/mnt/a b", 102400, 7)),
        (b"100 0 0 /btrfs\n", Space("/btrfs", 102400, None)),
        (b"100 - - /fuse\n", Space("/fuse", 102400, None)),
        (b"0 10 0 /full\n", Space("/full", 0, 0)),
    ],
)
def test_space(table: bytes, expected: Space) -> None:
    """df's figures: bytes, and inodes where the file system counts them."""
    assert probe.read(answer(("space_all", b"/x\0" + table)), ()).spaces == {"/x": expected}


@pytest.mark.parametrize("table", [b"", b"- 1 1 /x\n", b"1 1 1 /a\n2 2 2 /b\n"])
def test_unknown_space_is_not_zero(table: bytes) -> None:
    """Where df does not answer, room is unknown, not none: nothing is refused for it."""
    assert probe.read(answer(("space_all", b"/x\0" + table)), ()).spaces == {}


def test_a_large_text_is_no_text() -> None:
    """A text that was cut at the limit is not taken for the whole."""
    seen = probe.read(answer(("text 0", b"x" * ((1 << 20) + 1))), (("text", "/rc"),))
    assert seen.texts == {}


def test_who_is_missing() -> None:
    """An answer that does not say who we are is an error with what to do next."""
    for account in (b"", b"user u\0uid x\0", ACCOUNT.replace(b"clock 100", b"")):
        with pytest.raises(ProbeError, match="did not say who we are") as caught:
            probe.read(answer(account=account), ())
        assert caught.value.remedy


def test_a_failed_look() -> None:
    """A look that failed is an error with its reason, not an empty account."""
    with pytest.raises(ProbeError, match="no such user"):
        probe.read(answer(status=1), ())


def test_a_garbled_entry() -> None:
    """An entry of another form is an error."""
    with pytest.raises(ProbeError, match="not a file's state"):
        probe.read(answer(("stat_all", b"d 755\0\0")), ())
