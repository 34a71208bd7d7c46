"""`rvstate converge` on the embedded default: an account in a directory on this machine."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from accountkit import Rv, tree

from rvstate import rcblock


@pytest.fixture
def home(rv: Rv) -> Path:
    return rv.state / "local" / "home"


@pytest.fixture
def scratch(rv: Rv) -> Path:
    return rv.state / "local" / "scratch"


@pytest.fixture
def converged(rv: Rv) -> Rv:
    done = rv.converge()
    assert done.status == 0, done
    return rv


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---------------------------------------------------------------------------- the whole way
def test_empty_account(rv: Rv, home: Path, scratch: Path) -> None:
    """An empty account is made as declared; the recap counts it, and the second look agrees."""
    done = rv.converge()
    assert (done.status, done.errors) == (0, "")
    host = done.host
    assert host["verified"] is True
    assert {action for _, _, action in done.changes} == {"create"}
    recap = host["recap"]
    assert (recap["changed"], recap["failed"], recap["refused"]) == (len(done.changes), 0, 0)
    assert os.readlink(home / ".cache" / "uv") == str(scratch / ".cache" / "uv")
    assert stat.S_IMODE((scratch / ".rv").stat().st_mode) == 0o700
    assert stat.S_IMODE((scratch / ".rv" / "env" / "user.env").stat().st_mode) == 0o600
    assert f"export HF_HOME={scratch}/.cache/huggingface" in (home / ".bashrc").read_text()


def test_second_run_changes_nothing(converged: Rv) -> None:
    """The second run has nothing to do, says so with one remote command, and touches nothing."""
    local = converged.state / "local"
    before = tree(local)
    done = converged.converge()
    assert (done.status, done.changes, done.host["remote_commands"]) == (0, [], 1)
    assert done.host["verified"] is None
    assert tree(local) == before
    assert converged.run("converge").status == 0


def test_document(rv: Rv) -> None:
    """The JSON document has the promised form, and nothing else is on standard output."""
    document = rv.check().json
    assert {k: document[k] for k in ("schema", "command", "mode")} == {
        "schema": 1,
        "command": "converge",
        "mode": "check",
    }
    (host,) = document["hosts"]
    assert {"host", "changes", "recap", "remote_commands", "verified"} <= set(host)
    for change in host["changes"]:
        assert {"kind", "name", "path", "action", "reason"} <= set(change)
    assert set(host["recap"]) == {"ok", "changed", "failed", "refused"}


def test_check_writes_nothing(rv: Rv, home: Path) -> None:
    """`--check` leaves the whole account as it was, whatever there would be to do."""
    put(home / ".cache" / "uv" / "file", "x")
    put(home / ".bashrc", "# mine\n")
    before = tree(home.parent)
    done = rv.check("--detailed-exitcode", "--diff")
    assert done.status == 2
    assert ("cache", "uv", "migrate") in done.changes
    assert tree(home.parent) == before
    assert rv.check().status == 0


# ------------------------------------------------------------------------------------ damage
@dataclass(frozen=True)
class Place:
    """An account's two roots."""

    home: Path
    scratch: Path


