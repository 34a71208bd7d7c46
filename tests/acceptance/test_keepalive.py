"""`rvstate keepalive` on a real cluster: dates as stat sees them, and what goes wrong by itself."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.cluster

AGED = "touch -a -d '60 days ago' "


def old(account: Any, *names: str) -> None:
    """Make files of sixty days below scratch."""
    for name in names:
        path = f"{account.scratch}/{name}"
        account.sh(f'mkdir -p "${{1%/*}}" && echo x >"$1" && {AGED} "$1"', path)


def age(account: Any, name: str) -> int:
    """Days since a file was last read, by its date."""
    said = account.sh('echo $(( ($(date +%s) - $(stat -c %X "$1")) / 86400 ))', name)
    return int(said)


def test_touched_once_and_said_so(account: Any, cluster: Any) -> None:
    """One remote command; the second run changes nothing; status and recap tell policy and date."""
    recap = account.run("converge", "-y").output
    assert "silent" in recap
    assert "https://www.rc.virginia.edu/userinfo/hpc/storage/" in recap
    old(account, ".cache/uv/x", ".rv/logs/odd\nname")
    mark = cluster.logins()["mark"]
    assert account.run("keepalive", "run", "--json").json["touched"] == 2
    assert sum(cluster.logins(mark)["sessions"]["abc1de"].values()) == 1
    assert account.run("keepalive", "run", "--json").json["touched"] == 0
    assert age(account, f"{account.scratch}/.cache/uv/x") == 0
    report = account.run("keepalive", "status", "--json").json["report"]
    assert abs(report["now"] - report["success"]) < 60
    assert sum(place["risk"] for place in report["places"]) == 0


def test_no_room_and_no_inodes(account: Any, cluster: Any) -> None:
    """Touching needs no room: on a full scratch the files are kept, and so is the date."""
    account.converge()
    assert account.run("keepalive", "run").status == 0
    for kind in ("fill", "inodes"):
        old(account, ".cache/uv/x")
        account.sh(f"{AGED} -m ~+".replace("~+", f"{account.scratch}/.rv/keepalive/success"))
        cluster.fault(kind, "/scratch")
        try:
            done = account.run("keepalive", "run", "--json")
        finally:
            cluster.heal()
        assert done.status == 0, (kind, done.output, done.errors)
        assert done.json["touched"] >= 1
        assert age(account, f"{account.scratch}/.cache/uv/x") == 0
        assert age(account, f"{account.scratch}/.rv/keepalive/success") == 0
        left = account.sh("ls -A ~ /scratch/abc1de/.rv")
        assert "keepalive.lock" not in left


def test_forbidden_and_without_a_connection(account: Any) -> None:
    """A policy is held, a permission shown; nobody is asked for a login by a schedule."""
    (account.state / "sites").mkdir()
    (account.state / "sites" / "strict.toml").write_text(
        'name = "strict"\ntitle = "Strict"\n[purge]\ndays = 60\nclock = "atime"\n'
        'touch_policy = "forbidden"\nurl = "https://example.org/purge"\n'
    )
    more = '[scratch_keepalive]\nmode = "touch"\n'
    text = (account.state / "config.toml").read_text().replace('"uva"', '"strict"')
    account.config(text + more)
    done = account.run("keepalive", "run")
    assert done.status == 3
    assert "https://example.org/purge" in done.errors
    assert "heal" in done.errors
    account.config(text + more + 'permission = "ticket 17"\n')
    done = account.run("keepalive", "run", "--scheduled")
    assert done.status == 75
    assert "Skipped" in account.run("keepalive", "status").output
    assert "ticket 17" in account.run("converge", "-y").output
    assert account.run("keepalive", "run", "--scheduled").status == 0
    assert "Skipped" not in account.run("keepalive", "status").output


def test_cut_and_other_clocks(remote: Any, cluster: Any) -> None:
    """Cut in the middle, it is said so and run again; days are counted by the cluster's clock."""
    far = remote(alias="rv-far")
    far.converge()
    old(far, ".cache/uv/x")
    cluster.latency(6000)
    try:
        process = far.start("keepalive", "run")
        # its answer is on the way for longer than this notices that it is done there
        far.sh(f"until [ -e {far.scratch}/.rv/keepalive/last ]; do sleep 0.05; done")
        cluster.fault("drop")
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 1, errors
    finally:
        cluster.heal()
        cluster.latency(0)
    again = far.run("keepalive", "run")
    assert again.status == 0, again.errors
    assert age(far, f"{far.scratch}/.cache/uv/x") == 0
    old(far, ".cache/uv/x")
    report = far.run("keepalive", "status", "--json").json["report"]
    (uv,) = [p for p in report["places"] if p["name"] == "uv"]
    assert (uv["days_left"], uv["risk"]) == (30, 1)


def test_heal_finds_what_converge_mends(account: Any) -> None:
    """Mode heal verifies with one remote command, touches nothing, and what it names is mended."""
    account.configure('[scratch_keepalive]\nmode = "heal"\n')
    account.run("env", "set", "TOKEN=hunter2")
    account.converge()
    assert account.run("keepalive", "run").status == 0
    old(account, ".cache/uv/x")
    account.sh("rm /scratch/abc1de/.rv/lib/*/job.sh && echo >/scratch/abc1de/.rv/env/user.env")
    done = account.run("keepalive", "run", "--json")
    assert done.status == 1, done.errors
    found = done.json["verified"]
    assert found["remote_commands"] == 1
    damaged = {t["kind"]: t["remedy"] for t in found["things"] if t["state"] == "damaged"}
    assert damaged == dict.fromkeys(("scripts", "variables"), "rvstate converge")
    assert "hunter2" not in done.output
    scheduled = account.run("keepalive", "run", "--scheduled")
    assert (scheduled.status, "DAMAGED scripts" in scheduled.output) == (1, True)
    assert "2 things are damaged" in account.run("keepalive", "status").output
    account.converge()
    assert account.run("keepalive", "run", "--scheduled").status == 0
    assert "damaged" not in account.run("keepalive", "status").output
    assert age(account, f"{account.scratch}/.cache/uv/x") == 60
