"""init, env, exec, doctor, site and login against a real cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

SECRET = "hunter2-'q'-\"d\"-$HOME-#x\nline two"
Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def rvstate(cluster: Any, tmp_path: Path) -> Rvstate:
    """Run `rvstate` on a laptop that is configured for nothing yet."""
    cluster.reset()
    env = {k: v for k, v in os.environ.items() if not k.startswith("RVSTATE_")}
    env |= {"RVSTATE_HOME": str(tmp_path / "rv"), "HOME": str(tmp_path)}

    def run(*args: str, text: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "rvstate", *args]
        return subprocess.run(
            argv, input=text, capture_output=True, text=True, env=env, timeout=180
        )

    return run


@pytest.fixture
def ready(rvstate: Rvstate, cluster: Any) -> Rvstate:
    """The same, after `rvstate init`."""
    done = rvstate("init", "--host", "rv-login", "--ssh-config", str(cluster.ssh_config))
    assert done.returncode == 0, done.stderr
    return rvstate


def test_init_finds_what_the_account_has(rvstate: Rvstate, cluster: Any, tmp_path: Path) -> None:
    """One look tells profile, allocations, partitions and scratch; then it is written."""
    mark = cluster.logins()["mark"]
    options = ("--host", "rv-login", "--ssh-config", str(cluster.ssh_config), "--json")
    document = json.loads(rvstate("init", *options).stdout)
    assert cluster.logins(mark)["sessions"].get("abc1de", {}) == {"command": 1}
    assert document["site"] == "uva"
    assert document["accounts"] == ["mygroup", "othergroup"]
    assert "gpu-a6000" in document["partitions"]
    assert document["scratch"] == ["/scratch/abc1de"]
    assert document["account"]["home"] == "/home/abc1de"
    path = tmp_path / "rv" / "config.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert tomllib.loads(path.read_text()) == {
        "connection": {
            "host": "rv-login",
            "ssh_config": str(cluster.ssh_config),
            "site": "uva",
        },
        "defaults": {"account": "mygroup"},
    }
    rvstate("init", "--presets")
    presets = tomllib.loads(path.read_text())["presets"]
    assert presets["a6000"] == {"gpus": 1, "gpu_type": "a6000", "mem": "31G", "cpus": 6}
    before = path.read_bytes()
    again = json.loads(rvstate("init", "--presets", "--json").stdout)
    assert again["changed"] == []
    assert path.read_bytes() == before


def test_init_refuses_what_is_not_there(rvstate: Rvstate, cluster: Any, tmp_path: Path) -> None:
    """An allocation or a scratch that the cluster does not have is not configured."""
    base = ("init", "--host", "rv-login", "--ssh-config", str(cluster.ssh_config))
    done = rvstate(*base, "--account", "nosuch")
    assert done.returncode == 64
    assert "mygroup, othergroup" in done.stderr
    done = rvstate(*base, "--scratch", "/scratch/xyz9uv")
    assert done.returncode == 64
    assert "/scratch/abc1de" in done.stderr
    assert not (tmp_path / "rv" / "config.toml").exists()


def test_init_without_a_login_changes_nothing(
    rvstate: Rvstate, cluster: Any, tmp_path: Path
) -> None:
    """Where a second factor is needed and nobody is there, it ends with 75."""
    rvstate("login", "--logout", "--host", "rv-duo")
    options = ("--host", "rv-duo", "--ssh-config", str(cluster.ssh_config), "--user", "u02aa")
    done = rvstate("init", *options)
    assert done.returncode == 75
    assert not (tmp_path / "rv" / "config.toml").exists()


def test_init_adds_one_block_to_the_ssh_configuration(
    rvstate: Rvstate, cluster: Any, tmp_path: Path
) -> None:
    """An alias that ssh did not know works afterwards; everything else in the file stays."""
    text = cluster.ssh_config.read_text()
    address = _after(text, "HostName")
    mine = tmp_path / "ssh"
    # the way in is known by the address; only the alias is new
    mine.write_text(
        f"{text}\nMatch host {address}\n    Port {_after(text, 'Port')}\n"
        f"    IdentityFile {_after(text, 'IdentityFile')}\n"
        f"    UserKnownHostsFile {_after(text, 'UserKnownHostsFile')}\n"
    )
    before = mine.read_text()
    done = rvstate(
        *("init", "--host", "rivanna", "--hostname", address, "--user", "abc1de"),
        *("--ssh-config", str(mine), "--ssh-config-block"),
    )
    assert done.returncode == 0, done.stderr
    assert mine.read_text().endswith(before)
    assert mine.stat().st_mode & 0o777 == 0o600
    plain = subprocess.run(
        ["ssh", "-F", str(mine), "-o", "BatchMode=yes", "rivanna", "id", "-un"],
        capture_output=True,
        text=True,
    )
    assert plain.stdout == "abc1de\n", plain.stderr
    again = rvstate("init", "--ssh-config-block")
    assert again.returncode == 0, again.stderr
    assert mine.read_text().count("rvstate <<<") == 1


def _after(text: str, keyword: str) -> str:
    return text.split(f"{keyword} ", 1)[1].split()[0]


def test_a_secret_is_nowhere_but_in_its_two_files(
    ready: Rvstate, cluster: Any, tmp_path: Path
) -> None:
    """`env set --now`: in no argument list of either machine, no output, no other file."""
    seen: list[str] = []
    argv = [sys.executable, "-m", "rvstate", "env", "set", "TOKEN", "-", "--now"]
    env = {**os.environ, "RVSTATE_HOME": str(tmp_path / "rv")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(argv, env=env, text=True, **pipes)  # type: ignore[call-overload]
    process.stdin.write(SECRET)
    process.stdin.close()
    while process.poll() is None:
        seen.append(_argument_lists())
    output = process.stdout.read()
    assert process.returncode == 0, output
    assert seen
    assert not any("hunter2" in text for text in (*seen, output))
    done = ready("exec", "cat /scratch/abc1de/.rv/env/user.env; stat -c %a .", text="")
    assert "hunter2" in done.stdout
    value = ready("exec", '. /scratch/abc1de/.rv/env/user.env; printf %s "$TOKEN"')
    assert value.stdout == SECRET
    found = cluster.exec("grep", "-rl", "hunter2", "/home/abc1de", "/scratch/abc1de", check=False)
    assert found.stdout.split() == ["/scratch/abc1de/.rv/env/user.env"]
    modes = ready("exec", "stat -c %a /scratch/abc1de/.rv/env /scratch/abc1de/.rv/env/user.env")
    assert modes.stdout.split() == ["700", "600"]
    here = subprocess.run(
        ["grep", "-rl", "hunter2", str(tmp_path / "rv")], capture_output=True, text=True
    )
    assert here.stdout.split() == [str(tmp_path / "rv" / "env.json")]


def _argument_lists() -> str:
    """What `ps` would show; the cluster's processes are of this machine, too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_text(errors="replace"))
            except OSError:
                continue
    return "\n".join(found)


