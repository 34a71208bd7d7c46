"""`rvstate init` without a cluster: what it needs, what it keeps, what it refuses."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runkit import Laptop, Terminal

Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]


def test_without_a_host_and_a_person_it_says_what_is_missing(
    rvstate: Rvstate, rv_home: Path
) -> None:
    """One sentence with the option to give, and nothing is made."""
    done = rvstate("init")
    assert done.returncode == 64
    assert "--host" in done.stderr
    assert not rv_home.exists()


def test_this_machine_can_be_set_up_with_options_alone(rvstate: Rvstate, rv_home: Path) -> None:
    """`@local` needs no connection; the file is private and valid."""
    done = rvstate("init", "--host", "@local", "--site", "local", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["command"] == "init"
    assert document["changed"] == ["connection.host", "connection.site"]
    assert document["next"] == ["rvstate converge"]
    path = rv_home / "config.toml"
    assert tomllib.loads(path.read_text()) == {"connection": {"host": "@local", "site": "local"}}
    assert path.stat().st_mode & 0o777 == 0o600
    assert rv_home.stat().st_mode & 0o777 == 0o700


def test_a_second_run_drops_nothing(rvstate: Rvstate, rv_home: Path) -> None:
    """Comments, secrets and keys that no question is about stay byte for byte."""
    rv_home.mkdir(mode=0o700)
    text = (
        "# mine\n[connection]\nhost = '@local' # here\nsite = 'local'\n\n"
        "[scratch_keepalive]\nenabled = false\n[shared]\nhf_cache = '/group/hf'\n"
        "[notifications]\ntoken = 'hunter2'\n"
    )
    (rv_home / "config.toml").write_text(text)
    done = rvstate("init")
    assert done.returncode == 0, done.stderr
    assert "nothing was changed" in done.stdout
    assert (rv_home / "config.toml").read_text() == text
    assert "hunter2" not in done.stdout + done.stderr


def test_a_host_that_cannot_be_reached_changes_nothing(rvstate: Rvstate, rv_home: Path) -> None:
    """The connection is tried before anything is written."""
    done = rvstate("init", "--host", "login.invalid", "--user", "me")
    assert done.returncode == 1
    assert "login.invalid" in done.stderr
    assert not (rv_home / "config.toml").exists()


def test_a_wrong_answer_is_told_before_any_connection(rvstate: Rvstate, rv_home: Path) -> None:
    """A site that nobody knows is refused with the nearest."""
    done = rvstate("init", "--host", "hpc", "--site", "uav")
    assert done.returncode == 64
    assert "Did you mean uva?" in done.stderr
    assert not (rv_home / "config.toml").exists()


def test_scratch_must_be_there(rvstate: Rvstate, tmp_path: Path) -> None:
    """A directory that is not there, or cannot be written to, is not configured."""
    base = ("init", "--host", "@local", "--site", "generic")
    done = rvstate(*base, "--scratch", str(tmp_path / "none"))
    assert done.returncode == 64
    assert "not a directory on the cluster" in done.stderr
    (tmp_path / "big").mkdir()
    assert rvstate(*base, "--scratch", str(tmp_path / "big")).returncode == 0


def test_a_block_needs_alias_and_address(rvstate: Rvstate, rv_home: Path) -> None:
    """The ssh configuration is not touched for a host that has no alias."""
    done = rvstate("init", "--host", "@local", "--site", "local", "--ssh-config-block")
    assert done.returncode == 64
    assert "alias and an address" in done.stderr
    assert not (rv_home / "config.toml").exists()


def test_a_second_cluster_gets_its_own_tables(rvstate: Rvstate, rv_home: Path) -> None:
    """[clusters.NAME]; with --default it is the one that is used."""
    rvstate("init", "--host", "@local", "--site", "local")
    done = rvstate("init", "--cluster", "two", "--default", "--host", "@local", "--site", "local")
    assert done.returncode == 0, done.stderr
    found = tomllib.loads((rv_home / "config.toml").read_text())
    assert found["clusters"]["two"]["connection"]["host"] == "@local"
    assert found["default_cluster"] == "two"
    assert found["connection"]["host"] == "@local"


def test_an_address_for_events_gets_a_secret_once(rvstate: Rvstate, rv_home: Path) -> None:
    """256 bits, in the private file and shown nowhere; a second run keeps them."""
    words = ("init", "--host", "@local", "--site", "local")
    said = ""
    kept = []
    for url in ("https://one.example/", "https://two.example/"):
        done = rvstate(*words, "--notify-url", url)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
        told = tomllib.loads((rv_home / "config.toml").read_text())["notifications"]
        assert (told["enabled"], told["url"]) == (True, url)
        kept.append(told["token"])
    assert kept[0] == kept[1]
    assert len(bytes.fromhex(kept[0])) == 32
    assert kept[0] not in said
    assert (rv_home / "config.toml").stat().st_mode & 0o777 == 0o600


def test_events_do_not_travel_in_the_clear(rvstate: Rvstate, rv_home: Path) -> None:
    """http is for this machine itself; what curl could misread is refused."""
    for url in (
        "http://far.example/",
        "ftp://x/",
        'https://x/"y',
        "https://x/ y",
        "http://127.0.0.1.evil/",
    ):
        done = rvstate("init", "--host", "@local", "--site", "local", "--notify-url", url)
        assert done.returncode == 64, url
        assert "https" in done.stderr
    assert not (rv_home / "config.toml").exists()


def test_the_users_part_connects_to_nothing(rvstate: Rvstate, rv_home: Path) -> None:
    """Whom to mail, with comments and foreign keys kept; the second time nothing changes."""
    rv_home.mkdir(mode=0o700)
    (rv_home / "config.toml").write_text("# mine\n[connection]\nhost = 'far.invalid' # away\n")
    words = ("init", "user", "--email", "me@example.org", "--job-name", "{name}:{project}")
    done = rvstate(*words)
    assert done.returncode == 0, done.stderr
    assert ' set notifications.email = "me@example.org"' in done.stdout
    text = (rv_home / "config.toml").read_text()
    assert text.startswith("# mine\n[connection]\nhost = 'far.invalid' # away\n")
    assert tomllib.loads(text)["notifications"] == {"email": "me@example.org", "enabled": True}
    assert "nothing was changed" in rvstate(*words).stdout
    assert (rv_home / "config.toml").read_text() == text
    changed = rvstate("init", "user", "--email", "you@example.org").stdout
    assert '(was "me@example.org")' in changed


@pytest.mark.parametrize("name", ["rvstate.toml", "pyproject.toml"])
def test_the_projects_part_writes_where_its_settings_are(
    rvstate: Rvstate, tmp_path: Path, name: str
) -> None:
    """In the file that has them already; all else of it stays byte for byte."""
    project = tmp_path / "project"
    project.mkdir()
    top = "tool.rvstate." if name == "pyproject.toml" else ""
    before = f"# ours\n[{top}defaults]\ntime = '1h'  # short\n\n[{top}presets.big]\ncpus = 8\n" + (
        "\n[tool.other]\nx = [1,\n  2]\n" if top else ""
    )
    (project / "pyproject.toml").write_text("[tool.other]\n")
    (project / name).write_text(before)
    (project / name).chmod(0o644)
    words = ("init", "project", "--preset", "big", "--wckey", "k", "--json")
    done = rvstate(*words, cwd=project)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["part"], document["config"]) == ("project", str(project / name))
    assert document["changed"] == ["defaults.preset", "defaults.wckey"]
    text = (project / name).read_text()
    assert all(line in text.splitlines() for line in before.splitlines())
    shown = rvstate("config", "--explain", cwd=project).stdout
    assert f'wckey = "k"  # {project / name}' in shown
    assert (project / name).stat().st_mode & 0o777 == 0o644
    assert json.loads(rvstate(*words, cwd=project).stdout)["changed"] == []
    assert (project / name).read_text() == text


def test_a_part_takes_its_own_options_only(rvstate: Rvstate, tmp_path: Path) -> None:
    """What says something of another part is refused, and an unknown preset named."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "rvstate.toml").write_text("[presets.big]\ncpus = 8\n")
    for words, said in (
        (("project", "--host", "x"), "--host is no option"),
        (("user", "--presets"), "--presets is no option"),
        (("cluster", "--wckey", "x"), "rvstate init project --wckey x"),
        (("project", "--preset", "bgi"), "Known: big"),
    ):
        done = rvstate("init", *words, cwd=project)
        assert done.returncode == 64, words
        assert said in done.stderr
    assert (project / "rvstate.toml").read_text() == "[presets.big]\ncpus = 8\n"


