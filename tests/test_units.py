"""Units of systemd and agents of launchd: what is written is what those programs read."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import units

WORDS = (sys.executable, "-m", "rvstate", 'a "b" $HOME %h \\ c', "--cluster", "x y")
plain = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F), max_size=20)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """systemd's own check has nothing to say against them, odd words included."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze on this machine")
    variables = {"RVSTATE_HOME": "/tmp/x y%z"}
    (tmp_path / "rv.service").write_text(units.service("for a@b 100%", WORDS, variables))
    (tmp_path / "rv.timer").write_text(units.timer("for a@b 100%", "04:17"))
    done = subprocess.run(
        [verify, "verify", "--man=no", str(tmp_path / "rv.timer"), str(tmp_path / "rv.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "rv." in line]
    assert (done.returncode, ours) == (0, [])


def test_systemds_words() -> None:
    """Quotes, percent signs, dollars and backslashes are systemd's own to read."""
    text = units.service("t", ("/bin/x", 'a"b', "$c", "%d", "\\e", "f g"), {"A": "$b%c"})
    assert 'ExecStart="/bin/x" "a\\"b" "$$c" "%%d" "\\\\e" "f g"' in text
    assert 'Environment="A=$b%%c"' in text


def test_the_timer_is_daily_and_makes_up() -> None:
    """A day that the machine slept through is made up for."""
    text = units.timer("t", "04:17")
    assert "OnCalendar=*-*-* 04:17:00" in text
    assert "Persistent=true" in text


@given(st.lists(plain, min_size=1, max_size=4), st.dictionaries(plain, plain, max_size=2))
def test_launchds_list_holds_the_words(words: list[str], variables: dict[str, str]) -> None:
    """What Python's reader of property lists finds is what was put in."""
    found = plistlib.loads(units.agent("l", "04:17", words, variables, "/x").encode())
    assert found["ProgramArguments"] == words
    assert found["EnvironmentVariables"] == variables
    assert found["StartCalendarInterval"] == {"Hour": 4, "Minute": 17}
    assert "RunAtLoad" not in found
