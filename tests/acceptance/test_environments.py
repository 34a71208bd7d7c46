"""Environments on a real Slurm: what only a compute node can build, and who may see what."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests import envkit
from tests.runkit import Laptop, repository, until, write

pytestmark = pytest.mark.cluster

FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


@pytest.fixture(scope="module", autouse=True)
def clean(cluster: Any) -> None:
    cluster.reset()


@pytest.fixture
def laptop(cluster: Any, tmp_path: Path) -> Laptop:
    return Laptop(
        tmp_path / "laptop",
        f'[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )


def ended(laptop: Laptop, found: dict[str, Any]) -> tuple[str, str]:
    """A job's last state and everything that it wrote."""
    state = laptop.await_state(found["run_id"], *FINISHED)
    done = laptop.run("logs", found["job_id"])
    return state, done.stdout + done.stderr


def test_what_needs_the_sites_compiler_is_built_by_the_job(
    cluster: Any, laptop: Laptop, tmp_path: Path
) -> None:
    """The login node cannot, the job can, the next job finds it done; nothing was skipped."""
    app = repository(
        tmp_path / "work/header",
        {
            "requirements.txt": "packaging\n./dist/needsheader-1.0.tar.gz\n",
            "train.py": "import needsheader, sys\nprint('site', needsheader.SITE, sys.prefix)\n",
        },
    )
    envkit.header_package(app / "dist")
    found = laptop.submit("train.py", cwd=app)
    assert "needsheader is built by the first job" in found["said"]
    generation = found["environment"]
    state, text = ended(laptop, found)
    assert state == "COMPLETED", text
    assert f"site 114 {generation}" in text
    assert "building needsheader on" in text
    kept = f"{generation}/.rvstate"
    assert not cluster.run_as("abc1de", "ls", kept).stdout.count("deferred")
    assert "needsheader==1.0" in cluster.run_as("abc1de", "cat", f"{kept}/installed").stdout
    again = laptop.submit("train.py", cwd=app)
    assert again["remote_commands"] == 2
    state, text = ended(laptop, again)
    assert (state, "building" in text) == ("COMPLETED", False)


def test_a_build_that_fails_on_the_node_too_ends_the_job(laptop: Laptop, tmp_path: Path) -> None:
    """With the compiler's words, and without starting the user's program."""
    app = repository(
        tmp_path / "work/broken",
        {
            "requirements.txt": "./dist/needsheader-1.0.tar.gz\n",
            "train.py": "print('the program ran')\n",
        },
    )
    envkit.header_package(app / "dist")
    write(app, {"rvstate.toml": '[modules]\ncompiler = "cuda/12.8.0"\n'})
    found = laptop.submit("train.py", cwd=app)
    state, text = ended(laptop, found)
    assert state == "FAILED"
    assert "rv_site.h" in text
    assert "could not be built on this node" in text
    assert "the program ran" not in text
    shutil.rmtree(app)


def test_ctrl_c_ends_the_build_over_there(cluster: Any, laptop: Laptop, tmp_path: Path) -> None:
    """No installer goes on, nothing half built is left, and the next run builds it."""
    app = repository(
        tmp_path / "work/slow",
        {"requirements.txt": "./dist/slow-1.0.tar.gz\n", "train.py": "print('ran')\n"},
    )
    setup = "import os, time\nfrom setuptools import setup\n{}setup(name='slow', version='1.0')\n"
    envkit.sdist(app / "dist", "slow", {"setup.py": setup.format("time.sleep(300)\n")})
    process = laptop.start("run", "train.py", cwd=app)
    folder = "/scratch/abc1de/.rv/envs/slow/.generations/main"
    until(lambda: "pip install" in processes(cluster))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert (process.returncode, "nothing is half done" in errors) == (130, True), errors
    until(lambda: "uv" not in processes(cluster), 60)
    left = f"if [ -d {folder} ]; then ls -A {folder}; fi"  # it may have been broken off before
    assert cluster.run_as("abc1de", "sh", "-c", left).stdout.split() == []
    envkit.sdist(app / "dist", "slow", {"setup.py": setup.format("")})
    found = laptop.submit("train.py", cwd=app)
    assert ended(laptop, found)[0] == "COMPLETED"


def processes(cluster: Any) -> str:
    """The command lines of the user's processes that build."""
    rows = cluster.exec("ps", "-u", "abc1de", "-o", "args=").stdout.splitlines()
    return "\n".join(row for row in rows if "pip install" in row or "setup" in row)
