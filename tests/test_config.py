"""Settings: layers, keys that nobody knows, and edits that lose nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvstate import config
from rvstate.errors import ConfigError

# The whole example of the documentation of `~/.rv/config.toml`.
DOCUMENTED = """\
[connection]
host = "rivanna"
user = "abc1de"
hostname = "rivanna.hpc.virginia.edu"
[defaults]
account = "mygroup"
gpu_type = "a6000"
time = "2:59:00"
partition = "gpu-a6000"
ai_naming = true
ai_api_key = "sk-..."
[paths]
scratch = "/scratch/abc1de"
home = "/home/abc1de"
[notifications]
enabled = true
email = "abc1de@virginia.edu"
token = "..."
[scratch_keepalive]
enabled = true
[shared]
hf_cache = "/standard/mygroup/.cache/huggingface"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of this test's own."""
    for name in [n for n in os.environ if n.startswith("RVSTATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RVSTATE_HOME", str(tmp_path / "rv"))
    (tmp_path / "rv").mkdir(mode=0o700)
    return tmp_path / "rv"


def _write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)


# -- reading ------------------------------------------------------------------------------------


def test_every_documented_key_is_accepted(home: Path) -> None:
    """The example of the documentation is valid as it stands."""
    _write(home, DOCUMENTED)
    found = config.load()
    assert found.host == "rivanna"
    assert found.settings.defaults.gpu_type == "a6000"
    assert found.settings.paths.scratch == "/scratch/abc1de"
    assert found.settings.shared.hf_cache == "/standard/mygroup/.cache/huggingface"
    assert found.holds_secret


def test_without_any_file_everything_happens_here(home: Path) -> None:
    """The embedded default is this machine, with a scratch in the state directory."""
    found = config.load()
    assert (found.host, found.site.name, found.site.scheduler) == ("@local", "local", "process")
    assert config.scratch_template(found) == str(home / "local" / "scratch")


def test_a_host_without_a_site_gets_the_generic_profile(home: Path) -> None:
    """Nothing is assumed of a cluster that nobody described."""
    _write(home, '[connection]\nhost = "hpc"\n')
    assert config.load().site.name == "generic"


def test_layers_lie_over_each_other_in_the_stated_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Site, file, cluster, project, variable, option: each beats those before it."""
    project = tmp_path / "project"
    project.mkdir()

    def time(**more: object) -> tuple[str | None, str]:
        found = config.load(project=project, **more)  # type: ignore[arg-type]
        return found.settings.defaults.time, dict(found.sources)["defaults.time"]

    _write(home, '[connection]\nhost = "x"\nsite = "uva"\n')
    assert time() == ("2:59:00", "site profile uva")
    _write(home, '[connection]\nhost = "x"\nsite = "uva"\n[defaults]\ntime = "1h"\n')
    assert time() == ("1h", str(home / "config.toml"))
    with (home / "config.toml").open("a") as file:
        file.write('[clusters.b.defaults]\ntime = "2h"\n')
    assert time(cluster="b") == ("2h", f"{home / 'config.toml'} [clusters.b]")
    (project / "pyproject.toml").write_text('[tool.rvstate.defaults]\ntime = "3h"\n')
    assert time(cluster="b") == ("3h", str(project / "pyproject.toml"))
    monkeypatch.setenv("RVSTATE_DEFAULTS_TIME", "4h")
    assert time(cluster="b") == ("4h", "RVSTATE_DEFAULTS_TIME")
    assert time(cluster="b", options={"defaults": {"time": "5h"}}) == ("5h", "options")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("connection.host", "elsewhere.example.org"),
        ("paths.scratch", "/elsewhere"),
        ("receiver.smtp_host", "mail.example.org"),
        ("notifications.url", "https://elsewhere.example.org/"),
        ("notifications.token", "x" * 40),
    ],
)
def test_a_project_does_not_choose_where_files_and_secrets_go(
    home: Path, tmp_path: Path, key: str, value: str
) -> None:
    """What came with somebody's code is refused by name; the user's own file may say it."""
    table, name = key.split(".")
    _write(home, f'[{table}]\n{name} = "{value}"\n')
    config.load(project=tmp_path)
    for file, head in (("rvstate.toml", ""), ("pyproject.toml", "tool.rvstate.")):
        (tmp_path / file).write_text(f'[{head}{table}]\n{name} = "{value}"\n')
        with pytest.raises(ConfigError) as found:
            config.load(project=tmp_path)
        assert key in found.value.message
        assert str(tmp_path / file) in found.value.message
        assert value not in found.value.message
        (tmp_path / file).unlink()


def test_the_chosen_cluster_is_the_option_then_the_variable_then_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several clusters are several tables."""
    _write(
        home,
        'default_cluster = "a"\n'
        '[clusters.a.connection]\nhost = "A"\n[clusters.b.connection]\nhost = "B"\n'
        '[clusters.c.connection]\nhost = "C"\n',
    )
    assert config.load().host == "A"
    monkeypatch.setenv("RVSTATE_CLUSTER", "b")
    assert config.load().host == "B"
    assert config.load(cluster="c").host == "C"
    with pytest.raises(ConfigError, match="no cluster 'd'"):
        config.load(cluster="d")


