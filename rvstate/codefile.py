"""A pipeline that is written as code, as its own Python describes it: the door to that program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rvstate import assets
from rvstate.errors import ConfigError

# Seconds: imports of large packages from a slow disk.
_PATIENCE = 300


def describe(root: Path, spec: str, *, streams: bool) -> dict[str, Any]:
    """What `FILE:NAME` says, as a project's configuration would.

    The file is read by a Python of its own: that of the virtual environment that is active, else
    the one that runs this.  So the user's imports meet the user's packages, and never ours.

    Args:
        root: The project's root, where the file's path begins.
        spec: The file and the name in it.
        streams: As `rvstate.stages.describe` has it.

    Returns:
        What that gives.

    Raises:
        ConfigError: The file could not be read; its own words are in the message.
    """
    active = os.environ.get("VIRTUAL_ENV")
    python = Path(active, "bin", "python") if active else Path(sys.executable)
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        for name, text in assets.pipeline_modules().items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        command = [str(python), "-m", "rvstate.stages", "describe", spec]
        before = os.environ.get("PYTHONPATH")
        try:
            done = subprocess.run(
                [*command, *(["streams"] if streams else [])],
                cwd=root,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else folder,
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(
                f"{spec} could not be read by {python}: {error}.",
                "Keep what takes long in setup and process; they run on the cluster.",
            ) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ConfigError(
            f"{spec} could not be read by {python}: {lines[-1] if lines else 'it said nothing'}.",
            "Mend it; what only the cluster has is imported within setup or process.",
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
