"""Throw-away accounts for the tests of remote scripts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from accountkit import path_with_rsync  # noqa: E402
from harness import Account  # noqa: E402


@pytest.fixture(scope="session")
def rsync_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with an rsync: this machine's, or the one of the mini-cluster's tree of packages."""
    path = path_with_rsync(tmp_path_factory.mktemp("bin"))
    if path is None:
        reason = "no rsync on this machine, and the mini-cluster cannot lend its own"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path


@pytest.fixture(params=["sh", "bash"])
def account(request: pytest.FixtureRequest, tmp_path: Path, rsync_path: str) -> Account:
    """An account under this machine's sh (dash on Debian) and under bash."""
    found = Account(tmp_path, request.param, rsync_path)
    for directory in (found.home / ".cache", found.scratch, found.rv):
        directory.mkdir(parents=True)
    found.rv.chmod(0o700)
    return found


@pytest.fixture
def bash_account(tmp_path: Path, rsync_path: str) -> Account:
    """An account under bash alone, for what needs its DEBUG trap."""
    found = Account(tmp_path, "bash", rsync_path)
    for directory in (found.home / ".cache", found.scratch, found.rv):
        directory.mkdir(parents=True)
    return found


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition; for what another process does."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"did not happen: {what}"
            time.sleep(0.02)

    return wait
