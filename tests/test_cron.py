"""Tables of cron: what is ours is found, and every other byte is kept."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import cron, rcblock
from rvstate.rcblock import Broken

LINES = "17 4 * * * sh /s/.rv/schedule/run remote-cron /s/.rv/schedule\n"
# what people have in their tables, bytes that are no UTF-8 among it
foreign = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))
    | st.sampled_from([chr(c) for c in range(0xDC80, 0xDD00)] + list("\n\n#*%\r\t")),
    max_size=200,
).filter(lambda text: isinstance(rcblock.find(text), rcblock.Missing))
names = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=1, max_size=30)
names = names.filter(lambda name: name.strip() == name and len(name.splitlines()) == 1)


@given(foreign, names)
def test_every_foreign_byte_is_kept(text: str, name: str) -> None:
    """Put in, found, put in again without a change, taken out: the table is what it was."""
    there = cron.put(text, name, LINES)
    assert there.startswith(text)
    assert cron.entry(there, name) == LINES
    assert cron.put(there, name, LINES) == there
    assert cron.put(there, name, "") == text
    assert cron.entry(text, name) is None


@given(foreign, st.lists(names, unique=True, min_size=2, max_size=4))
def test_accounts_share_a_table(text: str, accounts: list[str]) -> None:
    """Each account has its own lines, and takes out no others."""
    table = text
    for number, name in enumerate(accounts):
        table = cron.put(table, name, f"{number} 1 * * * true\n")
    first, *rest = accounts
    table = cron.put(table, first, "")
    assert cron.entry(table, first) is None
    for number, name in enumerate(rest, 1):
        assert cron.entry(table, name) == f"{number} 1 * * * true\n"
    for name in rest:
        table = cron.put(table, name, "")
    assert table == text


@pytest.mark.parametrize(
    ("status", "output", "errors", "text"),
    [
        (0, "# x\n", "", "# x\n"),
        (0, "", "a warning\n", ""),
        (1, "", "no crontab for me\n", ""),
        (1, "no crontab for me\n", "", ""),
        (1, "", "crontab: no crontab for me\n", ""),
    ],
)
def test_what_is_a_table(status: int, output: str, errors: str, text: str) -> None:
    """What was printed, and empty where cron or Slurm say in so many words that there is none."""
    assert cron.table(status, output, errors) == text


@pytest.mark.parametrize(
    ("status", "output", "errors", "reason"),
    [
        (1, "", "You (me) are not allowed to use this program (crontab)\n", "not allowed"),
        (1, "", "scrontab: fatal: slurm_request_crontab failed\n", "slurm_request_crontab"),
        (1, "", "", "said nothing"),
        (1, "5 4 * * * backup\n", "crontab: read error\n", "read error"),
        (1, "5 4 * * * backup\n", "no crontab for me\n", "no crontab for me"),
        (1, "", "no crontab for me\ncrontab: cannot open /var/spool/cron\n", "cannot open"),
        (127, "", "sh: crontab: not found\n", "not found"),
    ],
)
def test_a_failed_read_is_never_empty(status: int, output: str, errors: str, reason: str) -> None:
    """Anything else means that nobody knows what is in it."""
    found = cron.table(status, output, errors)
    assert isinstance(found, Broken)
    assert reason in found.reason


def test_a_damaged_block_is_said() -> None:
    """A beginning without an end is not guessed at."""
    assert isinstance(cron.entry(f"{rcblock.BEGIN}\n", "a"), Broken)


@given(st.lists(st.text(st.characters(blacklist_characters="\0\n"), max_size=20), max_size=3))
def test_the_lines_command_means_its_words(words: list[str]) -> None:
    """Behind the five fields stands a shell command, percent signs escaped for cron."""
    line = cron.daily("04:07", ("printf", "%s\\n", *words))
    assert line.startswith("7 4 * * * printf ")
    command = line.removeprefix("7 4 * * * ").replace("\\%", "%")
    done = subprocess.run(
        ["sh", "-c", command.encode("utf-8", "surrogateescape")], capture_output=True, check=True
    )
    wanted = "".join(f"{word}\n" for word in words) or "\n"
    assert done.stdout == wanted.encode("utf-8", "surrogateescape")


def test_output_goes_to_the_log() -> None:
    """A log is a file whose contents are the last run's."""
    assert cron.daily("23:59", ("a",), log="/x y/log") == "59 23 * * * a >'/x y/log' 2>&1\n"
