"""What a user gets from `pip install`, in an environment that holds nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rvstate

ROOT = Path(__file__).parent.parent


def run(*argv: str | Path, **env: str) -> str:
    """What a program prints; it must succeed."""
    done = subprocess.run(
        [str(word) for word in argv], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_alone_is_enough(tmp_path: Path) -> None:
    """Scripts and profiles travel inside the wheel; the command works without the sources."""
    place = tmp_path / "env"
    wheels = sorted((ROOT / "dist").glob("rvstate-*.whl"))
    run(sys.executable, "-m", "venv", place)
    run(place / "bin" / "pip", "install", "--quiet", wheels[-1] if wheels else ROOT)
    command, home = place / "bin" / "rvstate", {"RVSTATE_HOME": str(tmp_path / "rv")}

    assert rvstate.__version__ in run(command, "--version", **home, PYTHONPATH="")
    assert "uva" in run(command, "site", "list", **home, PYTHONPATH="")
    assert "failed=0" in run(command, "converge", "-y", **home, PYTHONPATH="")
    assert "Nothing to do" in run(command, "converge", **home, PYTHONPATH="")


def test_the_full_run_tries_what_was_installed() -> None:
    """`make test` looks at the wheel in site-packages, not at the sources beside the tests."""
    if os.environ.get("RVSTATE_TIER_REPORT") and "PYTHONPATH" not in os.environ:
        assert "site-packages" in rvstate.__file__
    else:
        assert Path(rvstate.__file__).is_file()
