"""A secret on its way into a job: in the program's environment and its one file, nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository

pytestmark = pytest.mark.cluster

SECRET = "s3cr3t-in-a-run"
PROGRAM = """
import hashlib, os, time
print(hashlib.sha256(os.environ["MY_TOKEN"].encode()).hexdigest(), flush=True)
time.sleep(3)
"""


def test_a_run_shows_its_secret_to_nobody(cluster: Any, tmp_path: Path) -> None:
    """Process lists of the whole run, Slurm's record of the job, and every file are searched."""
    import hashlib

    cluster.reset()
    laptop = Laptop(
        tmp_path / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n',
    )
    app = repository(tmp_path / "work" / "secrets", {"train.py": PROGRAM})
    subprocess.run(
        [sys.executable, "-m", "rvstate", "env", "set", "MY_TOKEN"],
        env=laptop.env,
        input=SECRET,
        text=True,
        check=True,
        capture_output=True,
    )

    process = laptop.start("run", "-f", "--json", "train.py", cwd=app)
    lists: set[bytes] = set()
    records = ""
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lists.add(entry.read_bytes())
            except OSError:
                continue  # it ended meanwhile
        records += cluster.exec("scontrol", "show", "job", "--details", check=False).stdout
    output, errors = process.communicate()

    assert process.returncode == 0, errors
    assert hashlib.sha256(SECRET.encode()).hexdigest() in output + errors
    assert "Comment=rvstate:" in records
    assert any(b"slurmstepd" in line for line in lists)
    assert not [line for line in lists if SECRET.encode() in line]
    assert SECRET not in output + errors + records
    found = cluster.exec(
        "grep", "-rl", SECRET, "/home/abc1de", "/scratch/abc1de", "/var/log", "/var/spool", "/tmp"
    ).stdout
    assert found.split() == ["/scratch/abc1de/.rv/env/user.env"]
    here = [p for p in laptop.home.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert [path.name for path in here] == ["env.json"]
