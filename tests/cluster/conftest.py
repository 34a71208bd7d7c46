"""Makes the `cluster` fixture known to the tests in this directory."""

import sys
from pathlib import Path

import pytest

if "fixture" not in sys.modules:  # else a conftest.py above has it already, with its one cluster
    sys.path.insert(0, str(Path(__file__).parent))
    from fixture import cluster  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for runs outside the project's own configuration."""
    config.addinivalue_line("markers", "cluster: needs the mini-cluster")
