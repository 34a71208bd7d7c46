"""keepalive.sh: which files it renews, what it never touches, and what it says."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import CHANGING, Account

from rvstate.script import Answer

OLD = time.time() - 60 * 86400
NEEDED = "20260101-000000-00000001"
GONE = "20260101-000000-00000002"
ODD = ("with space", "-dash", "line\nbreak", "donn\udce9es", "quo'te\"s", "$HOME", "a\\b", "*")


def keep(
    account: Account, action: str = "touch", clock: str = "atime", victims: str = "", days: int = 90
) -> dict[str, list[str]]:
    """Run it; what it said, by word."""
    return words(account.run("keepalive", *arguments(account, action, clock, victims, days)))


def arguments(
    account: Account, action: str = "touch", clock: str = "atime", victims: str = "", days: int = 90
) -> tuple[object, ...]:
    fixed = (action, account.scratch, account.home, clock, days, f"echo 7 rvstate:{NEEDED}")
    return (*fixed, victims, "uv", "pip")


def words(answer: Answer) -> dict[str, list[str]]:
    assert answer.status == 0, answer.errors
    found: dict[str, list[str]] = {}
    for line in answer.body.decode("utf-8", "replace").splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest)
    return found


def old(account: Account, name: str) -> Path:
    """A file of sixty days below scratch."""
    path = account.scratch / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (OLD, OLD))
    return path


def is_old(path: Path) -> bool:
    return path.lstat().st_atime < time.time() - 86400


def test_only_what_is_needed_is_renewed(account: Account) -> None:
    """Current environments, needed snapshots, code, caches; not what nothing needs any more."""
    kept = [
        old(account, ".rv/logs/a.out"),
        old(account, ".rv/envs/p/.generations/main/aa/lib/python3/site-packages/q/x.py"),
        old(account, ".rv/envs/p/.generations/main/cc/x.py"),
        old(account, ".rv/envs/p/.generations/main/layer-of-aa/x.py"),
        old(account, "rv-workspaces/p/main/code/train.py"),
        old(account, "rv-workspaces/p/.repository/objects/pack/a.pack"),
        old(account, ".rv/envs/p/.scripted/0f/code/.venv/bin/x"),
        old(account, f"rv-workspaces/p/main/snapshots/rv-a-{NEEDED}/train.py"),
        old(account, ".cache/uv/a/b/c/d/e/f/deep"),
        old(account, ".cache/pip/flat"),
    ]
    gone = [
        old(account, ".rv/envs/p/.generations/main/bb/x.py"),
        old(account, ".rv/envs/p/.generations/main/layer-of-bb/x.py"),
        old(account, f"rv-workspaces/p/main/snapshots/rv-a-{GONE}/train.py"),
        old(account, ".cache/other/x"),
        old(account, "data/mine"),
    ]
    (account.rv / "envs/p/main").symlink_to(".generations/main/aa")
    for name in ("aa", "bb"):
        recipe = account.rv / f"envs/p/.generations/main/layer-of-{name}/.rvstate/recipe"
        recipe.parent.mkdir()
        recipe.write_text(f"digest k\nbase {name}\n")
    (account.rv / "runs" / NEEDED).mkdir(parents=True)
    job = f"rv_environment {account.rv}/envs/p/.generations/main/cc\n"
    (account.rv / "runs" / NEEDED / "job.sh").write_text(job)
    said = keep(account)
    assert (said["found"], said["troubles"]) == ([str(len(kept))], ["0"])
    assert not any(map(is_old, kept))
    assert all(map(is_old, gone))
    assert keep(account)["found"] == ["0"]


@pytest.mark.parametrize("clock", ["atime", "mtime", "atime-or-ctime", "atime-and-mtime"])
def test_a_file_server_whose_clock_is_ahead_or_behind(account: Account, clock: str) -> None:
    """Dates of the morrow and of yesterday are young: they stay, and nothing is counted wrongly."""
    now = time.time()
    dates = {"ahead": now + 2 * 86400, "behind": now - 2 * 86400}
    for name, date in dates.items():
        path = account.scratch / ".cache/uv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (date, date))
    for _ in range(2):
        assert keep(account, clock=clock)["found"] == ["0"]
    for name, date in dates.items():
        assert (account.scratch / ".cache/uv" / name).stat().st_mtime == pytest.approx(date)
    # the date of the last success is the server's, too
    os.utime(account.rv / "keepalive/success", (now + 86400, now + 86400))
    said = keep(account, "report", clock=clock)
    assert [row.split()[2] for row in said["place"] if row.endswith(" uv")] == ["0"]
    assert int(said["success"][0]) > int(said["now"][0])


def test_ages_are_told_by_the_nodes_clock(account: Account) -> None:
    """A node that is weeks ahead says so: its `now` is in the report, and its count with it."""
    old(account, ".cache/uv/x")
    young = account.scratch / ".cache/uv/young"
    young.write_text("x")
    later = int(time.time()) + 50 * 86400
    tools = account.root / "tools"
    tools.mkdir()
    (tools / "date").write_text(f"#!/bin/sh\necho {later}\n")
    (tools / "date").chmod(0o755)
    account.path = f"{tools}:{account.path}"
    said = keep(account, "report")
    assert said["now"] == [str(later)]
    (row,) = [row.split() for row in said["place"] if row.endswith(" uv")]
    assert (row[0], row[2]) == ("2", "2")
    # what is touched find decides, by the kernel's clock: the young one is left alone
    assert keep(account)["found"] == ["1"]


def test_a_second_run_changes_nothing(account: Account) -> None:
    """What is younger than half of the limit keeps its date; the stamp alone is new."""
    young = account.scratch / ".cache/uv/young"
    young.parent.mkdir(parents=True)
    young.write_text("x")
    when = time.time() - 44 * 86400
    os.utime(young, (when, when))
    assert keep(account)["found"] == ["0"]
    assert young.stat().st_atime == pytest.approx(when)
    assert (account.rv / "keepalive/success").exists()


@pytest.mark.parametrize(
    ("clock", "atime", "mtime", "touched"),
    [
        ("atime", 60, 10, (True, False)),
        ("atime", 10, 60, (False, False)),
        ("mtime", 10, 60, (False, True)),
        ("mtime", 60, 10, (False, False)),
        ("atime-and-mtime", 60, 10, (True, True)),
        ("atime-and-mtime", 10, 60, (True, True)),
        # a file that is made now has a young ctime
        ("atime-or-ctime", 60, 60, (False, False)),
    ],
)
def test_each_clock(
    account: Account, clock: str, atime: int, mtime: int, touched: tuple[bool, bool]
) -> None:
    """Staleness is by the site's clock, and only the dates that it reads are renewed."""
    path = old(account, ".cache/uv/x")
    now = time.time()
    before = (now - atime * 86400, now - mtime * 86400)
    os.utime(path, before)
    keep(account, clock=clock)
    after = path.stat()
    assert (after.st_atime > before[0] + 1, after.st_mtime > before[1] + 1) == touched


