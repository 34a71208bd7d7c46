"""`rvstate env`: values come in without loss and are never shown unasked."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "s3cr3t 'q' \"d\" $HOME #no\n second line\t`x`"


def _kept(rv_home: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((rv_home / "env.json").read_text())["vars"]
    return found


@pytest.mark.parametrize("value", [("-",), ()])
def test_a_value_from_standard_input_is_kept_whole(
    rvstate: Rvstate, rv_home: Path, value: tuple[str, ...]
) -> None:
    """Quotes, `$`, `#` and line breaks survive; one line break at the end is the pipe's."""
    done = rvstate("env", "set", "A", *value, text=SECRET + "\n")
    assert done.returncode == 0, done.stderr
    assert _kept(rv_home) == {"A": SECRET}
    assert "s3cr3t" not in done.stdout + done.stderr


def test_a_value_on_the_command_line_is_kept_with_a_hint(rvstate: Rvstate, rv_home: Path) -> None:
    """It works, and the user learns that the shell's history has it now."""
    done = rvstate("env", "set", "A", SECRET)
    assert _kept(rv_home) == {"A": SECRET}
    assert "history" in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr


def test_an_empty_value_is_given_on_purpose(rvstate: Rvstate, rv_home: Path) -> None:
    """Nothing piped in and nobody to ask is no empty value."""
    done = rvstate("env", "set", "A")
    assert done.returncode == 64
    assert "no value for A" in done.stderr
    assert not (rv_home / "env.json").exists()
    assert rvstate("env", "set", "A", "").returncode == 0
    assert _kept(rv_home) == {"A": ""}


def test_a_person_is_asked_and_the_answer_is_not_shown(rv_home: Path) -> None:
    """On a terminal the value is typed blind."""
    master, slave = pty.openpty()
    env = {**os.environ, "RVSTATE_HOME": str(rv_home)}
    argv = [sys.executable, "-m", "rvstate", "env", "set", "A"]
    process = subprocess.Popen(
        argv,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env,
        close_fds=True,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(slave)
    seen = b""
    while b"A:" not in seen:
        seen += os.read(master, 1024)
    os.write(master, b"typed-s3cr3t\n")
    while True:
        try:
            chunk = os.read(master, 1024)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait() == 0
    os.close(master)
    assert _kept(rv_home) == {"A": "typed-s3cr3t"}
    assert b"s3cr3t" not in seen


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("name", ["1A", "A-B", "A B", "", "é", "A=B", "UID"])
def test_a_name_that_no_variable_can_have_is_refused(
    rvstate: Rvstate, rv_home: Path, name: str
) -> None:
    """A name is checked before a value is asked for."""
    done = rvstate("env", "set", name, "x")
    assert done.returncode == 64
    assert not (rv_home / "env.json").exists()


def test_the_list_shows_no_character_of_a_value(rvstate: Rvstate) -> None:
    """Names and whether there is something; in JSON the length as well."""
    rvstate("env", "set", "TOKEN", "-", text="hunter2")
    rvstate("env", "set", "EMPTY", "")
    done = rvstate("env", "list")
    assert done.stdout == "EMPTY  (empty)\nTOKEN  (set)\n"
    document = json.loads(rvstate("env", "list", "--json").stdout)
    assert document["variables"] == [
        {"name": "EMPTY", "length": 0},
        {"name": "TOKEN", "length": 7},
    ]
    assert "hunter2" in rvstate("env", "list", "--show").stdout
    shown = json.loads(rvstate("env", "list", "--json", "--show").stdout)
    assert shown["variables"][1]["value"] == "hunter2"


def test_removing_takes_all_or_none(rvstate: Rvstate, rv_home: Path) -> None:
    """One name that is not there means that nothing goes, and the nearest is named."""
    rvstate("env", "set", "ALPHA", "1")
    rvstate("env", "set", "BETA", "2")
    done = rvstate("env", "rm", "ALPHA", "BETTA")
    assert done.returncode == 64
    assert "Did you mean BETA?" in done.stderr
    assert sorted(_kept(rv_home)) == ["ALPHA", "BETA"]
    assert rvstate("env", "rm", "ALPHA", "BETA").returncode == 0
    assert _kept(rv_home) == {}


def test_a_dotenv_file_is_imported_whole_or_not_at_all(
    rvstate: Rvstate, rv_home: Path, tmp_path: Path
) -> None:
    """A line that cannot be read is named by number, without its text, and nothing is set."""
    file = tmp_path / ".env"
    file.write_text("# mine\nexport A='x # y'\nB=\"l1\\nl2\" # note\nC=$HOME\n")
    document = json.loads(rvstate("env", "import", "--json").stdout)
    assert document["added"] == ["A", "B", "C"]
    assert _kept(rv_home) == {"A": "x # y", "B": "l1\nl2", "C": "$HOME"}
    file.write_text("A=2\nhunter2\n")
    done = rvstate("env", "import")
    assert done.returncode == 64
    assert "Line 2" in done.stderr
    assert "hunter2" not in done.stderr
    assert _kept(rv_home)["A"] == "x # y"


def test_a_missing_or_empty_file_is_told(rvstate: Rvstate, tmp_path: Path) -> None:
    """Importing nothing is an error, so that a script notices."""
    assert rvstate("env", "import", "nothing.env").returncode == 64
    (tmp_path / "empty.env").write_text("# only a comment\n")
    assert "holds no variables" in rvstate("env", "import", "empty.env").stderr


@pytest.mark.slow
def test_eight_terminals_at_once_keep_eight(rvstate: Rvstate, rv_home: Path) -> None:
    """Eight `env set` at the same time lose none."""
    env = {**os.environ, "RVSTATE_HOME": str(rv_home)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "rvstate", "env", "set", f"V{n}", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=env,
        )
        for n in range(8)
    ]
    assert [process.wait() for process in running] == [0] * 8
    assert sorted(_kept(rv_home)) == [f"V{n}" for n in range(8)]


def test_what_is_kept_is_brought_at_once_when_asked(rvstate: Rvstate, rv_home: Path) -> None:
    """--now converges the environment file; a second --now has nothing to do."""
    first = json.loads(rvstate("env", "set", "A", "-", "--now", "--json", text=SECRET).stdout)
    assert first["converged"] is True
    file = rv_home / "local" / "scratch" / ".rv" / "env" / "user.env"
    sourced = subprocess.run(
        ["sh", "-c", '. "$1"; printf %s "$A"', "sh", str(file)], capture_output=True, text=True
    )
    assert sourced.stdout == SECRET
    assert file.stat().st_mode & 0o777 == 0o600
    again = json.loads(rvstate("env", "set", "A", "-", "--now", "--json", text=SECRET).stdout)
    assert again["same"] == ["A"]
    assert again["converged"] is True