def test_nothing_read_is_ever_stale(home: Path) -> None:
    """An edit counts at once, even one of the same length and the same date."""
    path = home / "config.toml"
    _write(home, '[connection]\nhost = "aaa"\n')
    before = path.stat()
    assert config.load().host == "aaa"
    _write(home, '[connection]\nhost = "bbb"\n')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert config.load().host == "bbb"
    sites = home / "sites"
    sites.mkdir()
    for title in ("one", "two"):
        (sites / "generic.toml").write_text(f'name = "generic"\ntitle = "{title}"\n')
        os.utime(sites / "generic.toml", ns=(1, 1))
        assert config.load().site.title == title


def test_reading_writes_nothing(home: Path) -> None:
    """Settings are read without a trace."""
    _write(home, DOCUMENTED)
    config.load()
    assert os.listdir(home) == ["config.toml"]


WRONG = [
    ("[conection]\nhost = 'x'\n", "conection in", "connection"),
    ("[connection]\nhots = 'x'\n", r"connection\.hots in", "host"),
    ("[clusters.a.conection]\nhost = 'x'\n", r"conection in .*\[clusters.a\]", "connection"),
    ("defualt_cluster = 'x'\n", "defualt_cluster in", "default_cluster"),
    ("default_cluster = 3\n", "default_cluster", "quotes"),
    ("clusters = 3\n", "clusters in", "clusters"),
    ("connection = 3\n", "connection in .* a table", ""),
    ("[defaults]\naccount = 12345\n", r"defaults\.account", "quotes"),
    ("[defaults]\ntime = '2 moons'\n", r"defaults\.time", "2:59:00"),
    ("[defaults]\ncpus = 0\n", r"defaults\.cpus", ""),
    ("[defaults]\nbegin = 'soon'\n", r"defaults\.begin", "now+2hours"),
    ("[defaults]\ncomment = '20260102-030405-0a1b2c3d'\n", r"defaults\.comment", ""),
    ("[defaults]\njob_name = '{nome}'\n", r"defaults\.job_name", ""),
    ("[defaults]\njob_name = '../{name}'\n", r"defaults\.job_name", ""),
    ("[notifications]\nmail_type = 'ENDE'\n", r"notifications\.mail_type", ""),
    ("[presets.a]\ndeadline = '25:00'\n", r"presets\.a\.deadline", "now"),
    ("[presets.a]\nnodes = 0\n", r"presets\.a\.nodes", ""),
    ("[presets.a]\nnods = 1\n", r"presets\.a\.nods", "nodes"),
    ("[paths]\nscratch = 'scratch'\n", r"paths\.scratch", "/"),
    ("[paths]\nscratch = '~/scratch'\n", r"paths\.scratch", "/"),
    ("[connection]\nhost = '-oProxyCommand=x'\n", r"connection\.host", ""),
    ("[connection]\nhost = 'a b'\n", r"connection\.host", ""),
    ("[connection]\nuser = ''\n", r"connection\.user", ""),
    ("[connection]\nssh_config = 'config'\n", r"connection\.ssh_config", "/"),
    ("[connection\n", "is not valid TOML", ""),
]


@pytest.mark.parametrize(("text", "message", "remedy"), WRONG, ids=[w[0][:30] for w in WRONG])
def test_what_is_wrong_is_named_with_file_and_key(
    home: Path, text: str, message: str, remedy: str
) -> None:
    """A wrong setting is one sentence with its place, before anything happens."""
    _write(home, text)
    with pytest.raises(ConfigError, match=message) as caught:
        config.load()
    assert str(home) in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 64


