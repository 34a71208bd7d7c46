"""Runs `rvstate` as a user does: as a program, in a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def rv_home(tmp_path: Path) -> Path:
    """The state directory of this test."""
    return tmp_path / "rv"


@pytest.fixture
def rvstate(rv_home: Path, tmp_path: Path) -> Rvstate:
    """Run `rvstate` without a terminal."""
    home = tmp_path / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("RVSTATE_")}
    env |= {"HOME": str(home), "RVSTATE_HOME": str(rv_home)}

    def run(
        *args: str, text: str = "", cwd: Path = tmp_path, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rvstate", *args],
            input=text,
            capture_output=True,
            text=True,
            env=env | more,
            cwd=cwd,
            timeout=120,
        )

    return run
