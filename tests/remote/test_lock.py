"""The lock that keeps two converges of one account apart."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Account

from rvstate.script import Script

BOOT = Path("/proc/sys/kernel/random/boot_id")


def holder(account: Account, seconds: float = 60) -> subprocess.Popen[bytes]:
    """A shell that holds the lock until it is told to go on by the file `go`."""
    go = account.root / "go"
    text = Script("directories").text.rpartition("\nrv_run")[0]
    body = f"""
main() {{
    rv_lock '{account.lock}' 0 || return 1
    : >'{account.root}/held'
    while ! [ -e '{go}' ]; do sleep 0.05; done
}}
rv_run feed
"""
    process = subprocess.Popen(
        [account.shell, "-c", text + body],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=account.env(),
        start_new_session=True,
    )
    end = time.monotonic() + seconds
    while not (account.root / "held").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def make(account: Account, patience: int = 0) -> list[str]:
    """Make a directory under the lock; what the script said."""
    answer = account.run("directories", account.lock, patience, "700", account.scratch / "new")
    return [answer.body.decode().strip(), answer.errors.strip()]


def test_a_living_owner_keeps_the_lock(account: Account) -> None:
    """While one converge holds the lock, another changes nothing and names who holds it."""
    process = holder(account)
    body, errors = make(account)
    assert body == ""
    assert re.fullmatch(
        rf"rvstate: another rvstate is changing this account \(process {process.pid} on \S+\); "
        "wait for it",
        errors,
    )
    assert not (account.scratch / "new").exists()
    (account.root / "go").touch()
    assert process.wait(10) == 0
    assert make(account)[0] == "done 0"
    assert not os.path.lexists(account.lock)


def test_waits_for_an_owner_that_ends(account: Account) -> None:
    """A second converge waits for a short first one instead of failing."""
    process = holder(account)
    script = Script("directories", (account.lock, "30", "700", str(account.scratch / "new")))
    waiting = account.start(script)
    (account.root / "go").touch()
    assert account.finish(waiting, script.nonce).body.strip() == b"done 0"
    assert process.wait(10) == 0


def test_a_killed_owner_is_recognised(account: Account) -> None:
    """The lock of a process that was killed is taken over at once, and nothing of it stays."""
    process = holder(account)
    os.killpg(process.pid, 9)
    process.wait()
    assert os.path.lexists(account.lock)
    assert make(account) == ["done 0", ""]
    assert [p.name for p in account.rv.iterdir()] == []


@pytest.mark.parametrize("change", ["start", "boot"])
def test_a_recycled_number_is_not_the_owner(account: Account, change: str) -> None:
    """A living process with the owner's number, but another start or boot, is not the owner."""
    process = holder(account)
    host, boot, pid, start = os.readlink(account.lock).split()
    if change == "start":
        start = str(int(start) - 1)
    else:
        boot = "0" * len(boot)
    os.unlink(account.lock)
    os.symlink(f"{host} {boot} {pid} {start}", account.lock)
    assert make(account) == ["done 0", ""]
    os.killpg(process.pid, 9)
    process.wait()


def test_another_host_counts_as_alive_for_ten_minutes(account: Account) -> None:
    """Another host's lock cannot be looked up: it counts until nobody renewed it for 10 minutes."""
    os.symlink("elsewhere 1234 99 5", account.lock)
    os.utime(account.lock, (time.time() - 300,) * 2, follow_symlinks=False)
    body, errors = make(account)
    assert (body, "process 99 on elsewhere" in errors) == ("", True)
    os.utime(account.lock, (time.time() - 700,) * 2, follow_symlinks=False)
    assert make(account) == ["done 0", ""]


def test_many_take_over_one_dead_lock(account: Account) -> None:
    """Of many that see a dead owner, one after another holds the lock, never two at once."""
    os.symlink("elsewhere 1234 99 5", account.lock)
    os.utime(account.lock, (time.time() - 700,) * 2, follow_symlinks=False)
    text = Script("directories").text.rpartition("\nrv_run")[0]
    body = f"""
main() {{
    rv_lock '{account.lock}' 60 || return 1
    # fails where somebody else is inside
    mkdir '{account.root}/inside' && rmdir '{account.root}/inside'
}}
rv_run feed
"""
    command = [account.shell, "-c", text + body]
    several = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=account.env())
        for _ in range(8)
    ]
    for process in several:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    assert [p.name for p in account.rv.iterdir()] == []


def test_a_claim_whose_owner_died_is_no_obstacle(account: Account) -> None:
    """Killed in the middle of a takeover, a converge leaves nothing that stops the next one."""
    os.symlink("elsewhere 1234 99 5", account.lock)
    claim = account.lock + ".elsewhere-1234-99-5"
    os.symlink("elsewhere 1234 100 5", claim)
    for path in (account.lock, claim):
        os.utime(path, (time.time() - 700,) * 2, follow_symlinks=False)
    assert make(account) == ["done 0", ""]
    assert [p.name for p in account.rv.iterdir()] == []


