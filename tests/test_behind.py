"""The first command of a day: when keepalive is begun behind it, and when not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rvstate import timers
from rvstate.model.settings import ScratchKeepalive
from rvstate.model.site import Purge
from rvstate.state import State
from rvstate.workflows import behind, schedule

NOW = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))
USUAL = Purge(90, "atime", "silent", mode="touch")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The logs of what was begun; nothing is really started."""
    logs: list[Path] = []

    def detach(argv: list[str], log: Path) -> None:
        assert argv[-4:] == ["rvstate", "keepalive", "run", "--scheduled"]
        logs.append(log)

    monkeypatch.setattr(timers, "detach", detach)
    monkeypatch.setattr("time.time", lambda: NOW)
    return logs


def session(tmp_path: Path, commands: int = 1, **wanted: Any) -> Any:
    config = SimpleNamespace(
        settings=SimpleNamespace(scratch_keepalive=ScratchKeepalive(**wanted)),
        site=SimpleNamespace(purge=USUAL),
        cluster=None,
        sources=(),
        host="there",
    )
    config.site.name = "uva"
    found = SimpleNamespace(
        config=config,
        transport=SimpleNamespace(commands=commands),
        state=State(tmp_path),
        label="me@there",
    )
    found.state.keep_schedule("me@there", "first-command laptop -")
    return found


def test_begun_once_a_day(tmp_path: Path, begun: list[Path]) -> None:
    """The first command begins it; one that was done today, or begun a moment ago, is enough."""
    account = session(tmp_path)
    assert behind.begin(account)
    begun[0].parent.mkdir(exist_ok=True)
    begun[0].touch()
    os.utime(begun[0], (NOW - 60, NOW - 60))
    assert not behind.begin(account)
    os.utime(begun[0], (NOW - 3600, NOW - 3600))
    for when, status, again in (
        (NOW - 3600, 0, False),
        (NOW - 3600, 1, False),
        (NOW - 3600, 75, True),
        (NOW - 86400, 0, True),
    ):
        account.state.keep_attempt("me@there", (int(when), status, ""))
        assert behind.begin(account) is again, (when, status)


@pytest.mark.parametrize(
    "wanted", [{"schedule": "none"}, {"enabled": False}, {"mode": "heal"}, {"schedule": "scrontab"}]
)
def test_not_begun_where_it_is_not_wanted(
    tmp_path: Path, begun: list[Path], wanted: dict[str, Any]
) -> None:
    """Settings that changed since count at once, not at the next converge."""
    assert not behind.begin(session(tmp_path, **wanted))
    assert begun == []


def test_not_begun_where_nothing_was_put_in_place(tmp_path: Path, begun: list[Path]) -> None:
    """Nobody has agreed to a plan with it, or a command reached nobody."""
    account = session(tmp_path)
    account.state.keep_schedule("me@there", "")
    assert not behind.begin(account)
    assert not behind.begin(session(tmp_path, commands=0))
    assert begun == []


def test_what_hinders_it_does_not_hinder_the_command(
    tmp_path: Path, begun: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk here is no failure of the command in front."""

    def detach(argv: list[str], log: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(timers, "detach", detach)
    assert not behind.begin(session(tmp_path))
    assert not schedule.log(session(tmp_path)).exists()


def test_next_time_is_the_next_one() -> None:
    """Later today, or tomorrow; by this machine's clock."""
    from rvstate.workflows.keepalive import next_time

    assert next_time("12:30", NOW) == NOW + 1800
    assert next_time("12:00", NOW) == NOW + 86400
    assert next_time("11:30", NOW) == NOW + 86400 - 1800
