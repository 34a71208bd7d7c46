"""Digests of files and directories, and what is read again."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from rvstate import assets
from rvstate.shell import quote
from tests.runkit import ODD_NAMES, program

pytestmark = pytest.mark.parametrize("shell", ["dash", "bash"])


def digests(shell: str, base: Path, *paths: str) -> tuple[dict[str, str], str, int]:
    """Digest by path, what was read, and the exit status; tables are kept beside the base."""
    work = base.parent / "work"
    subprocess.run(["rm", "-rf", work], check=True)
    work.mkdir()
    table = base.parent / "table"
    if table.exists():
        (work / "known").write_bytes(table.read_bytes())
    words = " ".join(map(quote, (str(base), str(work), *paths)))
    text = f"{assets.script('lib')}\n{assets.script('digests')}\nrv_path_digests {words}\n"
    done = subprocess.run(
        [program(shell)], input=text.encode("utf-8", "surrogateescape"), capture_output=True
    )
    if done.returncode == 0:
        table.write_bytes((work / "table").read_bytes())
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    read = work / "unread"
    asked = read.read_bytes().decode("utf-8", "surrogateescape") if read.exists() else ""
    found = {path: digest for digest, _, path in (line.partition(" ") for line in lines)}
    return found, asked, done.returncode


def old(*paths: Path) -> None:
    """Make files look as if nobody had written to them for a while."""
    for path in paths:
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with a file, and one with files of odd names."""
    found = tmp_path / "data"
    (found / "many/sub").mkdir(parents=True)
    (found / "one.txt").write_text("one\n")
    for name in ODD_NAMES:
        (found / "many" / name).write_text(ascii(name))
    (found / "many/sub/empty").touch()
    old(*(path for path in found.rglob("*") if path.is_file()))
    return found


def test_contents_decide(base: Path, shell: str) -> None:
    """A file's digest is that of its bytes; a directory's changes with any name or byte in it."""
    found, _, status = digests(shell, base, "one.txt", "many", "gone", str(base / "one.txt"))
    assert status == 0
    assert found["one.txt"] == hashlib.sha256(b"one\n").hexdigest()
    assert found[str(base / "one.txt")] == found["one.txt"]
    assert found["gone"] == "-"
    seen = {found["many"]}
    (base / "many/sub/empty").write_text("x")
    seen.add(digests(shell, base, "many")[0]["many"])
    (base / "many/sub/empty").rename(base / "many/sub/other")
    seen.add(digests(shell, base, "many")[0]["many"])
    (base / "many/line\nbreak").unlink()
    seen.add(digests(shell, base, "many")[0]["many"])
    assert len(seen) == 4


def test_an_empty_directory_is_there(base: Path, shell: str) -> None:
    """It holds nothing, which is another thing than not being there."""
    (base / "empty").mkdir()
    found, _, status = digests(shell, base, "empty", "one.txt")
    assert (status, len(found["empty"])) == (0, 64)
    assert found["empty"] != found["one.txt"]


def test_only_what_looks_changed_is_read_again(base: Path, shell: str) -> None:
    """By size, date and inode; a touch has the file read, and its digest stays."""
    first, asked, _ = digests(shell, base, "one.txt", "many")
    assert asked.count("\0") == len(ODD_NAMES) + 2
    again, asked, _ = digests(shell, base, "many", "one.txt")
    assert (again, asked) == (first, "")
    os.utime(base / "one.txt", (1_700_000_001, 1_700_000_001))
    touched, asked, _ = digests(shell, base, "one.txt", "many")
    assert (touched, asked) == (first, "./one.txt\0")
    assert digests(shell, base, "one.txt", "many")[1] == ""
    # as long as before, with the same date: another file all the same
    (base / "new").write_text("two\n")
    (base / "new").rename(base / "one.txt")
    os.utime(base / "one.txt", (1_700_000_001, 1_700_000_001))
    changed, asked, _ = digests(shell, base, "one.txt", "many")
    assert asked == "./one.txt\0"
    assert changed["one.txt"] == hashlib.sha256(b"two\n").hexdigest()


def test_a_file_that_was_just_written_is_not_trusted(base: Path, shell: str) -> None:
    """It could be written once more within what its file system calls the same moment."""
    (base / "one.txt").write_text("now\n")
    assert digests(shell, base, "one.txt")[1] == "./one.txt\0"
    assert digests(shell, base, "one.txt")[1] == "./one.txt\0"


def test_links_are_what_they_lead_to(base: Path, shell: str) -> None:
    """As a program reads them; one that leads nowhere is told apart, at the top it is nothing."""
    (base / "link").symlink_to("one.txt")
    (base / "tree").symlink_to("many")
    (base / "broken").symlink_to("nowhere")
    found, _, status = digests(shell, base, "link", "tree", "broken", "many", "one.txt")
    assert status == 0
    assert found["link"] == found["one.txt"]
    assert found["tree"] == found["many"]
    assert found["broken"] == "-"
    (base / "many/broken").symlink_to("nowhere")
    assert digests(shell, base, "many")[0]["many"] != found["many"]


def test_pipes_are_not_read(base: Path, shell: str) -> None:
    """Who reads one waits for ever."""
    os.mkfifo(base / "many/pipe")
    found, _, status = digests(shell, base, "many")
    assert (status, len(found["many"])) == (0, 64)


def test_what_cannot_be_read_is_no_answer(base: Path, shell: str) -> None:
    """Rather none than one that leaves something out: a name is taken for another, say."""
    (base / "many/odd\x01name").write_text("x")
    found, _, status = digests(shell, base, "many", "one.txt")
    assert status == 1
    assert "many" not in found