def test_a_file_that_cannot_be_read_is_named(home: Path) -> None:
    """A directory or bytes that are no text in its place are an error, not an empty config."""
    (home / "config.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load()
    (home / "config.toml").rmdir()
    (home / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("RVSTATE_DEFAULTS_TIEM", "1h", "RVSTATE_DEFAULTS_TIEM sets nothing"),
        ("RVSTATE_CONECTION_HOST", "x", "RVSTATE_CONECTION_HOST sets nothing"),
        ("RVSTATE_DEFAULTS_CPUS", "two", "should be a whole number"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    """A slip in a variable's name or value is told, as one in the file is."""
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=message):
        config.load()


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's or a test's own variable of the same prefix does not stop every command."""
    monkeypatch.setenv("RVSTATE_REQUIRE_CLUSTER", "1")
    monkeypatch.setenv("RVSTATE_RUN_ID", "x")
    assert config.load().host == "@local"


def test_variables_are_typed_by_their_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are split at commas, numbers and truth are read, texts stay texts."""
    monkeypatch.setenv("RVSTATE_CACHES_EXTRA", "matplotlib,vllm")
    monkeypatch.setenv("RVSTATE_DEFAULTS_CPUS", "4")
    monkeypatch.setenv("RVSTATE_DEFAULTS_ACCOUNT", "123")
    monkeypatch.setenv("RVSTATE_SHELL_MANAGE", "false")
    found = config.load().settings
    assert found.caches.extra == ("matplotlib", "vllm")
    assert (found.defaults.cpus, found.defaults.account) == (4, "123")
    assert found.shell.manage is False


def test_a_secret_in_a_table_that_is_not_used_counts(home: Path) -> None:
    """The file is private if any cluster's table holds a secret."""
    _write(home, '[clusters.b.notifications]\ntoken = "x"\n')
    assert config.load().holds_secret
    _write(home, '[clusters.b.connection]\nhost = "x"\n')
    assert not config.load().holds_secret


def test_explain_tells_every_key_and_hides_secrets(home: Path) -> None:
    """Each key has one row with value and layer, and no secret is in any."""
    _write(home, DOCUMENTED)
    rows = {row.key: row for row in config.explain(config.load())}
    assert rows["connection.host"].layer == str(home / "config.toml")
    assert rows["paths.home"].value == "/home/abc1de"
    assert rows["snapshot.keep_days"].layer == "default"
    assert rows["defaults.ai_api_key"].value == "(set)"
    assert "sk-..." not in repr(rows)
    assert "sk-..." not in repr(config.load())


# -- site profiles ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["generic", "local", "uva"])
def test_every_shipped_profile_is_valid(name: str) -> None:
    """What rvstate ships can be loaded, and calls itself by its file's name."""
    assert config.load_site(name).name == name


def test_an_own_profile_goes_before_a_shipped_one(home: Path) -> None:
    """The user's `sites/NAME.toml` is the one that counts."""
    (home / "sites").mkdir()
    (home / "sites" / "uva.toml").write_text('name = "uva"\ntitle = "mine"\n')
    assert config.load_site("uva").title == "mine"
    assert "uva" in config.site_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n', "title is missing"),
        ('name = "x"\ntitle = "x"\n[purge]\nclock = "atimes"\n', "purge.clock"),
        ('name = "x"\ntitle = "x"\n[purge]\ntouch_policy = "yes"\n', "purge.touch_policy"),
        ('name = "x"\ntitle = "x"\nscheduler = "pbs"\n', "scheduler"),
        ('name = "x"\ntitle = "x"\n[scheduling]\nscrontab = "maybe"\n', "scheduling.scrontab"),
        ('name = "x"\ntitle = "x"\n[[partitions]]\nnam = "p"\n', r"partitions\.0\.nam"),
    ],
)
def test_a_wrong_profile_is_told_by_its_key(home: Path, text: str, message: str) -> None:
    """A profile is checked like the settings."""
    (home / "sites").mkdir()
    (home / "sites" / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.load_site("x")


def test_an_unknown_profile_gets_its_nearest() -> None:
    """A slip in a site's name is answered with the one that was meant."""
    with pytest.raises(ConfigError) as caught:
        config.load_site("uav")
    assert caught.value.remedy == "Did you mean uva?"


def test_keeping_a_profile_replaces_none(home: Path) -> None:
    """A draft never goes over a profile that somebody looked through."""
    text = 'name = "x"\ntitle = "x"\n'
    path = config.keep_site("x", text)
    assert path.read_text() == text
    with pytest.raises(ConfigError, match="is there already"):
        config.keep_site("x", text)
    with pytest.raises(ConfigError, match="cannot be the name"):
        config.keep_site("../x", text)


# -- editing ------------------------------------------------------------------------------------

COMMENTED = """\
# my clusters
[connection]   # the login node
host = "old"   # an alias

[unrelated]
# a comment at the end
"""


def test_an_edit_keeps_comments_and_order(home: Path) -> None:
    """Only the value changes."""
    _write(home, COMMENTED.replace("[unrelated]\n", ""))
    assert config.set_keys({"connection.host": "new"}) == ("connection.host",)
    wanted = COMMENTED.replace("[unrelated]\n", "").replace('"old"', '"new"')
    assert (home / "config.toml").read_text() == wanted


def test_setting_what_is_so_already_writes_nothing(home: Path) -> None:
    """A second run is no change, down to the file's date."""
    _write(home, '[connection]\nhost = "x"\n')
    os.utime(home / "config.toml", ns=(1, 1))
    assert config.set_keys({"connection.host": "x"}) == ()
    assert (home / "config.toml").stat().st_mtime_ns == 1


def test_a_file_that_is_wrong_elsewhere_is_not_written(home: Path) -> None:
    """An edit never lands in a file that would not load."""
    _write(home, COMMENTED)
    with pytest.raises(ConfigError, match="unrelated"):
        config.set_keys({"connection.host": "new"})
    assert (home / "config.toml").read_text() == COMMENTED


@pytest.mark.parametrize(
    ("key", "value"),
    [("defaults.time", "2 moons"), ("defaults.cpus", 0), ("connection.host", "-x")],
)
def test_a_wrong_value_is_not_written(home: Path, key: str, value: object) -> None:
    """What would be refused when read is refused before it is written."""
    _write(home, '[connection]\nhost = "x"\n')
    with pytest.raises(ConfigError):
        config.set_keys({key: value})
    assert (home / "config.toml").read_text() == '[connection]\nhost = "x"\n'


def test_an_unknown_key_cannot_be_set() -> None:
    """The nearest key is named."""
    with pytest.raises(ConfigError) as caught:
        config.set_keys({"connection.hots": "x"})
    assert "connection.host" in caught.value.remedy


def test_a_new_file_is_private(home: Path) -> None:
    """0600 in 0700, also where the directory was open."""
    home.chmod(0o755)
    config.set_keys({"connection.host": "x"})
    assert stat.S_IMODE((home / "config.toml").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_an_edit_closes_a_file_that_was_open(home: Path) -> None:
    """A file that others could read is private after the edit."""
    _write(home, "")
    (home / "config.toml").chmod(0o644)
    config.set_keys({"connection.host": "x"})
    assert stat.S_IMODE((home / "config.toml").stat().st_mode) == 0o600


def test_a_linked_file_is_edited_where_it_lies(home: Path, tmp_path: Path) -> None:
    """Someone who keeps dotfiles in git keeps them there."""
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine\n")
    (home / "config.toml").symlink_to(real)
    config.set_keys({"connection.host": "x"})
    assert (home / "config.toml").is_symlink()
    assert real.read_text().startswith("# mine\n")
    assert tomllib.loads(real.read_text()) == {"connection": {"host": "x"}}


def test_clusters_are_edited_in_their_own_tables(home: Path) -> None:
    """A second cluster leaves the first alone."""
    _write(home, '[connection]\nhost = "x"\n')
    config.set_keys({"connection.host": "y", "defaults.time": "1h"}, cluster="b")
    found = tomllib.loads((home / "config.toml").read_text())
    assert found == {
        "connection": {"host": "x"},
        "clusters": {"b": {"connection": {"host": "y"}, "defaults": {"time": "1h"}}},
    }
    assert config.load(cluster="b").host == "y"


def test_a_key_can_be_removed(home: Path) -> None:
    """Removing takes the key and nothing else; removing nothing is no change."""
    _write(home, '[connection]\nhost = "x" # here\nuser = "u"\n')
    assert config.set_keys({"connection.user": None}) == ("connection.user",)
    assert (home / "config.toml").read_text() == '[connection]\nhost = "x" # here\n'
    assert config.set_keys({"connection.user": None, "defaults.time": None}) == ()


@pytest.mark.parametrize(
    "text",
    [
        'connection = { host = "x" }\n',
        'connection.host = "x"\n',
        '[clusters.a]\n[connection]\nhost = "x"\n',
        '["connection"]\n"host" = "x"\n',
        '[clusters.a.connection]\nhost = "x"\n[connection]\nhost = "x"\n',
    ],
)
def test_every_way_of_writing_toml_can_be_edited(home: Path, text: str) -> None:
    """Inline tables, dotted keys, quoted keys: the edit means what it says."""
    _write(home, text)
    config.set_keys({"connection.host": "y", "connection.user": "u"})
    config.set_keys({"connection.host": "z"}, cluster="a")
    found = tomllib.loads((home / "config.toml").read_text())
    assert found["connection"] == {"host": "y", "user": "u"}
    assert found["clusters"]["a"]["connection"]["host"] == "z"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_text_survives_the_file(home: Path, text: str) -> None:
    """What is set is what is read."""
    config.set_keys({"defaults.account": text})
    assert config.load().settings.defaults.account == text


def test_eight_edits_at_once_lose_nothing(home: Path) -> None:
    """Two terminals that set keys at the same time both win."""
    keys = ["account", "gpu_type", "partition", "mem"]
    code = "import sys; from rvstate import config; config.set_keys({sys.argv[1]: 'x'})"
    names = [f"defaults.{key}" for key in keys] + ["connection.host", "connection.user"]
    names += ["modules.cuda", "modules.python"]
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in names]
    assert [p.wait() for p in running] == [0] * 8
    found = tomllib.loads((home / "config.toml").read_text())
    assert sorted(f"{t}.{k}" for t, keys in found.items() for k in keys) == sorted(names)


def test_a_preview_writes_nothing(home: Path) -> None:
    """What would be in force can be known before it is written."""
    assert config.preview({"connection.host": "x"}).host == "x"
    assert os.listdir(home) == []


# -- presets ------------------------------------------------------------------------------------


def test_presets_of_all_layers_are_one(home: Path, tmp_path: Path) -> None:
    """Site, user and project may each say some of it; each key is the strongest layer's."""
    (home / "sites").mkdir()
    site = 'name = "mine"\ntitle = "t"\n[presets.a]\ncpus = 1\ntime = "1h"\nmem = "1G"\n'
    (home / "sites" / "mine.toml").write_text(site)
    _write(home, '[connection]\nsite = "mine"\n[presets.a]\ntime = "2h"\nmem = "2G"\n')
    project = tmp_path / "project"
    project.mkdir()
    (project / "rvstate.toml").write_text('[presets.a]\nmem = "3G"\n[presets."b.c"]\ngpus = 2\n')
    found = config.load(project=project)
    preset = found.settings.presets["a"]
    assert (preset.cpus, preset.time, preset.mem) == (1, "2h", "3G")
    rows = {row.key: (row.value, row.layer) for row in config.explain(found)}
    assert rows["presets.a.cpus"] == (1, "site profile mine")
    assert rows["presets.a.time"] == ("2h", str(home / "config.toml"))
    assert rows["presets.a.mem"] == ("3G", str(project / "rvstate.toml"))
    assert rows["presets.b.c.gpus"][0] == 2
    assert "presets.a.gpus" not in rows


def test_a_key_of_a_preset_is_set_by_its_name(home: Path) -> None:
    """A name may hold dots; what is not there is answered with what is."""
    assert config.set_keys({"presets.g5.xlarge.gpus": 1}) == ("presets.g5.xlarge.gpus",)
    assert config.load().settings.presets["g5.xlarge"].gpus == 1
    assert config.set_keys({"presets.g5.xlarge.gpus": 1}) == ()
    with pytest.raises(ConfigError) as caught:
        config.key_type("presets.g5.xlarge.gpsu")
    assert "presets.g5.xlarge.gpus" in caught.value.remedy
