"""usage.sh: every byte of ours once, in whichever shell the login node has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rvstate.script import Script, read_answer
from rvstate.workflows.usage import Place, read
from tests.runkit import write


@pytest.mark.parametrize("shell", [("sh",), ("bash", "--posix"), ("bash",)], ids=" ".join)
def test_places_are_told_apart(tmp_path: Path, shell: tuple[str, ...]) -> None:
    """By project and branch; a link is no place; what has two names counts once."""
    scratch = tmp_path / "scr atch"
    write(scratch, {"rv-workspaces/p/b/code/x": "x" * 5000, ".cache/uv/w": "x" * 9000})
    write(scratch, {".rv/envs/p/.generations/b/d/y": "y"})
    os.link(scratch / ".cache/uv/w", scratch / ".rv/envs/p/.generations/b/d/w")
    (scratch / ".cache/shared").symlink_to(tmp_path)
    script = Script("usage", (str(scratch), ""))
    done = subprocess.run([*shell, "-s"], input=script.text.encode(), capture_output=True)
    answer = read_answer(script.nonce, done.stdout)
    assert answer is not None, done.stderr
    places, unreadable = read(answer.first("places"))
    assert unreadable == 0
    inodes = {(place.kind, place.name): place.inodes for place in places}
    assert inodes == {("code", "p/b"): 3, ("environment", "p/b"): 4, ("cache", "uv"): 1}
    assert next(p.size for p in places if p.kind == "environment") > 9000


def test_what_cannot_be_read_is_said() -> None:
    """The figures are then too small, and the number of closed doors says so."""
    places, unreadable = read(b"5 1 .rv/logs\n\nunreadable 2\n")
    assert places == (Place("logs", "", ".rv/logs", 5, 1),)
    assert unreadable == 2
