"""The deploy of an account under the plain pyinfra command, with the inventories that ship."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from accountkit import Rv, tree

ROOT = Path(__file__).parents[2]
KINDS = 8


def pyinfra(state: Path, inventory: str, option: str) -> subprocess.CompletedProcess[str]:
    programs = Path(sys.executable).parent  # uv is there too
    return subprocess.run(
        [programs / "pyinfra", inventory, "deploys/account.py", option],
        cwd=ROOT,
        env={
            **os.environ,
            "RVSTATE_HOME": str(state),
            "PATH": f"{programs}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_this_machine(tmp_path: Path) -> None:
    """On this machine: dry writes nothing, the real run converges, the second changes nothing."""
    state = tmp_path / "state"
    state.mkdir()
    dry = pyinfra(state, "inventories/local.py", "--dry")
    assert dry.returncode == 0, dry
    assert "rvstate cache" in dry.stdout + dry.stderr
    assert [p.name for p in tmp_path.rglob("*")] == ["state"]
    first = pyinfra(state, "inventories/local.py", "-y")
    assert first.returncode == 0, first
    assert os.readlink(state / "local" / "home" / ".cache" / "uv") == str(
        state / "local" / "scratch" / ".cache" / "uv"
    )
    before = tree(state)
    second = pyinfra(state, "inventories/local.py", "-y")
    assert (second.stdout + second.stderr).count("No changes") == KINDS
    assert tree(state) == before
    # and our own command finds what the deploy made
    assert Rv(state).check().changes == []


def test_nowhere(tmp_path: Path) -> None:
    """With the fake host everything is shown as to be done, and done, without doing anything."""
    for option in ("--dry", "-y"):
        done = pyinfra(tmp_path, "inventories/fake.py", option)
        assert done.returncode == 0, done
        assert (done.stdout + done.stderr).count("account | rvstate ") >= KINDS
    assert list(tmp_path.iterdir()) == []


def test_a_login_node_that_does_not_answer(tmp_path: Path) -> None:
    """The plain command is told in one sentence why a login node cannot be reached."""
    config = tmp_path / "ssh_config"
    config.write_text("Host down\n  HostName 127.0.0.1\n  Port 1\n")
    (tmp_path / "config.toml").write_text(
        f'[connection]\nhost = "down"\nsite = "generic"\nssh_config = "{config}"\n'
    )
    done = pyinfra(tmp_path, "inventories/rivanna.py", "--dry")
    assert done.returncode != 0
    assert "down refuses connections." in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