DAMAGE: dict[str, tuple[Callable[[Place], object], list[tuple[str, str, str]]]] = {
    "directory gone": (
        lambda at: (at.scratch / ".rv" / "outputs").rmdir(),
        [("directory", "{scratch}/.rv/outputs", "create")],
    ),
    "directory open": (
        lambda at: (at.scratch / ".rv" / "env").chmod(0o755),
        [("directory", "{scratch}/.rv/env", "update")],
    ),
    "link gone": (
        lambda at: (at.home / ".cache" / "uv").unlink(),
        [("cache", "uv", "create")],
    ),
    "target gone": (
        lambda at: (at.scratch / ".cache" / "uv").rmdir(),
        [("directory", "{scratch}/.cache/uv", "create")],
    ),
    "real directory": (
        lambda at: (
            (at.home / ".cache" / "uv").unlink(),
            put(at.home / ".cache" / "uv" / "file", "x"),
        ),
        [("cache", "uv", "migrate")],
    ),
    "block edited": (
        lambda at: (at.home / ".bashrc").write_text(
            (at.home / ".bashrc").read_text().replace("export UV", "export XX")
        ),
        [("shell", ".bashrc", "update")],
    ),
    "block gone": (
        lambda at: (at.home / ".bashrc").write_text("# mine\n"),
        [("shell", ".bashrc", "update")],
    ),
    "environment file gone": (
        lambda at: (at.scratch / ".rv" / "env" / "user.env").unlink(),
        [("env", "user.env", "create")],
    ),
    "environment file edited": (
        lambda at: (at.scratch / ".rv" / "env" / "user.env").write_text("A=1\n"),
        [("env", "user.env", "update")],
    ),
    "environment file open": (
        lambda at: (at.scratch / ".rv" / "env" / "user.env").chmod(0o644),
        [("env", "user.env", "update")],
    ),
    "script edited": (
        lambda at: next((at.scratch / ".rv" / "lib").glob("*/job.sh")).write_text("#"),
        [("scripts", "*", "replace")],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_one_thing(converged: Rv, home: Path, scratch: Path, name: str) -> None:
    """One thing damaged by hand: exactly that is planned, mended, and then nothing is to do."""
    damage, expected = DAMAGE[name]
    damage(Place(home, scratch))
    planned = converged.check().changes
    wanted = [(k, n.format(scratch=scratch), a) for k, n, a in expected]
    assert [
        (k, "*" if w == "*" else n, a) for (k, n, a), (_, w, _) in zip(planned, wanted, strict=True)
    ] == wanted
    done = converged.converge()
    assert (done.status, done.changes, done.host["verified"]) == (0, planned, True)
    assert converged.check().changes == []


# ---------------------------------------------------------------------------------- refusals
def test_foreign_things_are_refused_together(rv: Rv, home: Path) -> None:
    """All that is in the way is named with its ways out, and nothing at all is written."""
    put(home / ".cache" / "uv", "a file")
    (home / ".cache" / "pip").symlink_to("/somewhere/else")
    put(home / ".bashrc", f"{rcblock.BEGIN}\nexport A=1\n")
    put(rv.state / "local" / "scratch" / ".rv", "a file")
    before = tree(home.parent)
    done = rv.converge()
    assert done.status == 3
    assert tree(home.parent) == before
    refused = [c for c in done.host["changes"] if c["action"] == "refuse"]
    assert [c["name"].rpartition("/")[2] for c in refused] == [".rv", "uv", "pip", ".bashrc"]
    assert all(c["ways_out"] for c in refused)
    assert done.host["recap"]["refused"] == 4
    assert done.host["recap"]["changed"] == 0
    text = rv.run("converge", "-y")
    assert text.status == 3
    assert "4 resources cannot be touched safely, so nothing was written" in text.output


def test_a_symlinked_start_up_file(rv: Rv, home: Path) -> None:
    """A .bashrc kept elsewhere by a link is edited there, and the link stays."""
    put(home / "dotfiles" / "bashrc", "# mine\n")
    (home / ".bashrc").symlink_to("dotfiles/bashrc")
    assert rv.converge().status == 0
    assert os.readlink(home / ".bashrc") == "dotfiles/bashrc"
    assert (home / "dotfiles" / "bashrc").read_text().startswith("# mine\n")
    assert rv.check().changes == []


def test_cache_directory_that_is_a_link(rv: Rv, home: Path, scratch: Path) -> None:
    """`~/.cache` as a link to scratch needs no links of ours; elsewhere it is refused."""
    home.mkdir(parents=True)
    (home / ".cache").symlink_to(scratch / ".cache")
    done = rv.converge()
    assert done.status == 0
    assert not any(kind == "cache" for kind, _, _ in done.changes)
    assert rv.check().changes == []
    (home / ".cache").unlink()
    (home / "elsewhere").mkdir()
    (home / ".cache").symlink_to(home / "elsewhere")
    done = rv.converge()
    assert done.status == 3
    assert {action for kind, _, action in done.changes if kind == "cache"} == {"refuse"}


# --------------------------------------------------------------------------------- migration
def test_migration_and_its_original(rv: Rv, home: Path, scratch: Path) -> None:
    """A real cache moves; its original is kept and named, is no change, and goes when asked to."""
    put(home / ".cache" / "huggingface" / "token", "hf_secret")
    (home / ".cache" / "huggingface" / "token").chmod(0o644)
    put(home / ".cache" / "huggingface" / "hub" / "a b" / "blob", "x" * 5000)
    done = rv.converge()
    assert (done.status, done.host["verified"]) == (0, True)
    assert ("cache", "huggingface", "migrate") in done.changes
    assert (home / ".cache" / "huggingface" / "hub" / "a b" / "blob").read_text() == "x" * 5000
    (kept,) = done.host["originals"]
    assert Path(kept["path"], "hub", "a b", "blob").exists()
    assert kept["bytes"] >= 5000
    assert kept["entries"] == 4
    token = scratch / ".cache" / "huggingface" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    again = rv.converge()
    assert (again.status, again.changes) == (0, [])
    assert again.host["originals"] == [kept]
    text = rv.run("converge", "--check").output
    assert kept["path"] in text
    # later, by another converge
    plan = rv.check("--remove-originals")
    assert [(k, a) for k, _, a in plan.changes] == [("cache", "remove")]
    assert Path(kept["path"]).exists()
    done = rv.converge("--remove-originals")
    assert (done.status, done.host["verified"], done.host["originals"]) == (0, True, [])
    assert not Path(kept["path"]).exists()
    assert token.read_text() == "hf_secret"
    assert rv.converge("--remove-originals").changes == []


@pytest.mark.parametrize("options", [(), ("--remove-originals",)])
def test_where_files_that_gave_way_lie_is_said(
    rv: Rv, home: Path, scratch: Path, options: tuple[str, ...]
) -> None:
    """Of two files with one name the older is kept elsewhere; recap and document say where."""
    put(scratch / ".cache" / "uv" / "file", "older")
    os.utime(scratch / ".cache" / "uv" / "file", (1_600_000_000, 1_600_000_000))
    put(home / ".cache" / "uv" / "file", "newer")
    planned = rv.run("converge", "-y", *options)
    place = scratch / ".cache" / "uv.rvstate-replaced"
    assert f"files that gave way to newer ones: {place}" in planned.output
    assert [p.read_text() for p in place.rglob("file")] == ["older"]
    (home / ".cache" / "pip").unlink()
    put(home / ".cache" / "pip" / "file", "newer")
    put(scratch / ".cache" / "pip" / "file", "older")
    os.utime(scratch / ".cache" / "pip" / "file", (1_600_000_000, 1_600_000_000))
    (change,) = rv.converge(*options).host["changes"][:1]
    assert str(scratch / ".cache" / "pip.rvstate-replaced") in change["note"]


def test_migration_and_removal_in_one(rv: Rv, home: Path) -> None:
    """With the flag from the start, the original goes in the same converge."""
    put(home / ".cache" / "uv" / "file", "x")
    done = rv.converge("--remove-originals")
    assert (done.status, done.host["verified"], done.host["originals"]) == (0, True, [])
    assert (home / ".cache" / "uv" / "file").read_text() == "x"
    assert sorted(p.name for p in (home / ".cache").glob("uv*")) == ["uv"]


def test_an_interrupted_migration_is_finished(rv: Rv, home: Path, scratch: Path) -> None:
    """Killed between rename and link, what was written last arrives with the next converge."""
    put(home / ".cache" / "uv" / "early", "early")
    rv.converge()
    (original,) = (home / ".cache").glob("uv.rvstate-original-*")
    (record,) = (scratch / ".rv" / "originals").iterdir()
    record.write_text(record.read_text().replace("state aside", "state moving"))
    put(original / "late", "late")
    (home / ".cache" / "uv").unlink()
    done = rv.converge()
    assert done.changes == [("cache", "uv", "migrate")]
    assert (done.status, done.host["verified"]) == (0, True)
    assert (home / ".cache" / "uv" / "late").read_text() == "late"
    assert rv.check().changes == []


def test_a_failure_is_told_with_its_reason(rv: Rv, home: Path, scratch: Path) -> None:
    """A change that fails is named with the script's own reason, the rest waits, exit code 1."""
    put(home / ".cache" / "uv" / "thing", "a file")
    put(scratch / ".cache" / "uv" / "thing" / "inside", "a directory")
    done = rv.converge()
    assert (done.status, done.errors) == (1, "")
    (failed,) = [c for c in done.host["changes"] if c.get("error", "").startswith("copying")]
    assert failed["name"] == "uv"
    assert "nothing was removed" in failed["error"]
    waiting = [c for c in done.host["changes"] if "not tried" in c.get("error", "")]
    assert {c["kind"] for c in waiting} >= {"env", "shell"}
    assert done.host["verified"] is False
    assert not (home / ".cache" / "uv").is_symlink()
    text = rv.run("converge", "-y")
    assert "No hosts remaining" not in text.output + text.errors
    assert "copying" in text.output


# ----------------------------------------------------------------------------------- options
def test_only_and_skip(rv: Rv, home: Path) -> None:
    """Only the named kinds are planned and made; the others wait."""
    rv.converge("--only", "directory,cache")
    assert not (home / ".bashrc").exists()
    assert {k for k, _, _ in rv.check().changes} <= {"env", "scripts", "shell", "tool"}
    assert {k for k, _, _ in rv.check("--skip", "shell,env").changes} <= {"scripts", "tool"}
    assert rv.run("converge", "--only", "nonsense").status == 64


def test_only_what_needs_the_rest(rv: Rv) -> None:
    """A kind whose directories are not there yet says what to do, and does not make scratch."""
    done = rv.converge("--only", "shell")
    assert done.status == 1
    assert "run converge for all kinds" in done.host["changes"][0]["error"]
    assert not (rv.state / "local" / "scratch").exists()


def test_nobody_to_ask(rv: Rv) -> None:
    """Without -y and without a person nothing is applied, and the way out is said."""
    done = rv.run("converge")
    assert done.status == 64
    assert "Add -y" in done.errors
    assert not (rv.state / "local" / "scratch").exists()


def test_a_private_config_file(rv: Rv) -> None:
    """A config file that holds a secret is made private; one without is left alone."""
    config = rv.state / "config.toml"
    rv.config('[notifications]\ntoken = "s3cr3t"\n')
    config.chmod(0o644)
    done = rv.converge()
    assert ("config", "config.toml", "update") in done.changes
    assert done.status == 0
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "s3cr3t" not in done.output + done.errors
    rv.config("[defaults]\ntime = '1h'\n")
    config.chmod(0o644)
    assert rv.check().changes == []


# ----------------------------------------------------------------------------------- secrets
# two words that no other test's processes have in their arguments
MARKS = (uuid.uuid4().hex, uuid.uuid4().hex)
SECRET = f"{MARKS[0]}-'\"$(x)\n-{MARKS[1]}"


def test_a_secret_is_in_nothing_that_is_shown(rv: Rv, tmp_path: Path) -> None:
    """A variable's value is in its 0600 file and in nothing that was printed or listed."""
    done = rv.run("env", "set", "MY_TOKEN", SECRET)
    assert done.status == 0, done
    shown = []
    seen: set[bytes] = set()
    process = rv.start("converge", "-y", "--diff")
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(entry.read_bytes())
            except OSError:
                continue
    shown += list(process.communicate())
    shown += [rv.run("converge", "--check", "--diff", "--json").output]
    assert len(seen) > 3
    ours = [c for c in seen if b"set\0MY_TOKEN" not in c]
    assert not [c for c in ours for mark in MARKS if mark.encode() in c]
    assert not [text for text in shown for mark in MARKS if mark in text]
    holding = []
    for directory, _, files in os.walk(rv.state):
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink() and MARKS[0].encode() in path.read_bytes():
                holding.append(path)
    assert {stat.S_IMODE(p.stat().st_mode) for p in holding} == {0o600}
    assert sorted(p.name for p in holding) == ["env.json", "user.env"]


# ------------------------------------------------------------------------------- two at once
def test_two_at_once(rv: Rv, home: Path) -> None:
    """Two converges of one account at once end well, and leave it as declared."""
    put(home / ".cache" / "uv" / "file", "x")
    several = [rv.start("converge", "-y") for _ in range(2)]
    ends = [(p.communicate(timeout=300), p.returncode) for p in several]
    # the later one may have planned what the first one made meanwhile, and says so
    assert 0 in [status for _, status in ends], ends
    assert rv.converge().status == 0
    assert rv.check().changes == []
    assert (home / ".cache" / "uv" / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["a b", "-rf", "$(touch x)", "é", "'", "*", "#", "a;b", "{home}"])
def test_odd_cache_names(rv: Rv, home: Path, name: str) -> None:
    """A cache with an odd name moves like any other."""
    rv.config(f"[caches]\nnames = []\nextra = [{name!r}]\n".replace('"\'"', '"\'"'))
    put(home / ".cache" / name / "file", "x")
    done = rv.converge()
    assert done.status == 0, done
    assert ("cache", name, "migrate") in done.changes
    assert (home / ".cache" / name).is_symlink()
    assert (home / ".cache" / name / "file").read_text() == "x"
    assert rv.check().changes == []


def test_an_odd_state_directory(tmp_path: Path, rsync_path: str) -> None:
    """Home and scratch whose own names need quoting work, and one with a line break is refused."""
    odd = Rv(tmp_path / "a 'b\" $(x); é", rsync_path)
    assert odd.converge().status == 0
    assert odd.check().changes == []
    broken = Rv(tmp_path / "line\nbreak", rsync_path)
    done = broken.run("converge", "--check")
    assert done.status == 64
    assert "control character" in done.errors
    shutil.rmtree(odd.state)
