"""The schedule of keepalive on a real cluster: real cron, real scrontab and a real chain run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accountkit import CLUSTER

pytestmark = pytest.mark.cluster

MINE = "# my own, 100 percent\n0 0 1 1 * true\n"
PROFILE = """
name = "open"
title = "Open"
[purge]
days = 90
clock = "atime"
touch_policy = "allowed"
mode = "touch"
[scheduling]
remote_cron = "allowed"
scrontab = "allowed"
sbatch_chain = "allowed"
"""
KINDS = ("--only", "directory,schedule")


def declare(account: Any, how: str, at: str = "04:17") -> None:
    """Have keepalive run by one kind; an empty one leaves the setting out."""
    (account.state / "sites").mkdir(parents=True, exist_ok=True)
    (account.state / "sites" / "open.toml").write_text(PROFILE)
    said = f'schedule = "{how}"\ntime = "{at}"\n' if how else "# the usual schedule\n"
    account.configure(f"[scratch_keepalive]\n{said}")
    path = account.state / "config.toml"
    path.write_text(path.read_text().replace('"uva"', '"open"'))


def changes(account: Any, *more: str) -> list[tuple[str, str]]:
    """What a converge of the schedule changed, by name and action; it must have succeeded."""
    done = account.converge(*KINDS, *more)
    assert done.status == 0, done.output + done.errors
    return [(name, action) for kind, name, action in done.changes if kind == "schedule"]


def age(account: Any) -> None:
    """Make a file that nobody read for sixty days."""
    script = "cd /scratch/$1; mkdir -p .cache/uv; touch -ad '60 days ago' .cache/uv/x"
    account.sh(script, account.user)


def stale(account: Any) -> bool:
    """Whether it is still as old."""
    return bool(account.sh("cd /scratch/$1; find .cache -type f -atime +1", account.user))


def wait(condition: Callable[[], object], end: float = 0) -> None:
    """Wait for what another process does, until a date, and half a minute at least."""
    end = max(end, time.time() + 30)
    while not condition():
        assert time.time() < end
        time.sleep(0.3)


def chain(account: Any) -> list[str]:
    """The jobs of keepalive's chain that are there."""
    return str(
        account.sh("squeue --noheader --me --format='%A %T %k' | sed -n '/rvstate-/p'")
    ).split("\n")[:-1]


def test_cron_scrontab_and_a_chain_run_it(remote: Any, cluster: Any, tmp_path: Path) -> None:
    """Each starts it at its minute, dates are renewed, status says so; then all is taken out.

    Until the minute comes, what other accounts schedule on this machine is tried.
    """
    kinds = {"abc1de": "remote-cron", "xyz9uv": "scrontab", "zsh7sh": "sbatch-chain"}
    accounts = {user: remote(user) for user in kinds}
    for user in kinds:
        cluster.run_as(user, "sh", "-c", f"printf '%s' '{MINE}' | crontab -")
        cluster.run_as(user, "sh", "-c", f"printf '%s' '{MINE}' | scrontab -")
    at = 0.0
    while time.time() > at:
        # time enough for three converges before the minute comes
        at = (time.time() + 15) // 60 * 60 + 60
        for user, how in kinds.items():
            declare(accounts[user], how, time.strftime("%H:%M", time.localtime(at)))
            assert [name for name, _ in changes(accounts[user])] == [how]
    for user in kinds:
        age(accounts[user])
    for account in accounts.values():
        assert changes(account) == []
    from_this_machine(remote("u02aa"), cluster, tmp_path)
    first_of_a_day(remote("u03aa"))
    wait(lambda: not any(map(stale, accounts.values())), at + 45)
    for user, how in kinds.items():
        status = accounts[user].run("keepalive", "status", "--json").json
        planned = status["schedule"]["cluster"]
        assert (planned["how"], planned["status"], planned["text"]) == (how, 0, "")
        # a chain's begin is the queue's, the others' are worked out
        assert planned["next"] == at + 86400
        assert status["report"]["success"] >= at
        # it ran and is as declared: nothing is started twice
        assert changes(accounts[user]) == []
    assert len(chain(accounts["zsh7sh"])) == 1
    for user, how in kinds.items():
        declare(accounts[user], "none")
        assert changes(accounts[user]) == [("none", "remove")], how
        assert changes(accounts[user]) == []
        assert accounts[user].sh("crontab -l") == MINE
        assert accounts[user].sh("scrontab -l") == MINE
        assert "rv-keepalive" not in accounts[user].sh("squeue --me; ls -A /scratch/$1/.rv", user)
        assert "schedule" not in accounts[user].sh("ls -A /scratch/$1/.rv", user)