def test_odd_names(account: Account) -> None:
    """Any name is safe, also that of a directory, a project or a link."""
    paths = [old(account, f".cache/uv/{name}/{name}") for name in ODD]
    paths += [old(account, f".rv/outputs/{name}") for name in ODD]
    paths += [old(account, f"rv-workspaces/{name}/b/code/{name}") for name in ODD]
    said = keep(account)
    assert (said["found"], said["troubles"]) == ([str(len(paths))], ["0"])
    assert not any(map(is_old, paths))
    assert not list(account.root.rglob("PWNED"))


def test_links_are_renewed_and_not_followed(account: Account) -> None:
    """Neither a link's end nor what lies behind a directory's link is touched."""
    outside = account.root / "outside"
    outside.mkdir()
    foreign = outside / "file"
    foreign.write_text("x")
    os.utime(foreign, (OLD, OLD))
    (account.scratch / ".cache/uv").mkdir(parents=True)
    (account.scratch / "rv-workspaces").mkdir()
    (account.rv / "envs").mkdir()
    for link in (
        *(".cache/uv/link", ".cache/uv/dangling", ".cache/pip", "rv-workspaces/p"),
        *(".rv/envs/p", ".rv/logs"),
    ):
        path = account.scratch / link
        path.symlink_to(outside if "dangling" not in link else outside / "nothing")
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    (outside / "b" / "code").mkdir(parents=True)
    assert keep(account)["troubles"] == ["0"]
    assert is_old(foreign)
    assert not (outside / "nothing").exists()
    assert not is_old(account.scratch / ".cache/uv/dangling")


def test_caches_as_a_whole_elsewhere_are_left_alone(account: Account) -> None:
    """A `.cache` that is a link out of scratch is not entered."""
    elsewhere = account.root / "project"
    (elsewhere / "uv").mkdir(parents=True)
    (elsewhere / "uv" / "x").write_text("x")
    os.utime(elsewhere / "uv" / "x", (OLD, OLD))
    (account.scratch / ".cache").symlink_to(elsewhere)
    assert keep(account)["found"] == ["0"]
    assert is_old(elsewhere / "uv" / "x")


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes files of others")
def test_files_of_others_are_left_alone(account: Account) -> None:
    """Neither another user's file nor what lies in another user's directory is touched."""
    theirs = old(account, ".cache/uv/theirs")
    os.chown(theirs, 12345, 12345)
    inside = old(account, ".cache/uv/dir/mine")
    os.chown(inside.parent, 12345, 12345)
    assert keep(account)["found"] == ["0"]
    assert is_old(theirs)
    assert is_old(inside)


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can become the user who may not read")
def test_an_unreadable_directory_is_named_and_not_a_success(account: Account) -> None:
    """The rest is kept young, what could not be read is named, and no success is stamped."""
    user = 12345
    closed = old(account, ".cache/uv/closed/x").parent
    other = old(account, ".cache/uv/open")
    subprocess.run(["chown", "-R", str(user), account.root], check=True)
    closed.chmod(0)
    for top in (account.root, *account.root.parents):
        if top.stat().st_uid == 0 and not top.stat().st_mode & 0o001:
            top.chmod(0o711)
    account.user = user
    said = keep(account)
    assert (said["found"], said["troubles"]) == (["1"], ["1"])
    assert "closed" in said["trouble"][0]
    assert not is_old(other)
    assert not (account.rv / "keepalive/success").exists()
    assert "troubles 1" in (account.rv / "keepalive/last").read_text()
    closed.chmod(0o700)
    assert keep(account)["troubles"] == ["0"]
    assert (account.rv / "keepalive/success").exists()


