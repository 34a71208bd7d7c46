"""`rvstate completion`: the script is the shell's own, and completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(rvstate: Rvstate, shell: str) -> None:
    """Each script calls rvstate back in that shell's way, and the shell can read it."""
    done = rvstate("completion", shell)
    assert done.returncode == 0
    assert f"_RVSTATE_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        check = subprocess.run([shell, "-n"], input=done.stdout, text=True, capture_output=True)
        assert check.returncode == 0, check.stderr


def test_another_shell_is_named_as_unknown(rvstate: Rvstate) -> None:
    """tcsh has no completion, and the sentence lists those that have."""
    done = rvstate("completion", "tcsh")
    assert done.returncode == 64
    assert "fish" in done.stderr


def _completed(rvstate: Rvstate, line: str, word: int) -> list[str]:
    done = rvstate(_RVSTATE_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(word))
    assert done.returncode == 0, done.stderr
    return [entry.split(",", 1)[1] for entry in done.stdout.split()]


def test_commands_subcommands_and_options_are_completed(rvstate: Rvstate) -> None:
    """What can stand there is offered, and nothing else."""
    assert _completed(rvstate, "rvstate con", 1) == ["converge", "config"]
    assert _completed(rvstate, "rvstate env ", 2) == [
        "import",
        "list",
        "rm",
        "set",
        "shell",
        "show",
    ]
    assert "--remove-originals" in _completed(rvstate, "rvstate converge --re", 2)
    assert _completed(rvstate, "rvstate completion f", 2) == ["fish"]


def test_it_completes_in_a_real_bash(rvstate: Rvstate, tmp_path: Path) -> None:
    """The printed script, sourced by bash, fills bash's own list."""
    script = tmp_path / "complete.bash"
    script.write_text(rvstate("completion", "bash").stdout)
    program = tmp_path / "rvstate"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rvstate "$@"\n')
    program.chmod(0o755)
    line = (
        f". {script}; COMP_WORDS=(rvstate doc); COMP_CWORD=1; "
        "_rvstate_completion rvstate; echo ${COMPREPLY[@]}"
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env)
    assert done.stdout == "doctor\n", done.stderr