def test_a_chain_that_ended_is_started_again(remote: Any) -> None:
    """Cancelled by hand it is found by the look; two of them become one."""
    account = remote()
    declare(account, "sbatch-chain")
    assert changes(account) == [("sbatch-chain", "create")]
    assert account.run("stop", "-y", "rv-keepalive").output.startswith("Ended: ")
    assert chain(account) == []
    found = account.check(*KINDS).host["changes"]
    assert [change["reason"] for change in found] == ["the chain has ended"]
    assert changes(account) == [("sbatch-chain", "update")]
    assert len(chain(account)) == 1
    account.sh(
        "sbatch --begin=04:17 --job-name=rv-keepalive --comment=rvstate-keepalive --wrap=true"
    )
    assert changes(account) == [("sbatch-chain", "update")]
    assert len(chain(account)) == 1


def test_what_cannot_be_read_is_not_written(remote: Any, cluster: Any) -> None:
    """cron denied: refused with a way out, and all stays as it was."""
    account = remote()
    cluster.run_as("abc1de", "sh", "-c", f"printf '%s' '{MINE}' | crontab -")
    cluster.exec("sh", "-c", "echo abc1de >/etc/cron.deny")
    try:
        declare(account, "remote-cron")
        refused = account.converge(*KINDS)
    finally:
        cluster.exec("rm", "/etc/cron.deny")
    assert refused.status == 3
    (change,) = [c for c in refused.host["changes"] if c["kind"] == "schedule"]
    assert "not allowed" in change["reason"]
    assert change["ways_out"]
    assert account.sh("crontab -l") == MINE
    assert ".rv" not in account.sh("ls -A /scratch/abc1de")


def test_what_the_site_forbids_is_refused(remote: Any) -> None:
    """The profile of uva forbids cron on the login node, and says so before anything is written."""
    account = remote(more='[scratch_keepalive]\nschedule = "remote-cron"\n')
    done = account.run("converge", "--check", *KINDS)
    assert done.status == 3
    assert "the site does not allow it" in done.output


def from_this_machine(account: Any, cluster: Any, tmp_path: Path) -> None:
    """A line as cron runs it: 75 without a connection, done with one; and the line goes again."""
    # this machine may have no cron: another user's on the cluster's node is as real
    tools = tmp_path / "tools"
    tools.mkdir()
    program = f'exec {sys.executable} {CLUSTER} as u01aa crontab "$@"'
    (tools / "crontab").write_text(f"#!/bin/sh\nCLUSTER_STATE={cluster.state} {program}\n")
    (tools / "crontab").chmod(0o755)
    account.path = f"{tools}:{account.path}"
    cluster.run_as("u01aa", "sh", "-c", f"printf '%s' '{MINE}' | crontab -")
    declare(account, "local-cron")
    assert account.check(*KINDS).status == 0
    assert cluster.run_as("u01aa", "crontab", "-l").stdout == MINE
    assert changes(account) == [("local-cron", "create")]
    assert changes(account) == []
    age(account)
    table = cluster.run_as("u01aa", "crontab", "-l").stdout
    (line,) = [x for x in table.splitlines() if x.startswith("17 4 * * * ")]
    command = ["env", "-i", f"HOME={tmp_path}", "PATH=/usr/bin:/bin", "sh", "-c", line[11:]]
    account.transport.disconnect()
    assert subprocess.run(command, check=False).returncode == 75
    said = account.run("keepalive", "status").output
    assert "by local-cron on this machine" in said
    assert "failed: Skipped: there is no connection" in said
    # that connected, so the next one need not ask
    assert subprocess.run(command, check=False).returncode == 0
    said = account.run("keepalive", "status").output
    assert "The scheduled run from this machine" in said
    assert "succeeded" in said
    assert not stale(account)
    assert account.run("keepalive", "schedule", "--json").json["here"]["kind"] == "local-cron"
    declare(account, "none")
    assert changes(account) == [("none", "remove")]
    assert cluster.run_as("u01aa", "crontab", "-l").stdout == MINE


def first_of_a_day(account: Any) -> None:
    """It begins one run behind itself and does not wait; the next commands begin none."""
    # where files are touched it is what happens unless something else is said
    declare(account, "")
    assert changes(account) == [("first-command", "create")]
    (log,) = (account.state / "state").glob("*.log")
    wait(lambda: "Touched" in log.read_text())
    # its end is behind it, and a second command of the day begins none
    (kept,) = (account.state / "state").glob("keepalive-*.json")
    first = (log.stat().st_mtime, kept.read_text())
    os.utime(log, (0, 0))
    age(account)
    assert changes(account) == []
    assert log.stat().st_mtime == 0
    # another day: begun again, by a command that does not wait for it
    when, status, text = json.loads(first[1])
    kept.write_text(json.dumps([when - 86400, status, text]))
    assert account.run("status").status == 0
    wait(lambda: not stale(account))
    wait(lambda: json.loads(kept.read_text())[0] >= when)
    # skipped for want of a connection it is tried again
    kept.write_text(json.dumps([when, 75, text]))
    os.utime(log, (0, 0))
    assert account.run("status").status == 0
    wait(lambda: json.loads(kept.read_text())[1] == 0)
    declare(account, "none")
    assert changes(account) == [("none", "remove")]
