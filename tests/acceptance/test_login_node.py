"""Rvstate installed on the login node itself, by an ordinary user, with Slurm beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
PLACE = "/scratch/abc1de/trial"
SETTINGS = '[connection]\nhost = "@local"\nsite = "uva"\n[defaults]\naccount = "mygroup"\n'
# uv builds in seconds what pip needs half a minute for
INSTALL = """
module load "$1" && cd "$2" && mkdir -m 700 rv app && cat >rv/config.toml &&
    echo 'import os; print("ran as", os.environ["SLURM_JOB_ID"])' >app/train.py &&
    chmod +x uv && ./uv -q venv --python "$(command -v python)" env &&
    ./uv -q pip install --python env/bin/python ./*.whl
"""
RUN = 'cd "$1/app" && export RVSTATE_HOME="$1/rv" && shift && exec ../env/bin/rvstate "$@"'


def put(cluster: Any, name: str, source: Path) -> None:
    """Copy a file to where the user may use it."""
    script = 'mkdir -p "$1" && cat >"$1/$2" && chown -R abc1de "$1"'
    argv = [str(ROOT / "tests/cluster/cluster"), "exec", "sh", "-c", script, "sh", PLACE, name]
    with source.open("rb") as file:
        env = {"CLUSTER_STATE": str(cluster.state), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        subprocess.run(argv, stdin=file, env=env, check=True)


def wheel(folder: Path) -> Path:
    """The built wheel, or one of the sources as they are."""
    built = sorted((ROOT / "dist").glob("rvstate-*.whl"))
    if not built:
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir")
        subprocess.run([*pip, str(folder), str(ROOT)], check=True, capture_output=True)
        built = [*folder.glob("rvstate-*.whl")]
    return built[-1]


def test_the_wheel_on_the_login_node(cluster: Any, tmp_path: Path) -> None:
    """@local with Slurm: converge, converge again, and a job that is followed to its end."""
    cluster.reset()
    found = wheel(tmp_path)
    put(cluster, found.name, found)
    put(cluster, "uv", Path(sys.executable).parent / "uv")
    module = Path(cluster.facts["python"]["miniforge"]["prefix"])
    name = f"{module.parent.name}/{module.name}"
    cluster.run_as("abc1de", "bash", "-lc", INSTALL, "sh", name, PLACE, stdin=SETTINGS)

    def rvstate(*words: str) -> str:
        return str(cluster.run_as("abc1de", "bash", "-lc", RUN, "sh", PLACE, *words).stdout)

    assert "failed=0" in rvstate("converge", "-y")
    assert "Nothing to do" in rvstate("converge")
    assert "ran as" in rvstate("run", "-f", "train.py")
    (run,) = json.loads(rvstate("ps", "--json"))["runs"]
    assert (run["state"], run["exit_code"]) == ("COMPLETED", 0)
