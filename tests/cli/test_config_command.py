"""`rvstate config`: what is in force, where it comes from, and careful edits."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]


def test_it_shows_what_is_set_and_explain_shows_all(rvstate: Rvstate, rv_home: Path) -> None:
    """Without --explain only what some layer set; with it every key and its layer."""
    rvstate("config", "set", "connection.host", "hpc")
    plain = rvstate("config").stdout
    assert 'host = "hpc"' in plain
    assert "user =" not in plain
    explained = rvstate("config", "--explain", RVSTATE_CONNECTION_USER="me").stdout
    assert f'host = "hpc"  # {rv_home / "config.toml"}' in explained
    assert 'user = "me"  # RVSTATE_CONNECTION_USER' in explained
    assert "hostname = (not set)  # default" in explained


def test_a_secret_is_set_without_being_shown(rvstate: Rvstate, rv_home: Path) -> None:
    """From standard input, into a private file, and masked everywhere."""
    done = rvstate("config", "set", "notifications.token", "-", text="hunter2\n")
    assert done.returncode == 0
    shown = done.stdout + done.stderr + rvstate("config").stdout
    shown += rvstate("config", "--explain").stdout + rvstate("config", "--json").stdout
    assert "hunter2" not in shown
    assert 'token = "(set)"' in shown
    path = rv_home / "config.toml"
    assert 'token = "hunter2"' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_json_has_value_and_layer_of_every_key(rvstate: Rvstate) -> None:
    """A program reads the same as a person."""
    document = json.loads(rvstate("config", "--json", "--site", "uva", "--host", "hpc").stdout)
    rows = {row["key"]: row for row in document["settings"]}
    assert document["site"] == "uva"
    assert rows["connection.host"] == {
        "key": "connection.host",
        "value": "hpc",
        "layer": "options",
        "secret": False,
    }
    assert rows["defaults.time"]["layer"] == "site profile uva"


def test_a_project_counts_in_its_directory(rvstate: Rvstate, tmp_path: Path) -> None:
    """The project's own settings are a layer, named by their file."""
    project = tmp_path / "project"
    (project / "deep").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / "pyproject.toml").write_text('[tool.rvstate.defaults]\ntime = "1h"\n')
    done = rvstate("config", "--explain", cwd=project / "deep")
    assert f'time = "1h"  # {project / "pyproject.toml"}' in done.stdout


def test_edits_are_typed_and_checked(rvstate: Rvstate, rv_home: Path) -> None:
    """A wrong key or value is one sentence, exit 64, and nothing is written."""
    for key, value, word in (
        ("defaults.cpu", "4", "defaults.cpus"),
        ("defaults.cpus", "four", "whole number"),
        ("paths.scratch", "scratch", "absolute path"),
    ):
        done = rvstate("config", "set", key, value)
        assert done.returncode == 64
        assert word in done.stderr
    assert not (rv_home / "config.toml").exists()
    assert rvstate("config", "set", "caches.extra", "matplotlib, vllm").returncode == 0
    assert 'extra = ["matplotlib", "vllm"]' in (rv_home / "config.toml").read_text()
    assert rvstate("config", "unset", "caches.extra").returncode == 0
    assert "extra" not in (rv_home / "config.toml").read_text()


def test_the_path_is_printed_alone(rvstate: Rvstate, rv_home: Path, tmp_path: Path) -> None:
    """So that `$EDITOR "$(rvstate config path)"` works."""
    assert rvstate("config", "path").stdout == f"{rv_home / 'config.toml'}\n"
    other = str(tmp_path / "other.toml")
    assert rvstate("config", "path", RVSTATE_CONFIG=other).stdout == f"{other}\n"


def test_a_broken_file_is_one_sentence_in_every_form(rvstate: Rvstate, rv_home: Path) -> None:
    """As text on standard error, or as one JSON document on standard output."""
    rv_home.mkdir()
    (rv_home / "config.toml").write_text("[connection\n")
    done = rvstate("config")
    assert (done.returncode, done.stdout) == (64, "")
    assert "is not valid TOML" in done.stderr
    error = json.loads(rvstate("config", "--json").stdout)["error"]
    assert error["exit_code"] == 64
    assert error["remedy"]


def test_rdvcs_settings_are_taken_over_once(
    rvstate: Rvstate, rv_home: Path, tmp_path: Path
) -> None:
    """Shown, then written where each belongs; its own files are only read, and ours stay."""
    project = tmp_path / "project"
    (project / ".rdvc").mkdir(parents=True)
    (project / "sub").mkdir()
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    theirs = '[run]\nwckey = "thesis"\ninstance = "g5.xlarge"\nodd = 1\nbegin = "soon"\n'
    (project / ".rdvc" / "config.toml").write_text(theirs)
    mine = tmp_path / "home" / ".config" / "rdvc" / "config.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text('[cluster]\nhost = "slurm"\nusername = "me"\n[run]\nmail-user = "me@x.org"\n')
    rvstate("config", "set", "connection.host", "other")
    words = ("config", "import-rdvc")
    assert rvstate(*words, cwd=project / "sub").returncode == 64
    shown = rvstate(*words, "--dry-run", cwd=project / "sub").stdout
    assert ' set connection.user = "me"' in shown
    assert "connection.host: " in shown.partition("Without a counterpart")[2]
    assert "run.odd: rvstate has no such setting" in shown
    assert "defaults.begin in " in shown.partition("Without a counterpart")[2]
    assert not (project / "rvstate.toml").exists()
    done = rvstate(*words, "-y", cwd=project / "sub")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written: ") == 2
    settings = rvstate("config", "--explain", cwd=project).stdout
    for line in ('host = "other"', 'user = "me"', 'preset = "g5.xlarge"', '[presets."g5.xlarge"]'):
        assert line in settings
    assert 'email = "me@x.org"' in (rv_home / "config.toml").read_text()
    assert "Nothing to take over" in rvstate(*words, "-y", cwd=project / "sub").stdout
    assert (project / ".rdvc" / "config.toml").read_text() == theirs


def test_nothing_of_rdvcs_to_be_taken_over(rvstate: Rvstate, tmp_path: Path) -> None:
    """Where there are no such files, it says where they would be."""
    done = rvstate("config", "import-rdvc", cwd=tmp_path)
    assert done.returncode == 64
    assert ".rdvc/config.toml" in done.stderr
