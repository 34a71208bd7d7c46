"""The shell that stays after a look: it takes one more command, whole or not at all, once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate.errors import UnreachableError
from rvstate.script import Script
from rvstate.transport import Ssh
from rvstate.transport.line import held_command, held_input

LOOK = Script("probe", ("/tmp", "", "tool", "sh"), public=True)
STUB = """#!/bin/sh
echo call >>"$SSH_CALLS"
for last; do :; done
eval "$last"
"""
# A connection that is cut as soon as the second command arrives.
CUT = """#!/bin/sh
for last; do [ "$last" != -G ] || exit 255; done
echo call >>"$SSH_CALLS"
sh -c "${last%%; read*}'"
read -r size
echo "$CUT_SAYS" >&2
exit 255
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that runs its command here; where its calls are counted."""
    install(tmp_path, STUB)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SSH_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def install(tmp_path: Path, text: str) -> None:
    """Make this text the program `ssh`."""
    stub = tmp_path / "bin" / "ssh"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text(text)
    stub.chmod(0o755)


def held() -> Ssh:
    """A transport whose last look has left its shell."""
    transport = Ssh("rivanna")
    answer = transport.finish(LOOK, transport.begin(LOOK, hold=True))
    assert answer.first("tool 0").strip().endswith(b"/sh")
    return transport


def count(calls: Path) -> int:
    """How often ssh ran."""
    return len(calls.read_text().splitlines())


def test_the_next_command_needs_no_session(calls: Path) -> None:
    """One ssh, two commands; the third has a session of its own again."""
    transport = held()

    done = transport.execute("printf 'a%s' \"$(cat)\"; exit 3", b"b c\n")

    assert (done.status, done.output) == (3, b"ab c")
    assert (count(calls), transport.commands) == (1, 2)
    assert transport.execute("echo again").output == b"again\n"
    assert (count(calls), transport.commands) == (2, 3)


def test_it_is_the_same_once_pyinfra_is_loaded(calls: Path) -> None:
    """Its pipes never wait; a second look in one process gets its answer all the same."""
    program = """
import rvstate.infra.drive
from rvstate.script import Script
from rvstate.transport import Ssh
look = Script("probe", ("/tmp", "", "tool", "sh"), public=True)
transport = Ssh("rivanna")
for _ in range(2):
    answer = transport.finish(look, transport.begin(look, hold=True))
    assert answer.first("tool 0").strip().endswith(b"/sh")
assert transport.execute("cat; exit 3", b"b c").output == b"b c"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert count(calls) == 2


def test_a_script_and_much_input_go_the_same_way(calls: Path) -> None:
    """What is sent behind the look may be a script, or larger than any pipe."""
    answer = held().run(Script("probe", ("/tmp", "", "tool", "cat")))
    assert answer.first("tool 0").strip().endswith(b"/cat")

    done = held().execute("wc -c", bytes(range(256)) * 2000)

    assert done.output.strip() == b"512000"
    assert count(calls) == 2


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(blacklist_characters="\0\r\n", blacklist_categories=["Cs"]), max_size=40),
    st.binary(max_size=300),
)
def test_command_and_input_arrive_byte_for_byte(text: str, data: bytes) -> None:
    """Whatever is in them, in bytes and not in letters."""
    from rvstate.shell import quote

    line = held_command(":", "ab12")
    sent = held_input(f"printf %s {quote(text)}; cat", "ab12") + data
    done = subprocess.run(["sh", "-c", line], input=sent, capture_output=True, check=True)
    assert done.stdout == text.encode() + data


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh", "tcsh", "fish"])
def test_it_means_the_same_in_every_login_shell(shell: str, tmp_path: Path) -> None:
    """The line is for the account's login shell, whichever that is."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed here")
    line = held_command("echo first; cat", "ab12")
    done = subprocess.run(
        [program, "-c", line],
        input=held_input("cat; exit 4", "ab12") + b"second",
        capture_output=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stdout) == (4, b"first\nsecond")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_command_that_is_cut_short_does_not_run(shell: str, tmp_path: Path) -> None:
    """Cut at any byte, nothing of it runs: half a command may mean something else."""
    assert shutil.which(shell)
    mark = tmp_path / "a"
    whole = held_input(f"touch {mark} {mark}b; exit 9", "ab12")
    line = held_command(":", "ab12")
    for size in range(len(whole)):
        done = subprocess.run([shell, "-c", line], input=whole[:size], check=False)
        assert done.returncode != 9, size
        assert list(tmp_path.iterdir()) == [], size
    assert subprocess.run([shell, "-c", line], input=whole, check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2


def test_a_shell_that_has_ended_is_replaced(calls: Path) -> None:
    """Before anything was sent to it, another session can do no harm."""
    transport = held()
    assert transport._held is not None
    transport._held.child.process.kill()
    transport._held.child.process.wait()

    assert transport.execute("echo here").output == b"here\n"
    assert count(calls) == 2


@pytest.mark.parametrize("says", ["", "Connection closed by 10.0.0.1 port 22"])
def test_what_was_never_answered_is_not_sent_again(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """It may have run, so whoever sent it decides, whatever ssh says."""
    monkeypatch.setenv("CUT_SAYS", says)
    install(tmp_path, CUT)

    with pytest.raises(UnreachableError):
        held().execute("sbatch job.sh")
    assert count(calls) == 1

    with pytest.raises(UnreachableError):
        held().run(Script("execute", ("run", "true")))
    assert count(calls) == 2


def test_a_look_that_fails_is_told_whole(calls: Path) -> None:
    """Its words on standard error are there, and no shell stays."""
    transport = Ssh("rivanna")
    look = Script("probe", ("/tmp", "", "nonsense", "x"), public=True)

    answer = transport.finish(look, transport.begin(look, hold=True))

    assert answer.status != 0
    assert "unknown question" in answer.errors
    assert transport._held is None


def test_a_new_look_ends_the_shell_of_the_one_before(calls: Path) -> None:
    """No two shells wait at once."""
    transport = held()
    former = transport._held
    assert former is not None

    transport.finish(LOOK, transport.begin(LOOK, hold=True))

    assert former.child.process.poll() is not None
    assert transport._held is not former
