"""The look: what it answers, that it writes nothing, and what it costs."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from harness import Account

from rvstate import desired, probe
from rvstate.model.layout import SYMBOLIC
from rvstate.model.observed import Absent, Built, ObservedState, Present, Unreadable
from rvstate.model.settings import Settings
from rvstate.model.site import Site
from rvstate.probe import Question

NOBODY = 65534


def look(account: Account, *asked: Question, **env: str) -> ObservedState:
    script = probe.script(str(account.scratch), "", asked)
    return probe.read(account.finish(account.start(script, **env), script.nonce), asked)


def test_who_we_are(account: Account) -> None:
    """User, home and scratch as the cluster sees them; a home that is a link is resolved."""
    link = account.root / "linked home"
    link.symlink_to(account.home)
    script = probe.script("/scratch/{user}/of{home}", "", ())
    answer = account.finish(account.start(script, HOME=str(link), SHELL="/bin/zsh"), script.nonce)
    seen = probe.read(answer, ()).account
    assert (seen.user, seen.uid, seen.shell) == ("someone", os.geteuid(), "/bin/zsh")
    assert seen.home == str(account.home)
    assert seen.scratch == f"/scratch/someone/of{account.home}"
    assert seen.node == os.uname().nodename


def test_every_kind_of_entry(account: Account) -> None:
    """Files, directories, links and pipes are told apart; names are taken as they are."""
    home = account.home
    (home / "a b;'").mkdir(mode=0o750)
    (home / "file").write_text("12345")
    (home / "-link").symlink_to("nowhere at all")
    (home / "good").symlink_to("file")
    os.mkfifo(home / "pipe")
    names = ("a b;'", "file", "-link", "good", "pipe", "absent")
    seen = look(account, *(("stat", str(home / name)) for name in names))
    found = [seen.entry(str(home / name)) for name in names]
    assert found[5] == Absent()
    present = [entry for entry in found if isinstance(entry, Present)]
    assert [e.type for e in present] == ["d", "f", "l", "l", "o"]
    assert (present[0].mode, present[1].size) == (0o750, 5)
    assert (present[2].target, present[2].leads_to) == ("nowhere at all", "N")
    assert (present[3].target, present[3].leads_to) == ("file", "f")


def test_digests_and_texts(account: Account) -> None:
    """Digests of odd names, texts byte for byte, and none of what is too large."""
    home = account.home
    odd = home / "back\\slash and space"
    odd.write_text("x")
    (home / "rc").write_bytes(b"one\n\xff\n\n")
    (home / "large").write_bytes(b"x" * ((1 << 20) + 1))
    (home / "limit").write_bytes(b"x" * (1 << 20))
    asked = [("digest", str(odd)), ("digest", str(home / "absent"))]
    asked += [("text", str(home / name)) for name in ("rc", "large", "limit", "absent")]
    seen = look(account, *asked)
    assert seen.digests[str(odd)].startswith("2d711642b726b044")
    assert seen.texts[str(home / "rc")] == "one\n\udcff\n\n"
    assert sorted(seen.texts) == [str(home / "limit"), str(home / "rc")]
    assert seen.digests[str(home / "rc")] == hashlib.sha256(b"one\n\xff\n\n").hexdigest()


def test_trees_and_space(account: Account) -> None:
    """A real directory's size and entries, none for a link; room where a path would be."""
    tree = account.home / ".cache" / "uv"
    (tree / "a\nb").mkdir(parents=True)
    (tree / "file").write_bytes(b"x" * 20_000)
    target = account.scratch / ".cache" / "uv"
    (account.home / "link").symlink_to(tree)
    seen = look(
        account,
        ("tree", str(tree)),
        ("copied", str(target)),
        ("tree", str(account.home / "link")),
        ("copied", str(tree)),
        ("space", str(target)),
        ("space", str(account.home)),
    )
    assert list(seen.trees) == [str(tree)]
    assert seen.trees[str(tree)].entries == 2
    assert seen.trees[str(tree)].size >= 20_000
    assert seen.trees[str(tree)].stuck == ""
    assert seen.copied == {}
    assert seen.spaces[str(target)].free > 0
    assert seen.spaces[str(account.home)].mount


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make other users' files")
def test_closed_doors_and_strangers(account: Account) -> None:
    """What may not be entered, read or moved is said with its name, and is not taken for absent."""
    home = account.home
    for name in ("closed", ".cache/uv/unreadable", ".cache/pip"):
        (home / name).mkdir(parents=True)
    (home / ".bashrc").write_text("x")
    (home / "unreadable").write_text("x")
    for path in (account.root, *account.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    (home / ".cache" / "pip" / "root's").write_text("x")
    os.chown(home / ".bashrc", 0, 0)
    for path in (home / "closed", home / ".cache/uv/unreadable", home / "unreadable"):
        path.chmod(0)
    for parent in (account.root, *account.root.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    account.user = NOBODY
    seen = look(
        account,
        ("stat", str(home / "closed" / "inside" / "deep")),
        ("tree", str(home / ".cache" / "uv")),
        ("tree", str(home / ".cache" / "pip")),
        ("text", str(home / "unreadable")),
        ("text", str(home / ".bashrc")),
    )
    assert seen.entry(str(home / "closed" / "inside" / "deep")) == Unreadable(str(home / "closed"))
    assert seen.trees[str(home / ".cache" / "uv")].stuck == str(home / ".cache/uv/unreadable")
    assert seen.trees[str(home / ".cache" / "pip")].stuck == str(home / ".cache" / "pip" / "root's")
    assert seen.entry(str(home / "unreadable")) == Unreadable(str(home / "unreadable"))
    assert seen.strangers == {str(home / ".bashrc")}
    assert seen.texts == {}


def test_tools(account: Account) -> None:
    """Programs are found on PATH, in ~/.local/bin and among our own tools."""
    ours = account.rv / "tools" / "bin"
    ours.mkdir(parents=True)
    (ours / "rvstate-test-tool").write_text("#!/bin/sh\n")
    (ours / "rvstate-test-tool").chmod(0o755)
    seen = look(account, ("tool", "rvstate-test-tool"), ("tool", "sh"), ("tool", "no such tool"))
    assert seen.tools["rvstate-test-tool"] == str(ours / "rvstate-test-tool")
    assert sorted(seen.tools) == ["rvstate-test-tool", "sh"]


def test_records(account: Account) -> None:
    """Originals are told with their records; a record without its original means nothing."""
    folder = account.rv / "originals"
    folder.mkdir()
    original = account.home / "uv.rvstate-original-1-2"
    original.mkdir()
    text = "original {}\ntarget /t\nbytes 10\nentries 3\nmade 5\nsharing no\nstate {}\n"
    (folder / "one").write_text(text.format(original, "aside"))
    (folder / "two").write_text(text.format(original, "moving"))
    (folder / "gone").write_text(text.format("/nowhere.rvstate-original-1", "aside"))
    (folder / "cut").write_text(f"original {original}\ntarg")
    seen = look(account, ("records", str(folder)))
    assert [(o.record, o.path, o.size, o.entries, o.moving) for o in seen.originals] == [
        (str(folder / "one"), str(original), 10, 3, False),
        (str(folder / "two"), str(original), 10, 3, True),
    ]


def whole(account: Account) -> tuple[Question, ...]:
    site = Site("test", "test")
    return probe.questions(desired.account(Settings(), site, SYMBOLIC, {"A": "1"}))


def test_writes_nothing(account: Account) -> None:
    """The whole look leaves everything as it was: contents, modes, dates and links."""
    (account.home / ".cache" / "uv").mkdir()
    (account.home / ".bashrc").write_text("x")
    before = account.tree()
    look(account, *whole(account))
    assert account.tree() == before


def test_costs_few_processes(account: Account) -> None:
    """A look at a whole account starts at most a dozen programs, however much is declared."""
    count = account.root / "count"
    shims = account.root / "shims"
    shims.mkdir()
    programs = "cat cut date df du find head id readlink sed sha256sum stat tail tr uname wc"
    for name in programs.split():
        real = shutil.which(name)
        (shims / name).write_text(f'#!/bin/sh\necho {name} >>"{count}"\nexec {real} "$@"\n')
        (shims / name).chmod(0o755)
    (account.home / ".bashrc").write_text("x")
    look(account, *whole(account), PATH=f"{shims}:{account.path}")
    assert len(count.read_text().split()) <= 12, count.read_text()


def test_a_line_break_in_home_is_refused(account: Account) -> None:
    """A home directory with a line break in its name is refused by name, not cut short."""
    from rvstate.errors import ConfigError

    home = Path(f"{account.root}/with\nbreak")
    home.mkdir()
    script = probe.script("/scratch/{user}", "", ())
    answer = account.finish(account.start(script, HOME=str(home)), script.nonce)
    with pytest.raises(ConfigError, match="control character"):
        probe.read(answer, ())


def test_environments(account: Account) -> None:
    """Each link with its stamp, interpreter and last walk; what is not ours is passed over."""
    envs = account.rv / "envs"
    for name in ("whole", "bare", "gone"):
        place = envs / "app/.generations" / name / "d1"
        (place / "bin").mkdir(parents=True)
        os.symlink(place, envs / "app" / name)
    place = envs / "app/whole"
    (place / "bin/python").symlink_to("/bin/sh")
    (place / ".rvstate-environment").write_text("d1\nPython 3\n")
    (place / ".rvstate").mkdir()
    (place / ".rvstate/verified").write_text("1700000000 damaged\n")
    shutil.rmtree(envs / "app/.generations/gone")
    (envs / "app/mine").mkdir()
    (envs / "app/link").symlink_to(envs / "app/mine")
    seen = look(account, ("environments", str(envs)))
    assert seen.environments == {
        str(envs / "app/whole"): Built("d1", True, 1700000000, True),
        str(envs / "app/bare"): Built("", False),
        str(envs / "app/gone"): Built("", False),
    }
