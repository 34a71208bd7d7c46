"""What each command loads: reading and helping stay quick, whatever the package depends on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvstate.cli import COMMANDS

HEAVY = ("pyinfra", "gevent", "paramiko", "pydantic", "tomlkit")
HELP = [("--help",), ("--version",), *((name, "--help") for name in COMMANDS)]
READS = [
    ("converge", "--check"),
    ("config",),
    ("config", "--explain"),
    ("config", "path"),
    ("env", "list"),
    ("env", "set", "A", "1"),
    ("exec", "true"),
    ("doctor",),
    ("login", "--check"),
    ("site", "list"),
    ("site", "show", "uva"),
    ("ps",),
    ("verify",),
    ("usage",),
    ("prune", "--dry-run"),
    ("status",),
    ("keepalive", "status"),
    ("keepalive", "schedule"),
    ("completion", "bash"),
]

CODE = """
import sys
from rvstate.cli import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
heavy = sys.argv[1].split(",")
print("\\nLOADED", *sorted({name.partition(".")[0] for name in sys.modules} & set(heavy)))
"""


def _loaded(tmp_path: Path, args: tuple[str, ...], converge: bool = False) -> list[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("RVSTATE_")}
    env |= {"RVSTATE_HOME": str(tmp_path / "rv"), "HOME": str(tmp_path)}
    if converge:
        argv = [sys.executable, "-m", "rvstate", "converge", "-y"]
        subprocess.run(argv, check=True, capture_output=True, env=env, cwd=tmp_path)
    argv = [sys.executable, "-c", CODE, ",".join(HEAVY), *args]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path, check=True)
    assert "Traceback" not in done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED"
    return last[1:]


@pytest.mark.slow
@pytest.mark.parametrize("args", HELP, ids=" ".join)
def test_help_loads_nothing_heavy(tmp_path: Path, args: tuple[str, ...]) -> None:
    """A page of help needs no engine, no validator and no editor of TOML."""
    assert _loaded(tmp_path, args) == []


@pytest.mark.slow
@pytest.mark.parametrize("args", READS, ids=" ".join)
def test_reading_loads_nothing_heavy(tmp_path: Path, args: tuple[str, ...]) -> None:
    """A command that changes nothing on the account loads no engine."""
    assert _loaded(tmp_path, args) == []


def test_a_converge_with_nothing_to_do_loads_nothing_heavy(tmp_path: Path) -> None:
    """The second `converge -y` is a look and no more."""
    assert _loaded(tmp_path, ("converge", "-y"), converge=True) == []


def test_the_sample_would_see_what_it_looks_for(tmp_path: Path) -> None:
    """A converge that changes something does load the engine: the test is not blind."""
    assert {"pyinfra", "gevent"} <= set(_loaded(tmp_path, ("converge", "-y")))