def test_a_site_profile_is_drafted_from_the_cluster(ready: Rvstate, tmp_path: Path) -> None:
    """The draft is valid, has the GPUs with their own partitions, and can be used at once."""
    done = ready("site", "draft", "mine", "--write")
    assert done.returncode == 0, done.stderr
    table = tomllib.loads((tmp_path / "rv" / "sites" / "mine.toml").read_text())
    assert table["gpus"]["a6000"]["partition"] == "gpu-a6000"
    assert table["gpus"]["a6000"]["per_node"] == 8
    assert table["paths"]["scratch"] == "/scratch/{user}"
    assert table["modules"]["python"] == "miniforge/24.11.3-py3.12"
    assert {"name": "standard", "max_time": "7-00:00:00", "default": True} in table["partitions"]
    assert table["purge"]["clock"] == "unknown"
    assert ready("site", "draft", "mine", "--write").returncode == 64
    assert ready("config", "set", "connection.site", "mine").returncode == 0
    assert ready("converge", "--check").returncode == 0


def test_doctor_is_one_command_and_a_job_when_asked(ready: Rvstate, cluster: Any) -> None:
    """Everything in one remote command; with --job a node says whether it shares home."""
    ready("login")
    mark = cluster.logins()["mark"]
    document = json.loads(ready("doctor", "--json").stdout)
    assert cluster.logins(mark)["sessions"] == {"abc1de": {"command": 1}}
    assert document["healthy"] is True, document
    checks = {c["name"]: c for c in document["checks"]}
    assert "the open connection was used" in checks["connection"]["text"]
    assert "90 days by atime" in checks["purge"]["text"]
    assert "/scratch/abc1de" in checks["quota"]["text"]
    document = json.loads(ready("doctor", "--job", "--json").stdout)
    checks = {c["name"]: c for c in document["checks"]}
    assert checks["home on a node"]["status"] == "ok"
    assert checks["scratch on a node"]["status"] == "ok"
    left = cluster.exec("sh", "-c", "ls -A /home/abc1de /scratch/abc1de | grep doctor", check=False)
    assert left.stdout == ""


def test_doctor_says_when_slurm_is_down(ready: Rvstate, cluster: Any) -> None:
    """A controller that does not answer is named, and nothing hangs."""
    cluster.fault("stop", "slurmctld")
    try:
        done = ready("doctor")
    finally:
        cluster.heal()
    assert done.returncode == 1
    assert "FAIL  Slurm: the controller does not answer" in done.stdout
    _slurm_answers(cluster)


def _slurm_answers(cluster: Any) -> None:
    for _ in range(200):
        if " is UP" in cluster.exec("scontrol", "ping", check=False).stdout:
            return
        time.sleep(0.1)
    raise AssertionError("slurmctld did not come back")


def test_doctor_says_when_home_is_full(ready: Rvstate, cluster: Any) -> None:
    """A full home is broken, with what to do, and doctor itself needs no room there."""
    cluster.fault("fill", "/home")
    try:
        done = ready("doctor")
    finally:
        cluster.heal()
    assert done.returncode == 1
    assert "it is full" in done.stdout
    assert "moves caches to scratch" in done.stdout


def test_completion_can_be_read_by_the_clusters_shells(ready: Rvstate) -> None:
    """zsh and fish of the cluster accept the scripts that are printed for them."""
    for shell in ("zsh", "fish"):
        script = ready("completion", shell).stdout
        done = ready("exec", shell, "-n", "/dev/stdin", text=script)
        assert done.returncode == 0, done.stderr


def test_an_encoded_command_reaches_sh_through_every_login_shell(
    rvstate: Rvstate, cluster: Any
) -> None:
    """What `exec -t` sends means the same in bash, tcsh, fish and zsh."""
    from rvstate.transport import encoded_command

    line = encoded_command("printf '%s|' 'it'\\''s' \"$HOME\" '!x' \\\\ '#'; a=1\necho $a\n")
    assert shutil.which("ssh")
    for user in ("abc1de", "csh7sh", "fsh8fi", "zsh7sh"):
        done = cluster.ssh(line, user=user)
        assert done.stdout == f"it's|/home/{user}|!x|\\|#|1\n"