def test_the_parts_ask_show_and_take_no_for_an_answer(tmp_path: Path) -> None:
    """Each question has what is there as its answer; nothing is written before the yes."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "rvstate.toml").write_text("[presets.big]\ncpus = 8\n[defaults]\nwckey = 'old'\n")
    before = (project / "rvstate.toml").read_bytes()
    laptop = Laptop(tmp_path, "[connection]\nhost = 'far.invalid'\n")

    def asked(answer: str) -> tuple[int, str]:
        wizard = Terminal(laptop, project, "project", command="init")
        assert "Presets: big." in wizard.expect("each run has (empty: none):", "big\n")
        wizard.expect("counts it under (empty: none) [old]:", "new\n")
        shown = wizard.expect("Write this to", answer)
        assert 'defaults.preset = "big"' in shown
        assert 'defaults.wckey = "new"  (was "old")' in shown
        return wizard.end()

    status, said = asked("n\n")
    assert (status, "Nothing was written" in said) == (130, True)
    assert (project / "rvstate.toml").read_bytes() == before
    status, said = asked("y\n")
    assert (status, "Written: " in said) == (0, True)
    told = tomllib.loads((project / "rvstate.toml").read_text())["defaults"]
    assert told == {"wckey": "new", "preset": "big"}
    # once more there is nothing to ask about
    wizard = Terminal(laptop, project, "project", command="init")
    wizard.expect("each run has (empty: none) [big]:", "\n")
    wizard.expect("counts it under (empty: none) [new]:", "\n")
    status, said = wizard.end()
    assert (status, "nothing was changed" in said) == (0, True)
