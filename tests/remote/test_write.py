"""Files put in place: at once or not at all, and never over what changed since the look."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from harness import Account, said
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvstate.shell import printf_b

NOBODY = 65534


def escaped(text: str) -> str:
    return printf_b(text.encode("utf-8", "surrogateescape"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(account: Account, *words: object) -> list[str]:
    return said(account.run("write", account.lock, 0, *words))


@pytest.fixture
def rc(account: Account) -> Path:
    path = account.home / ".bashrc"
    path.write_text("# mine\n")
    return path


def test_new_file(account: Account) -> None:
    """A new file has its mode, its directories are made, and one with secrets has a private one."""
    path = account.rv / "env" / "user.env"
    assert write(account, path, "absent", "600", escaped("A=1\n")) == ["done 0 "]
    assert path.read_text() == "A=1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_run_twice(account: Account, rc: Path) -> None:
    """The same script again sees that the file is no longer what the look found."""
    words = (rc, digest(rc), "-", escaped("# new\n"))
    assert write(account, *words) == ["done 0 "]
    (line,) = write(account, *words)
    assert "changed since the look and was left alone" in line
    assert rc.read_text() == "# new\n"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755])
def test_keeps_mode(account: Account, rc: Path, mode: int) -> None:
    """A start-up file keeps its mode."""
    rc.chmod(mode)
    assert write(account, rc, digest(rc), "-", escaped("x")) == ["done 0 "]
    assert stat.S_IMODE(rc.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file another group")
def test_keeps_owner_and_group(account: Account, rc: Path) -> None:
    """A start-up file keeps its group."""
    os.chown(rc, -1, NOBODY)
    assert write(account, rc, digest(rc), "-", escaped("x")) == ["done 0 "]
    assert (rc.stat().st_uid, rc.stat().st_gid) == (0, NOBODY)


def test_follows_the_users_own_link(account: Account, rc: Path) -> None:
    """A symlinked start-up file stays a link, and the file behind it is edited."""
    real = account.home / "dotfiles" / "bashrc"
    real.parent.mkdir()
    rc.rename(real)
    rc.symlink_to("dotfiles/bashrc")
    assert write(account, rc, digest(real), "-", escaped("x")) == ["done 0 "]
    assert os.readlink(rc) == "dotfiles/bashrc"
    assert real.read_text() == "x"


def test_never_writes_a_secret_through_a_link(account: Account) -> None:
    """An environment file that became a link is not followed."""
    path = account.rv / "user.env"
    elsewhere = account.home / "public"
    elsewhere.write_text("public")
    path.symlink_to(elsewhere)
    (line,) = write(account, path, "any", "600", escaped("SECRET=1"))
    assert "became a link" in line
    assert elsewhere.read_text() == "public"


def test_changed_since_the_look(account: Account, rc: Path) -> None:
    """A file that changed since the look keeps the change; the others are written all the same."""
    seen = digest(rc)
    rc.write_text("# edited meanwhile\n")
    other = account.home / ".zshrc"
    lines = write(account, rc, seen, "-", escaped("x"), other, "absent", "-", escaped("y"))
    assert lines[0] == (
        f"failed 0 rvstate: {rc} changed since the look and was left alone; run converge again"
    )
    assert lines[1] == "done 1 "
    assert rc.read_text() == "# edited meanwhile\n"
    assert other.read_text() == "y"


def test_appeared_since_the_look(account: Account, rc: Path) -> None:
    """A file that appeared since the look is left alone."""
    (line,) = write(account, rc, "absent", "-", escaped("x"))
    assert "appeared since the look" in line
    assert rc.read_text() == "# mine\n"


def test_vanished_since_the_look(account: Account, rc: Path) -> None:
    """A file that vanished since the look is not brought back with what it held."""
    seen = digest(rc)
    rc.unlink()
    (line,) = write(account, rc, seen, "-", escaped("x"))
    assert "changed since the look" in line
    assert not rc.exists()


def test_a_directory_in_the_way(account: Account) -> None:
    """Nothing is moved into a directory that stands where a file should be."""
    path = account.rv / "lib" / "job.sh"
    path.mkdir(parents=True)
    (line,) = write(account, path, "any", "755", escaped("x"))
    assert "is a directory" in line
    assert list(path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run as another user")
def test_a_stranger_s_file_behind_a_link(account: Account, rc: Path) -> None:
    """A link to somebody else's start-up file, even a writable one, is not edited."""
    shared = account.root / "shared-bashrc"
    rc.rename(shared)
    rc.symlink_to(shared)
    shared.chmod(0o666)
    for path in (account.home, account.scratch, account.rv):
        os.chown(path, NOBODY, NOBODY)
    for parent in (account.root, *account.root.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    account.user = NOBODY
    (line,) = write(account, rc, digest(shared), "-", escaped("x"))
    assert "is not yours to change" in line
    assert shared.read_text() == "# mine\n"


def test_a_full_disk(account: Account) -> None:
    """On a full disk the old file stays whole, no half file stays, and the reason is given."""
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(account.home)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the tests mount a file system")
    try:
        rc = account.home / ".bashrc"
        rc.write_text("# mine\n")
        (line,) = write(account, rc, digest(rc), "-", escaped("x" * 100_000))
        assert line.startswith("failed 0 ")
        assert "No space left on device" in line
        assert rc.read_text() == "# mine\n"
        assert [p.name for p in account.home.iterdir()] == [".bashrc"]
    finally:
        subprocess.run(["umount", account.home], check=True)


def test_what_a_killed_run_left_is_cleared_away(account: Account, rc: Path) -> None:
    """The half file of a killed run is gone after the next one."""
    (account.home / ".bashrc.rvstate-tmp-12345").write_text("half")
    assert write(account, rc, digest(rc), "-", escaped("x")) == ["done 0 "]
    assert [p.name for p in account.home.iterdir() if p.is_file()] == [".bashrc"]


def sources(account: Account, text: str) -> None:
    path = account.rv / "file"
    assert write(account, path, "any", "600", escaped(text)) == ["done 0 "]
    assert path.read_bytes() == text.encode("utf-8", "surrogateescape")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.text(
        st.one_of(
            st.sampled_from("\n\r\t \\'\"$`%;#!*\x00é\udcff-0").filter(lambda c: c != "\x00"),
            st.characters(min_codepoint=1, exclude_categories=["Cs"]),
        ),
        max_size=60,
    )
)
def test_any_contents_arrive(account: Account, text: str) -> None:
    """Contents of any kind arrive byte for byte: quotes, escapes, line breaks, no UTF-8."""
    sources(account, text)


