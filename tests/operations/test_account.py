"""The operations under pyinfra: what they send, what they say when there is nothing to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# pyinfra patches sockets and threads of its process, so it has one of its own.
DRIVER = Path(__file__).parent / "driver.py"


def drive(kind: str, entries: str) -> dict[str, Any]:
    """One operation against a fake host; `entries` names what the look found."""
    done = subprocess.run(
        [sys.executable, str(DRIVER), kind, entries], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


KINDS = ("directory", "cache", "env", "scripts", "shell", "tool")
SCRIPTS = {
    "directory": "directories",
    "cache": "caches",
    "env": "write",
    "scripts": "write",
    "shell": "write",
    "tool": "tool",
}


@pytest.mark.parametrize("kind", KINDS)
def test_sends_one_script(kind: str) -> None:
    """On an empty account each kind sends one command: a reader of standard input, which holds the
    script; no value is in the command itself."""
    found = drive(kind, "nothing")
    (command,) = found["commands"]
    assert "head -c" in command
    assert "hunter2" not in command
    assert len(command) < 100
    (text,) = found["texts"]
    assert "rv_lock" in text
    assert ("hunter2" in text) == (kind == "env")
    assert found["script"] == SCRIPTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_says_that_nothing_is_to_do(kind: str) -> None:
    """On a converged account each kind sends nothing, and says how much is as declared."""
    found = drive(kind, "converged")
    assert found["commands"] == []
    assert found["noop"].startswith(f"{kind}: ")
    assert found["noop"].endswith(" as declared")


def test_refuses_before_it_sends() -> None:
    """What is in the way is refused with the ways out, and nothing is sent."""
    found = drive("cache", "foreign")
    assert found["commands"] == []
    assert "a file, mode 0644 is in the way" in found["error"]
    assert "or take the name out of [caches] names" in found["error"].replace("; ", " ")
