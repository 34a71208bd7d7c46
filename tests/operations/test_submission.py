"""Tests of modules that load gevent; a test worker that patches itself with it cannot go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_what_a_submission_says() -> None:
    """The tests of `submission.py`, in a process of their own."""
    file = Path(__file__).with_name("submission.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", file],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