def test_files_that_vanish_under_the_walk(account: Account) -> None:
    """What goes away between being found and being touched is no trouble and is not made again."""
    for number in range(200):
        old(account, f".cache/uv/{number}/x")
    shim = account.root / "bin"
    shim.mkdir()
    real = subprocess.run(["which", "touch"], capture_output=True, text=True, check=True).stdout
    # between the find and the touch half of the tree goes
    (shim / "touch").write_text(
        f'#!/bin/sh\nrm -rf {account.scratch}/.cache/uv/1*\nexec {real.strip()} "$@"\n'
    )
    (shim / "touch").chmod(0o755)
    account.path = f"{shim}:{account.path}"
    assert keep(account)["troubles"] == ["0"]
    assert not list((account.scratch / ".cache/uv").glob("1*"))
    assert not is_old(account.scratch / ".cache/uv/2/x")


def test_one_at_a_time(account: Account, until: Callable[..., None]) -> None:
    """A second one names the first, does nothing, and ends well; a dead one holds nobody up."""
    from rvstate.script import Script

    path = old(account, ".cache/uv/x")
    fifo = account.root / "fifo"
    os.mkfifo(fifo)
    stuck = list(map(str, arguments(account)))
    first = account.start(
        Script("keepalive", tuple(stuck)), f'touch() {{ read -r _ <"{fifo}"; }}\n'
    )
    until((account.rv / "keepalive.lock").is_symlink, "the first has the lock")
    said = keep(account)
    assert said["busy"][0].split()[1].isdigit()
    assert is_old(path)
    os.killpg(first.pid, 9)
    first.communicate()
    assert keep(account)["found"] == ["1"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_anywhere_it_goes_on(account: Account, when: str) -> None:
    """Killed at any program it starts, the next run touches the rest and stamps."""
    paths = [old(account, f".cache/uv/{number}") for number in range(5)]
    assert {"touch", "find"} <= set(CHANGING)
    for number in range(1, 40):
        # takeovers that are killed one after another are test_lock.py's
        for lock in account.rv.glob("keepalive.lock*"):
            lock.unlink()
        if not account.killed_at_program(number, when, "keepalive", *arguments(account)):
            break
    else:
        raise AssertionError("it never came to its end")
    assert number > 3
    said = keep(account)
    assert said.get("troubles") == ["0"], (number, said)
    assert not any(map(is_old, paths))
    assert (account.rv / "keepalive/success").exists()
    assert not list(account.rv.glob("keepalive.lock*"))


def test_report_counts_and_changes_nothing(account: Account) -> None:
    """Files, bytes, what is at risk, the oldest date, and the site's own list by place."""
    risky = old(account, ".cache/uv/a\nb")
    fresh = account.scratch / ".cache/uv/fresh"
    fresh.write_text("four")
    listed = f"printf '%s\\n' {account.scratch}/.cache/uv/gone {account.scratch}/data/x"
    before = sorted(account.scratch.rglob("*"))
    said = keep(account, "report", victims=listed)
    assert f"2 5 1 {int(OLD)} 1 uv" in said["place"]
    assert "0 0 0 0 0 pip" in said["place"]
    assert said["victims"] == ["2"]
    assert "success" not in said
    assert sorted(account.scratch.rglob("*")) == before
    assert is_old(risky)
    keep(account)
    assert said.keys() | {"success", "last"} == keep(account, "report", victims=listed).keys()


def test_without_the_sites_tool_nobody_knows(account: Account) -> None:
    """A list that cannot be had is not an empty list."""
    said = keep(account, "report", victims="no-such-tool --of {user}")
    assert "victims" not in said
    assert "troubles" in said


def test_a_queue_that_does_not_answer_keeps_everything(account: Account) -> None:
    """Whoever cannot tell what is needed lets nothing go."""
    path = old(account, f"rv-workspaces/p/main/snapshots/rv-a-{GONE}/train.py")
    words_ = [*arguments(account)]
    words_[5] = "false"
    account.run("keepalive", *words_)
    assert not is_old(path)


def test_a_clock_that_touching_cannot_turn(account: Account) -> None:
    """Refused before anything is touched."""
    answer = account.run("keepalive", *arguments(account, clock="data"))
    assert answer.status == 1
    assert "clock data" in answer.errors