def restart(account: Account) -> tuple[Path, tuple[object, ...]]:
    shutil.rmtree(account.home)
    shutil.rmtree(account.scratch)
    account.rv.mkdir(parents=True)
    account.home.mkdir()
    rc = account.home / ".bashrc"
    rc.write_text("# mine\n")
    new = account.rv / "env" / "user.env"
    words = (rc, digest(rc), "-", escaped("# mine\n# ours\n"), new, "any", "600", escaped("A=1"))
    return rc, words


def finished(account: Account, rc: Path, words: tuple[object, ...]) -> None:
    """After a kill each file is the old or the new one; after another run both are new."""
    assert rc.read_text() in ("# mine\n", "# mine\n# ours\n")
    again = (rc, digest(rc), *words[2:])
    assert [line[:6] for line in write(account, *again)] == ["done 0", "done 1"]
    assert rc.read_text() == "# mine\n# ours\n"
    assert (account.rv / "env" / "user.env").read_text() == "A=1"
    assert [p.name for p in account.home.iterdir()] == [".bashrc"]
    assert [p.name for p in (account.rv / "env").iterdir()] == ["user.env"]


def test_killed_before_each_command(bash_account: Account) -> None:
    """Killed before each single command: every file is whole, and the next run finishes."""
    number = 0
    while True:
        number += 1
        rc, words = restart(bash_account)
        if not bash_account.killed_at_command(number, "write", bash_account.lock, 0, *words):
            break
        finished(bash_account, rc, words)
    assert number > 40


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_each_program(account: Account, when: str) -> None:
    """Killed before and after each program: every file is whole, and the next run finishes."""
    number = 0
    while True:
        number += 1
        rc, words = restart(account)
        if not account.killed_at_program(number, when, "write", account.lock, 0, *words):
            break
        finished(account, rc, words)
    assert number > 5
