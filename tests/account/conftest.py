"""An account on this machine: site `local`, in a directory of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from accountkit import Rv, path_with_rsync


@pytest.fixture(scope="session")
def rsync_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with an rsync."""
    path = path_with_rsync(tmp_path_factory.mktemp("bin"))
    if path is None:
        reason = "no rsync on this machine, and the mini-cluster cannot lend its own"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path


@pytest.fixture
def rv(tmp_path: Path, rsync_path: str) -> Rv:
    """Rvstate without any configuration."""
    return Rv(tmp_path / "state", rsync_path)
