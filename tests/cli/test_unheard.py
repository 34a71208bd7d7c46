"""Output that nobody reads any more is no bug of ours."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("wanted", [("--help",), ("no-such-command",)])
def test_a_terminal_that_is_gone(tmp_path: Path, wanted: tuple[str, ...]) -> None:
    """Neither a traceback nor a report is left, whether a text or an error was to be said."""
    master, slave = pty.openpty()
    env = {**os.environ, "TMPDIR": str(tmp_path), "RVSTATE_HOME": str(tmp_path / "home")}
    # it is not the child's own terminal, so its end kills nobody
    started = subprocess.Popen(
        [sys.executable, "-m", "rvstate", *wanted], stdout=slave, stderr=slave, env=env
    )
    os.close(slave)
    os.close(master)
    assert started.wait(60) == 1
    assert not list(tmp_path.glob("rvstate-bug-*"))


def test_a_reader_that_is_gone(tmp_path: Path) -> None:
    """As `| head` does; what goes to standard error is still said, and it is nothing."""
    read, write = os.pipe()
    os.close(read)
    env = {**os.environ, "TMPDIR": str(tmp_path), "RVSTATE_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-m", "rvstate", "--help"]
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, env=env, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
    assert not list(tmp_path.glob("rvstate-bug-*"))
