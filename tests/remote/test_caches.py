"""Cache links and migrations: nothing is lost, whatever lies there and wherever it is killed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest
from harness import Account, said

NOBODY = 65534
OLD, NEW = 1_600_000_000, 1_700_000_000

# Names that break what is not quoted, and one that is no UTF-8.
ODD = (
    "a b",
    "-rf",
    "line\nbreak",
    "tab\t",
    "$HOME `id` ;x",
    "*",
    "[a]",
    "é",
    "\udcff\udcfe",
    "'\"",
    "\\n",
)


def arguments(account: Account, *changes: object, remove: str = "no") -> tuple[object, ...]:
    return (account.lock, 0, account.rv / "originals", remove, *changes)


def caches(account: Account, *changes: object, remove: str = "no") -> list[str]:
    return said(account.run("caches", *arguments(account, *changes, remove=remove)))


def migration(account: Account, name: str = "uv", action: str = "migrate") -> tuple[object, ...]:
    path, target = account.home / ".cache" / name, account.scratch / ".cache" / name
    return (action, path, target, "")


def originals(account: Account, name: str = "uv") -> list[Path]:
    return sorted((account.home / ".cache").glob(f"{name}.rvstate-original-*"))


def put(path: Path, text: str, when: int = OLD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (when, when))


def contents(top: Path) -> dict[str, object]:
    """Every entry below a directory but directories' dates: what must survive a move."""
    found: dict[str, object] = {}
    base = os.fsencode(top)
    for directory, names, files in os.walk(base):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            value: object = stat.S_IFMT(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                value = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                data = Path(os.fsdecode(path)).read_bytes()
                value = (data, stat.S_IMODE(status.st_mode), int(status.st_mtime))
            found[os.fsdecode(os.path.relpath(path, base))] = value
    return found


def fill(top: Path) -> None:
    """A cache with everything that a cache may hold."""
    top.mkdir(parents=True)
    for number, name in enumerate(ODD):
        put(top / name / name, f"contents {number}")
    put(top / ".hidden", "hidden")
    put(top / "program", "#!/bin/sh\n")
    (top / "program").chmod(0o755)
    put(top / "secret", "s")
    (top / "secret").chmod(0o600)
    (top / "empty" / "emptier").mkdir(parents=True)
    (top / "link").symlink_to("program")
    (top / "dangling").symlink_to("/nowhere/at all")
    (top / "to-directory").symlink_to("empty")
    os.link(top / "program", top / "hardlink")
    os.mkfifo(top / "pipe")
    put(top / "zero", "")
    (top / "closed").mkdir()
    put(top / "closed" / "inside", "inside")
    (top / "closed").chmod(0o555)


# ----------------------------------------------------------------------------------- links
def test_create(account: Account) -> None:
    """A link and its target are made where nothing is; asked again, nothing happens."""
    change = migration(account, action="create")
    assert caches(account, *change) == ["done 0 "]
    assert os.readlink(change[1]) == str(change[2])
    before = account.tree()
    assert caches(account, *change) == ["done 0 "]
    after = account.tree()
    for moment in (before, after):
        moment.pop("scratch/.rv")
    assert after == before


def test_create_meets_something_new(account: Account) -> None:
    """What appeared since the look is left alone, and said."""
    change = migration(account, action="create")
    put(account.home / ".cache" / "uv", "mine")
    (line,) = caches(account, *change)
    assert line.startswith("failed 0 rvstate: something appeared at ")
    assert (account.home / ".cache" / "uv").read_text() == "mine"


def test_update(account: Account) -> None:
    """A link of ours to a former place is turned round; the former place stays as it is."""
    path, target = migration(account)[1:3]
    former = account.root / "shared"
    put(former / "file", "theirs")
    Path(str(path)).symlink_to(former)
    assert caches(account, "update", path, target, former) == ["done 0 "]
    assert os.readlink(path) == str(target)
    assert (former / "file").read_text() == "theirs"
    assert caches(account, "update", path, target, former) == ["done 0 "]


def test_update_meets_another_link(account: Account) -> None:
    """A link that was changed since the look is not turned round."""
    path, target = migration(account)[1:3]
    Path(str(path)).symlink_to("/else")
    (line,) = caches(account, "update", path, target, "/former")
    assert "changed since the look" in line
    assert os.readlink(path) == "/else"


# -------------------------------------------------------------------------------- migration
def test_migrate_moves_everything(account: Account) -> None:
    """Odd names, links, hard links, pipes, modes, dates and empty directories all arrive."""
    path = account.home / ".cache" / "uv"
    fill(path)
    before = contents(path)
    (line,) = caches(account, *migration(account))
    assert line.startswith("done 0 "), line
    (original,) = originals(account)
    assert line == f"done 0 the original is kept: {original}"
    target = account.scratch / ".cache" / "uv"
    assert os.readlink(path) == str(target)
    assert contents(target) == before
    assert contents(original) == before
    assert os.stat(target / "hardlink").st_ino == os.stat(target / "program").st_ino
    assert sorted(p.name for p in target.parent.iterdir()) == ["uv"]


def test_migrate_records_the_original(account: Account) -> None:
    """The record names the original, its target, bytes and entries, and says it is complete."""
    put(account.home / ".cache" / "uv" / "a" / "file", "x" * 10_000)
    caches(account, *migration(account))
    (record,) = (account.rv / "originals").iterdir()
    found = dict(line.split(" ", 1) for line in record.read_text().splitlines())
    assert found["original"] == str(originals(account)[0])
    assert found["target"] == str(account.scratch / ".cache" / "uv")
    assert int(found["bytes"]) >= 10_000
    assert (found["entries"], found["state"]) == ("2", "aside")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600


def test_migrate_twice(account: Account) -> None:
    """A second directory that grows where the link was moves too; both originals are kept."""
    path = account.home / ".cache" / "uv"
    put(path / "first", "1")
    caches(account, *migration(account))
    path.unlink()
    put(path / "second", "2")
    caches(account, *migration(account))
    assert len(originals(account)) == 2
    assert (path / "first").read_text() == "1"
    assert (path / "second").read_text() == "2"


@pytest.mark.parametrize("mine", [NEW, OLD])
def test_the_newer_of_two_wins_and_both_survive(account: Account, mine: int) -> None:
    """Of two files with one name the newer takes the place; removing the original loses neither."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(path / "file", "from home", mine)
    put(target / "file", "from scratch", OLD + NEW - mine)
    caches(account, *migration(account))
    newer, older = ("from home", "from scratch") if mine == NEW else ("from scratch", "from home")
    assert (path / "file").read_text() == newer
    (record,) = (account.rv / "originals").iterdir()
    (line,) = caches(account, "remove", originals(account)[0], record, "")
    assert line.startswith("done 0 files that gave way to newer ones: ")
    assert originals(account) == []
    assert list((account.rv / "originals").iterdir()) == []
    assert (path / "file").read_text() == newer
    kept = [p for p in Path(f"{target}.rvstate-replaced").rglob("*") if p.is_file()]
    assert [p.read_text() for p in kept] == [older]


def test_same_size_and_date_but_other_contents(account: Account) -> None:
    """Files that only their contents tell apart are found before an original is removed."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(path / "file", "AAAA")
    put(target / "file", "BBBB")
    caches(account, *migration(account), remove="yes")
    assert originals(account) == []
    kept = [p for p in target.parent.rglob("file") if p.is_file()]
    assert sorted(p.read_text() for p in kept) == ["AAAA", "BBBB"]


def test_three_versions_survive(account: Account) -> None:
    """What gave way once is not overwritten by what gives way later."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(target / "file", "one", OLD)
    put(path / "file", "two", OLD + 10)
    caches(account, *migration(account))
    put(target / "file", "three", OLD + 20)
    (record,) = (account.rv / "originals").iterdir()
    caches(account, "remove", originals(account)[0], record, "")
    kept = [p.read_text() for p in target.parent.rglob("file") if p.is_file()]
    assert sorted(kept) == ["one", "three", "two"]


def test_a_file_where_a_directory_is(account: Account) -> None:
    """A conflict that cannot be resolved is said with its name; nothing was changed at home."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(path / "thing", "a file", NEW)
    put(target / "thing" / "inside", "a directory")
    before = contents(path)
    (line,) = caches(account, *migration(account))
    assert line.startswith("failed 0 rvstate: ")
    assert "thing" in line
    assert "nothing was removed" in line
    assert contents(path) == before
    assert not path.is_symlink()
    assert (target / "thing" / "inside").read_text() == "a directory"


def test_written_during_the_move(account: Account) -> None:
    """What a program writes between the copy and the rename arrives too."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(path / "early", "early")
    put(path / "grows", "one", OLD)
    shims = account.root / "shims"
    shims.mkdir()
    real = shutil.which("mv", path=account.path)
    (shims / "mv").write_text(
        f'#!/bin/sh\nif [ "$1" = "{path}" ]; then echo late >"{path}/late"; '
        f'echo two >>"{path}/grows"; fi\nexec {real} "$@"\n'
    )
    (shims / "mv").chmod(0o755)
    args = arguments(account, *migration(account))
    (line,) = said(account.run("caches", *args, PATH=f"{shims}:{account.path}"))
    assert line.startswith("done 0 ")
    assert (target / "late").read_text() == "late\n"
    assert (target / "grows").read_text() == "onetwo\n"


@pytest.mark.parametrize("where", ["target in path", "path in target", "link back"])
def test_one_inside_the_other(account: Account, where: str) -> None:
    """A target inside the cache itself, or the other way round, by whatever names, is refused."""
    path = account.home / ".cache" / "uv"
    put(path / "file", "x")
    target = account.scratch / ".cache" / "uv"
    target.parent.mkdir()
    if where == "target in path":
        target.symlink_to(path / "deep")
        (path / "deep").mkdir()
    elif where == "path in target":
        target.symlink_to(account.home)
    else:
        target.symlink_to(path)
    (line,) = caches(account, *migration(account))
    assert line.startswith("failed 0 rvstate: ")
    assert " lies in " in line
    assert (path / "file").read_text() == "x"
    assert originals(account) == []


def test_hugging_face_credentials_stay_private(account: Account) -> None:
    """Token files that others could read are 0600 afterwards, in the target and the original."""
    path = account.home / ".cache" / "huggingface"
    for name in ("token", "stored_tokens"):
        put(path / name, "hf_x")
        (path / name).chmod(0o644)
    target = account.scratch / ".cache" / "huggingface"
    target.mkdir(parents=True)
    target.chmod(0o700)
    caches(account, *migration(account, "huggingface"))
    (original,) = originals(account, "huggingface")
    modes = {stat.S_IMODE(p.stat().st_mode) for d in (target, original) for p in d.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_shared_parts_of_hugging_face(account: Account) -> None:
    """With hub shared, models go to the group, writable by it; credentials and the rest do not."""
    path = account.home / ".cache" / "huggingface"
    put(path / "token", "hf_x")
    put(path / "hub" / "model" / "blob", "mine")
    put(path / "hub" / "both", "mine", NEW)
    put(path / "xet" / "file", "x")
    shared = account.root / "shared"
    put(shared / "hub" / "both", "theirs")
    own = account.scratch / ".cache" / "huggingface"
    own.mkdir(parents=True)
    lines = caches(
        account,
        *("create", own / "hub", shared / "hub", ""),
        *migration(account, "huggingface"),
    )
    assert [line[:6] for line in lines] == ["done 0", "done 1"]
    assert os.readlink(own / "hub") == str(shared / "hub")
    assert (shared / "hub" / "model" / "blob").read_text() == "mine"
    assert (shared / "hub" / "both").read_text() == "theirs"
    assert stat.S_IMODE((shared / "hub" / "model" / "blob").stat().st_mode) & 0o060 == 0o060
    assert stat.S_IMODE((shared / "hub" / "model").stat().st_mode) & 0o2070 == 0o2070
    assert list(shared.rglob("*token*")) == []
    assert (own / "token").read_text() == "hf_x"
    assert (own / "xet" / "file").read_text() == "x"
    (record,) = (account.rv / "originals").iterdir()
    caches(account, "remove", originals(account, "huggingface")[0], record, "")
    assert originals(account, "huggingface") == []
    kept = [p.read_text() for p in account.scratch.rglob("both") if p.is_file()]
    assert sorted(kept) == ["mine", "theirs"][: len(kept)]
    assert "mine" in kept


def test_share_a_real_directory(account: Account) -> None:
    """A real hub directory moves to the group: theirs stays, ours survives on our own scratch."""
    own, shared = (
        account.scratch / ".cache" / "huggingface" / "hub",
        account.root / "shared" / "hub",
    )
    put(own / "model", "mine", NEW)
    put(own / "new", "new")
    put(shared / "model", "theirs")
    lines = caches(account, "share", own, shared, "", remove="yes")
    assert lines[0].startswith("done 0 files that gave way to newer ones: ")
    assert os.readlink(own) == str(shared)
    assert (shared / "model").read_text() == "theirs"
    assert (shared / "new").read_text() == "new"
    kept = [p for p in own.parent.rglob("model") if p.is_file() and "replaced" in str(p)]
    assert [p.read_text() for p in kept] == ["mine"]
    assert sorted(p.name for p in shared.parent.iterdir()) == ["hub"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run as another user")
def test_an_unreadable_directory_stops_it(account: Account) -> None:
    """What cannot be read cannot be verified: nothing is renamed, and the reason is given."""
    path = account.home / ".cache" / "uv"
    put(path / "readable", "x")
    (path / "unreadable").mkdir()
    for directory in (account.root, *account.root.rglob("*")):
        os.chown(directory, NOBODY, NOBODY)
    (path / "unreadable").chmod(0)
    for parent in (account.root, *account.root.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    account.user = NOBODY
    (line,) = caches(account, *migration(account))
    assert line.startswith("failed 0 rvstate: copying ")
    assert "Permission denied" in line
    assert not path.is_symlink()
    assert originals(account) == []


def test_no_rsync_there(account: Account, tmp_path: Path) -> None:
    """A copy that cannot begin changes nothing."""
    put(account.home / ".cache" / "uv" / "file", "x")
    folder = tmp_path / "without"
    folder.mkdir()
    programs = (
        "sh cat chmod date du cut find id ln mkdir mv printf readlink rm stat tr uname wc xargs"
    )
    for name in (*programs.split(), "sleep", "touch", "sed", "head"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    args = arguments(account, *migration(account))
    account.shell = shutil.which(account.shell) or account.shell
    (line,) = said(account.run("caches", *args, PATH=str(folder)))
    assert line.startswith("failed 0 rvstate: copying ")
    assert not (account.home / ".cache" / "uv").is_symlink()


# ------------------------------------------------------------------------------ full disks
def mounted(account: Account, where: Path, options: str) -> bool:
    """A small file system of its own; whether this machine lets us have one."""
    where.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small(request: pytest.FixtureRequest, account: Account):
    """Home or scratch on a file system with little room, named by the test's parameter."""
    which, options = request.param
    where = account.home if which == "home" else account.scratch
    if not mounted(account, where, options):
        pytest.skip("this machine does not let the tests mount a file system")
    try:
        (account.home / ".cache").mkdir(exist_ok=True)
        account.rv.mkdir(exist_ok=True)
        yield account
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.parametrize(
    "small", [("scratch", "size=2m"), ("scratch", "nr_inodes=30")], indirect=True
)
def test_a_target_that_fills_up(small: Account) -> None:
    """Scratch full half way, in bytes or in inodes: home stays; with room it finishes."""
    path = small.home / ".cache" / "uv"
    for number in range(40):
        put(path / str(number), "x" * 100_000)
    before = contents(path)
    (line,) = caches(small, *migration(small))
    assert line.startswith("failed 0 rvstate: copying ")
    assert "No space left on device" in line
    assert contents(path) == before
    subprocess.run(["mount", "-o", "remount,size=50m,nr_inodes=1000", small.scratch], check=True)
    (line,) = caches(small, *migration(small))
    assert line.startswith("done 0 ")
    assert contents(small.scratch / ".cache" / "uv") == before
    assert sorted(p.name for p in (small.scratch / ".cache").iterdir()) == ["uv"]


@pytest.mark.parametrize("small", [("home", "nr_inodes=12"), ("home", "size=1m")], indirect=True)
def test_a_full_home(small: Account) -> None:
    """In a full home the link fits, or all stays; with originals removed it is helped."""
    path = small.home / ".cache" / "uv"
    path.mkdir()
    try:
        for number in range(1000):
            (path / str(number)).write_bytes(b"x" * 50_000)
    except OSError:
        pass  # full now, which is what the test is about
    before = contents(path)
    (line,) = caches(small, *migration(small))
    if line.startswith("failed"):
        assert "converge --remove-originals" in line
        assert contents(path) == before
        assert not path.is_symlink()
        assert originals(small) == []
        assert list((small.rv / "originals").iterdir()) == []
        (line,) = caches(small, *migration(small), remove="yes")
        assert line.startswith("done 0")
        assert originals(small) == []
    assert path.is_symlink()
    assert contents(small.scratch / ".cache" / "uv") == before


@pytest.mark.parametrize("small", [("scratch", "size=50m")], indirect=True)
def test_a_target_on_another_file_system(small: Account) -> None:
    """Home and scratch are two file systems, as on every cluster."""
    path = small.home / ".cache" / "uv"
    fill(path)
    before = contents(path)
    assert os.stat(small.home).st_dev != os.stat(small.scratch).st_dev
    (line,) = caches(small, *migration(small))
    assert line.startswith("done 0 ")
    assert contents(small.scratch / ".cache" / "uv") == before


# -------------------------------------------------------------------------------- removal
def test_remove_verifies_again(account: Account) -> None:
    """What the target lost meanwhile is brought back from the original before that goes."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    fill(path)
    before = contents(path)
    caches(account, *migration(account))
    shutil.rmtree(target)
    target.mkdir()
    (record,) = (account.rv / "originals").iterdir()
    (line,) = caches(account, "remove", originals(account)[0], record, "")
    assert line == "done 0 "
    assert contents(target) == before
    assert sorted(p.name for p in account.home.joinpath(".cache").iterdir()) == ["uv"]
    assert sorted(p.name for p in target.parent.iterdir()) == ["uv"]


def test_remove_refuses_what_is_not_an_original(account: Account) -> None:
    """A record that names anything else than an original of ours removes nothing."""
    precious = account.home / "thesis"
    put(precious / "chapter", "1")
    record = account.rv / "originals" / "forged"
    put(record, f"original {precious}\ntarget {account.scratch}/x\nstate aside\n")
    (line,) = caches(account, "remove", precious, record, "")
    assert line.startswith("failed 0 ")
    assert (precious / "chapter").read_text() == "1"


def test_remove_on_a_full_target_keeps_the_original(account: Account) -> None:
    """If the target cannot be made complete, the original stays."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(path / "file", "x")
    caches(account, *migration(account))
    shutil.rmtree(target)
    put(target, "a file where the target was")
    (record,) = (account.rv / "originals").iterdir()
    (line,) = caches(account, "remove", originals(account)[0], record, "")
    assert line.startswith("failed 0 ")
    assert (originals(account)[0] / "file").read_text() == "x"
    assert record.exists()


# ----------------------------------------------------------------------------------- kills
def scene(account: Account) -> dict[str, object]:
    """A small migration with a conflict each way; what must survive it."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(path / "newer", "home newer", NEW)
    put(path / "older", "home older", OLD)
    put(path / "odd\nname" / "-rf", "odd")
    (path / "link").symlink_to("newer")
    (path / "empty").mkdir()
    put(target / "newer", "scratch older", OLD)
    put(target / "older", "scratch newer", NEW)
    put(target / "only", "scratch only")
    return contents(path)


def texts(account: Account) -> set[str]:
    found = set()
    for directory, _, files in os.walk(os.fsencode(account.root)):
        for name in files:
            path = os.path.join(directory, name)
            ours = os.path.relpath(directory, os.fsencode(account.root)).split(b"/")[0]
            if ours not in (b"home", b"scratch") or os.path.islink(path):
                continue
            found.add(Path(os.fsdecode(path)).read_text())
    return found


ALL = {"home newer", "home older", "odd", "scratch older", "scratch newer", "scratch only"}


def finished(account: Account, remove: str) -> None:
    """Run once more, as the next converge would, and check that all is as it should be."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    assert texts(account) >= ALL
    changes = list(migration(account))
    if remove == "yes":
        for record in sorted((account.rv / "originals").glob("*[0-9]")):
            found = record.read_text().splitlines()[0].removeprefix("original ")
            if os.path.isdir(found):
                changes += ["remove", found, record, ""]
    lines = caches(account, *changes, remove=remove)
    assert [line[:5] for line in lines] == ["done "] * (len(changes) // 4), lines
    assert os.readlink(path) == str(target)
    assert (target / "newer").read_text() == "home newer"
    assert (target / "older").read_text() == "scratch newer"
    assert (target / "odd\nname" / "-rf").read_text() == "odd"
    assert (target / "empty").is_dir()
    assert os.readlink(target / "link") == "newer"
    assert texts(account) >= ALL
    assert all("state aside" in r.read_text() for r in (account.rv / "originals").iterdir())
    assert not os.path.lexists(account.lock)
    assert len(originals(account)) == len(list((account.rv / "originals").iterdir()))
    assert [p.name for p in target.parent.iterdir() if "tmp" in p.name] == []


def restart(account: Account) -> None:
    shutil.rmtree(account.home, ignore_errors=True)
    shutil.rmtree(account.scratch, ignore_errors=True)
    account.rv.mkdir(parents=True)
    scene(account)


@pytest.mark.parametrize("remove", ["no", "yes"])
def test_every_state_on_the_way_is_safe(bash_account: Account, remove: str) -> None:
    """What a kill -9 before any single command leaves on the disk: nothing is lost, and the next
    run finishes."""
    account = bash_account
    restart(account)
    count, states = account.states(
        "caches", *arguments(account, *migration(account), remove=remove)
    )
    assert count > 200
    assert len(states) > 15
    for state in states:
        account.restore(state)
        finished(account, remove)


@pytest.mark.slow
def test_killed_before_commands(bash_account: Account) -> None:
    """Really killed, with all its children, before every 16th command: nothing is lost, and the
    next run finishes."""
    account = bash_account
    number = 1
    while True:
        restart(account)
        args = arguments(account, *migration(account))
        if not account.killed_at_command(number, "caches", *args):
            break
        finished(account, "no")
        number += 16
    assert number > 200


@pytest.mark.slow
@pytest.mark.parametrize("remove", ["no", "yes"])
def test_killed_after_each_program(account: Account, remove: str) -> None:
    """Killed after each program that the script starts, under sh and bash: nothing is lost, and the
    next run finishes."""
    number = 0
    while True:
        number += 1
        restart(account)
        args = arguments(account, *migration(account), remove=remove)
        if not account.killed_at_program(number, "after", "caches", *args):
            break
        finished(account, remove)
    assert number > 20


def test_killed_in_the_middle_of_a_copy(account: Account) -> None:
    """Killed while rsync writes a file: nothing half is in the cache, the next run finishes."""
    path, target = account.home / ".cache" / "uv", account.scratch / ".cache" / "uv"
    put(path / "large", "x" * 3_000_000)
    shims = account.root / "shims"
    shims.mkdir()
    real = shutil.which("rsync", path=account.path)
    (shims / "rsync").write_text(
        f"""#!/bin/sh
{real} --bwlimit=100 "$@" &
while [ -z "$(find '{target}.rvstate-tmp-'* -type f 2>/dev/null)" ]; do sleep 0.05; done
kill -s KILL -- "-$RV_GROUP"
"""
    )
    (shims / "rsync").chmod(0o755)
    args = arguments(account, *migration(account))
    assert account.killed("", "caches", *args, PATH=f"{shims}:{account.path}")
    assert not (target / "large").exists()
    assert (path / "large").stat().st_size == 3_000_000
    (line,) = caches(account, *migration(account))
    assert line.startswith("done 0 ")
    assert (target / "large").stat().st_size == 3_000_000
    assert sorted(p.name for p in target.parent.iterdir()) == ["uv"]


def test_two_migrations_at_once(account: Account) -> None:
    """Two converges of one account at once: one waits, both end well, one original."""
    from rvstate.script import Script

    fill(account.home / ".cache" / "uv")
    before = contents(account.home / ".cache" / "uv")
    args = (account.lock, "60", str(account.rv / "originals"), "no")
    scripts = [Script("caches", (*args, *map(str, migration(account)))) for _ in range(2)]
    running = [account.start(script) for script in scripts]
    answers = [
        account.finish(process, script.nonce)
        for process, script in zip(running, scripts, strict=True)
    ]
    assert [said(answer)[0][:6] for answer in answers] == ["done 0", "done 0"]
    assert contents(account.scratch / ".cache" / "uv") == before
    assert len(originals(account)) == 1


def test_sockets_and_dates(account: Account) -> None:
    """A socket in a cache does not stop it, and dates travel."""
    path = account.home / ".cache" / "uv"
    put(path / "file", "x", 1_234_567_890)
    here = Path.cwd()
    os.chdir(path)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            (line,) = caches(account, *migration(account))
    finally:
        os.chdir(here)
    assert line.startswith("done 0 ")
    assert (account.scratch / ".cache" / "uv" / "file").stat().st_mtime == 1_234_567_890


def test_a_second_converge_finds_the_lock_busy(account: Account) -> None:
    """A converge that cannot get the lock changes nothing."""
    put(account.home / ".cache" / "uv" / "file", "x")
    os.symlink("elsewhere 1 2 3", account.lock)
    os.utime(account.lock, (time.time(),) * 2, follow_symlinks=False)
    before = account.tree(account.home)
    answer = account.run("caches", *arguments(account, *migration(account)))
    assert answer.status == 1
    assert "another rvstate is changing this account" in answer.errors
    assert account.tree(account.home) == before