def test_any_number_of_takeovers_may_die(account: Account) -> None:
    """Of a dozen owners with long names each died in the takeover from the one before."""
    host = "n" * 64
    owners = [f"{host} 0123abcd-0123-4567-89ab-0123456789ab 4194304 {n}" for n in range(12)]
    paths = [account.lock, *(f"{account.lock}.{o.replace(' ', '-')}" for o in owners[:-1])]
    for path, owner in zip(paths, owners, strict=True):
        os.symlink(owner, path)
        os.utime(path, (time.time() - 700,) * 2, follow_symlinks=False)
    assert make(account) == ["done 0", ""]
    assert [p.name for p in account.rv.iterdir()] == []


def test_killed_in_the_takeover_again_and_again(account: Account) -> None:
    """However often a takeover is killed, names of claims do not grow and the lock comes free."""
    os.symlink("elsewhere 1234 99 5", account.lock)
    os.utime(account.lock, (time.time() - 700,) * 2, follow_symlinks=False)
    for _ in range(8):
        # dies with the claim in its hands, before it takes the lock itself
        before = 'mv() { kill -s KILL -- "-$RV_GROUP"; }\n'
        assert account.killed(before, "directories", account.lock, 0, "700", account.scratch / "x")
    assert len(list(account.rv.iterdir())) == 9
    assert make(account) == ["done 0", ""]
    assert [p.name for p in account.rv.iterdir()] == []


def test_a_claim_never_breaks_a_new_owner(account: Account) -> None:
    """Who saw a dead owner, and comes late, leaves the lock of the new owner alone."""
    process = holder(account)
    now = os.readlink(account.lock)
    text = Script("directories").text.rpartition("\nrv_run")[0]
    # readlink tells of the dead owner once, as if read before the new one came
    body = f"""
main() {{
    rv_identity
    readlink() {{
        if [ -e '{account.root}/late' ]; then command readlink "$@"; return; fi
        : >'{account.root}/late'
        echo "$(uname -n) {BOOT.read_text().strip()} 999999 1"
    }}
    rv_take '{account.lock}'
}}
rv_run feed
"""
    done = subprocess.run(
        [account.shell, "-c", text + body], capture_output=True, env=account.env(), check=False
    )
    assert done.returncode == 1
    assert os.readlink(account.lock) == now
    assert sorted(p.name for p in account.rv.iterdir()) == ["lock"]
    os.killpg(process.pid, 9)
    process.wait()


def test_nothing_stays_behind(account: Account, until: Callable[..., None]) -> None:
    """When a script has ended, no process of it is left and nothing holds its output open."""
    mark = "RV_TEST_MARK=" + account.root.name + account.shell
    name, _, value = mark.partition("=")
    answer = account.run(
        "directories", account.lock, 0, "700", account.scratch / "a", **{name: value}
    )
    assert answer.status == 0

    def left() -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().decode())
            except OSError:
                continue
        return found

    until(lambda: not left(), "the end of every process of the script", 5)


def test_a_substitution_does_not_give_the_lock_back(account: Account) -> None:
    """`exit` in a command substitution ends only that; the lock stays until the script ends."""
    text = Script("directories").text.rpartition("\nrv_run")[0]
    body = f"""
main() {{
    rv_lock '{account.lock}' 0 || return 1
    said=$(exit 3)
    [ -L '{account.lock}' ] || return 7
    (exit 3)
    [ -L '{account.lock}' ] || return 8
}}
rv_run feed
"""
    done = subprocess.run(
        [account.shell, "-c", text + body], capture_output=True, env=account.env(), check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert not os.path.lexists(account.lock)


@pytest.mark.parametrize(("signal", "status"), [(1, 129), (2, 130), (15, 143)])
def test_a_signal_gives_the_lock_back(account: Account, signal: int, status: int) -> None:
    """Ended by a hang-up, Ctrl-C or TERM, a script gives the lock back."""
    process = holder(account)
    process.send_signal(signal)
    assert process.wait(10) == status
    assert not os.path.lexists(account.lock)


def test_a_directory_in_its_place_is_named(account: Account) -> None:
    """Something else where the lock should be is said, not taken for a lock nor removed."""
    Path(account.lock).mkdir()
    body, errors = make(account)
    assert body == ""
    assert f"cannot make the lock {account.lock}" in errors
    assert list(Path(account.lock).iterdir()) == []


def test_the_owner_renews_it(account: Account, until: Callable[..., None]) -> None:
    """While its owner lives, the lock's date is renewed, so other hosts see it alive."""
    text = Script("directories").text.rpartition("\nrv_run")[0].replace("sleep 20", "sleep 0.2")
    assert "sleep 0.2" in text
    go = account.root / "go"
    body = f"main() {{ rv_lock '{account.lock}' 0; while ! [ -e '{go}' ]; do sleep 0.05; done; }}\n"
    process = subprocess.Popen([account.shell, "-c", text + "\n" + body + "rv_run feed\n"])
    until(lambda: os.path.lexists(account.lock), "the lock")
    os.utime(account.lock, (1, 1), follow_symlinks=False)
    until(lambda: os.lstat(account.lock).st_mtime > 1, "a renewed date")
    go.touch()
    assert process.wait(10) == 0
