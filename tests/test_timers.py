"""This machine's own schedulers, behind programs that behave as theirs do."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rvstate import cron, timers, units
from rvstate.errors import RefusedError, RvstateError

NAME = "rvstate-keepalive-0a"
WORDS = ("/usr/bin/python3", "-m", "rvstate", "keepalive", "run", "--scheduled")
MINE = "# mine \udce9\n0 0 1 1 * true\n"
_PROGRAMS = {
    "crontab": """
case $1 in
    -l) if [ -e broken ]; then echo "crontab: cannot read" >&2; exit 1; fi
        if ! [ -e table ]; then echo "no crontab for me" >&2; exit 1; fi; cat table ;;
    -r) rm table ;;
    -) cat >table ;;
esac""",
    "systemctl": """
shift
echo "$@" >>said
case $1 in
    show-environment) [ ! -e broken ] ;;
    enable) : >enabled ;;
    disable) rm enabled ;;
    is-enabled) [ -e enabled ] ;;
esac""",
    "launchctl": """
echo "$@" >>said
case $1 in
    bootstrap) : >enabled ;;
    bootout) rm enabled ;;
    print) [ -e enabled ] ;;
esac""",
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with each of them; their state lies in the directory that this returns."""
    state, tools = tmp_path / "state", tmp_path / "tools"
    state.mkdir()
    tools.mkdir()
    for name, text in _PROGRAMS.items():
        (tools / name).write_text(f"#!/bin/sh\ncd {state}{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    return state


def text_of(kind: str) -> str:
    if kind == "local-cron":
        return cron.put(MINE, "me@there", cron.daily("12:30", WORDS))
    if kind == "systemd-user":
        return units.service("t", WORDS, {}) + units.timer("t", "12:30")
    return units.agent(NAME, "12:30", WORDS, {}, "/x")


def look(kind: str) -> tuple[str, str]:
    said = timers.look(NAME, (kind,))
    return said[kind], said[f"{kind}-end"]


def apply(verb: str, kind: str, now: str, then: str) -> None:
    digest = hashlib.sha256(now.encode("utf-8", "surrogateescape")).hexdigest()
    timers.apply(NAME, verb, kind, digest, then)


@pytest.mark.parametrize("kind", ["local-cron", "systemd-user", "launchd"])
def test_put_there_and_taken_out(machine: Path, tmp_path: Path, kind: str) -> None:
    """What was put there is found; a second time the look is another one; it goes as it came."""
    before = MINE if kind == "local-cron" else ""
    if before:
        (machine / "table").write_bytes(before.encode("utf-8", "surrogateescape"))
    assert look(kind) == (before, "0\n")
    apply("install", kind, before, text_of(kind))
    assert look(kind) == (text_of(kind), "0\n")
    with pytest.raises(RefusedError, match="changed since the look"):
        apply("install", kind, before, "other")
    assert look(kind)[0] == text_of(kind)
    if kind != "local-cron":
        # its manager does not run it: that is not as declared
        (machine / "enabled").unlink()
        assert look(kind)[0] not in ("", text_of(kind))
        apply("install", kind, look(kind)[0], text_of(kind))
        assert look(kind)[0] == text_of(kind)
    apply("remove", kind, text_of(kind), before)
    assert look(kind) == (before, "0\n")
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not (machine / "enabled").exists()


def test_a_table_of_ours_alone_goes(machine: Path) -> None:
    """Where there was no crontab there is none afterwards."""
    ours = cron.put("", "me", "1 1 * * * true\n")
    apply("install", "local-cron", "", ours)
    apply("remove", "local-cron", ours, "")
    assert not (machine / "table").exists()


def test_what_cannot_be_read_is_not_written(machine: Path) -> None:
    """Reading fails, writing would work: nothing is written."""
    (machine / "table").write_text("mine\n")
    (machine / "broken").touch()
    text, end = look("local-cron")
    assert (text, end) == ("", "1\ncrontab: cannot read")
    with pytest.raises(RefusedError):
        apply("install", "local-cron", "mine\n", "other\n")
    assert (machine / "table").read_text() == "mine\n"
    assert look("systemd-user")[1].startswith("1\nsystemd does not run for this user")


def test_what_is_not_on_this_machine_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No program, no such kind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind in ("local-cron", "systemd-user", "launchd"):
        assert look(kind)[1].startswith("127\nthere is no ")
    assert look("first-command") == ("", "0\n")


def test_a_program_that_fails_is_named(machine: Path, tmp_path: Path) -> None:
    """What it said is in the error."""
    tool = tmp_path / "tools" / "crontab"
    tool.write_text(tool.read_text().replace("cat >table", "echo too long >&2; exit 1"))
    with pytest.raises(RvstateError, match="too long"):
        apply("install", "local-cron", "", "x\n")


def test_nobody_waits_for_what_is_detached(tmp_path: Path) -> None:
    """It goes on when the one who began it has ended, in a session of its own, into the log."""
    log = tmp_path / "state" / "log"
    inner = (
        "import os, time; print(os.getsid(0) == os.getpid(), flush=True); "
        "time.sleep(1); print('end')"
    )
    outer = (
        "import sys; from pathlib import Path; from rvstate import timers; "
        "timers.detach([sys.executable, '-c', sys.argv[1]], Path(sys.argv[2])); print('over')"
    )
    # the output's reader gets its end although the child lives
    done = subprocess.run(
        [sys.executable, "-c", outer, inner, str(log)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("over\n", "")
    assert "end" not in log.read_text()
    end = time.monotonic() + 20
    while "end" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert log.read_text() == "True\nend\n"
    assert log.stat().st_mode & 0o777 == 0o600
