"""Directories made, with their modes."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from harness import Account, said


def directories(account: Account, *words: object) -> list[str]:
    return said(account.run("directories", account.lock, 0, *words))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_with_their_modes(account: Account) -> None:
    """Private ones are private from the first moment; any means what the umask says."""
    shutil.rmtree(account.rv)
    secret, plain = account.rv / "env", account.scratch / "a" / "b"
    assert directories(account, "700", secret, "-", plain) == ["done 0 ", "done 1 "]
    assert [mode(p) for p in (account.rv, secret)] == [0o700, 0o700]
    assert plain.is_dir()


def test_group(account: Account) -> None:
    """A group's directory can be written to by the group, and hands the group on."""
    assert directories(account, "group", account.root / "shared" / "hub") == ["done 0 "]
    assert mode(account.root / "shared" / "hub") & 0o2070 == 0o2070


def test_a_group_s_own_mode_stays(account: Account) -> None:
    """A group's directory that is there keeps the mode that its owner gave it."""
    hub = account.root / "hub"
    hub.mkdir(mode=0o755)
    assert directories(account, "group", hub, "-", hub) == ["done 0 ", "done 1 "]
    assert mode(hub) == 0o755


def test_twice(account: Account) -> None:
    """Asked again, nothing changes."""
    words = ("700", account.rv / "env", "-", account.scratch / "x")
    directories(account, *words)
    before = account.tree()
    assert directories(account, *words) == ["done 0 ", "done 1 "]
    after = account.tree()
    for moment in (before, after):
        moment.pop("scratch/.rv")  # the lock came and went there
        for entry in ("scratch/.rv/env", "scratch/x"):
            moment[entry] = moment[entry][:3]
    assert after == before


def test_a_mode_is_mended(account: Account) -> None:
    """A directory whose mode is wrong is given its mode; what is in it stays."""
    env = account.rv / "env"
    env.mkdir(mode=0o755)
    (env / "file").write_text("x")
    assert directories(account, "700", env) == ["done 0 "]
    assert mode(env) == 0o700
    assert (env / "file").read_text() == "x"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_in_the_way(account: Account, kind: str) -> None:
    """A file or a link that appeared since the look is left alone, and the others are made."""
    path = account.rv / "env"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(account.home)
    before = mode(account.home)
    lines = directories(account, "711", path, "700", account.rv / "runs")
    assert lines[0].startswith("failed 0 ")
    assert lines[1] == "done 1 "
    assert mode(account.home) == before
    assert path.is_symlink() == (kind == "link")


def test_odd_names(account: Account) -> None:
    """Names that a shell would take apart stay whole."""
    names = ("a b", "-m", "$(touch x)", "é;x", "'", "*")
    words = [w for name in names for w in ("700", account.scratch / name)]
    assert len(directories(account, *words)) == len(names)
    assert sorted(os.listdir(account.scratch)) == sorted((".rv", *names))


def test_killed_before_each_command(bash_account: Account) -> None:
    """Killed before each single command, in turn: the next run finishes."""
    number = 0
    words = ("700", bash_account.rv / "env", "-", bash_account.scratch / "a" / "b")
    while True:
        number += 1
        shutil.rmtree(bash_account.scratch)
        bash_account.scratch.mkdir()
        if not bash_account.killed_at_command(number, "directories", bash_account.lock, 0, *words):
            break
        assert directories(bash_account, *words) == ["done 0 ", "done 1 "]
        assert mode(bash_account.rv / "env") == 0o700
        assert (bash_account.scratch / "a" / "b").is_dir()
        assert not os.path.lexists(bash_account.lock)
    assert number > 30
