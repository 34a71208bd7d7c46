"""`rvstate converge` on a real cluster, with testinfra as the witness."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rvstate import rcblock

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CACHES = ("huggingface", "uv", "pip", "wandb", "triton", "torch")


def sessions(cluster: Any, user: str, since: str) -> tuple[int, int]:
    """Logins and sessions of a user since a mark, as sshd counts them."""
    counts = cluster.logins(since)
    kinds = counts["sessions"].get(user, {})
    return counts["accepted"].get(user, 0), sum(kinds.values())


# ---------------------------------------------------------------------------- the whole way
def test_empty_account(account: Any, cluster: Any, see: Callable[[Any], Any]) -> None:
    """An empty account is converged with one login; the witness finds what was declared."""
    mark = cluster.logins()["mark"]
    done = account.converge()
    assert (done.status, done.errors, done.host["verified"]) == (0, "", True)
    # seven before the closing look
    assert sessions(cluster, "abc1de", mark) == (1, done.host["remote_commands"])
    assert done.host["remote_commands"] <= 9
    host = see(account)
    for name in CACHES:
        assert host.file(f"{account.home}/.cache/{name}").linked_to == (
            f"{account.scratch}/.cache/{name}"
        )
    for name in (".rv", ".rv/env", ".rv/runs", "rv-workspaces", ".cache/huggingface"):
        assert host.file(f"{account.scratch}/{name}").mode == 0o700
    env = host.file(f"{account.scratch}/.rv/env/user.env")
    assert (env.mode, env.user) == (0o600, "abc1de")
    assert host.file(f"{account.home}/.bashrc").content_string.count(rcblock.BEGIN) == 1
    assert host.run("bash -ic 'echo $HF_HOME'").stdout.strip() == (
        f"{account.scratch}/.cache/huggingface"
    )
    assert host.file(f"{account.scratch}/.rv/tools/bin/uv").is_file
    assert host.run(f"{account.scratch}/.rv/tools/bin/uv --version").rc == 0
    assert not host.file(f"{account.scratch}/.rv/lock").exists


def test_second_run(account: Any, cluster: Any) -> None:
    """The second run: no change, no login, exactly one remote command, nothing written."""
    account.converge()
    before = account.snapshot()
    mark = cluster.logins()["mark"]
    done = account.converge()
    assert (done.status, done.changes, done.host["remote_commands"]) == (0, [], 1)
    assert sessions(cluster, "abc1de", mark) == (0, 1)
    assert account.snapshot() == before


def test_second_run_seen_by_the_proxy(remote: Callable[..., Any], cluster: Any) -> None:
    """The delaying proxy sees no new connection, and few turns, when there is nothing to do."""
    far = remote(alias="rv-far")
    assert far.converge().status == 0
    cluster.latency(50)
    cluster.cli("latency", "zero-stats")
    done = far.converge()
    assert (done.status, done.changes) == (0, [])
    counts = cluster.stats()
    assert counts["connections"] == 0
    assert counts["turns"] <= 4, counts


def test_check_writes_nothing(account: Any) -> None:
    """`--check` leaves the whole account as it was: every file, mode, date and link."""
    account.sh('mkdir -p ~/.cache/uv && echo x >~/.cache/uv/file; echo "# mine" >>~/.bashrc')
    before = account.snapshot()
    done = account.check("--detailed-exitcode")
    assert done.status == 2
    assert ("cache", "uv", "migrate") in done.changes
    assert account.snapshot() == before
    assert account.converge().status == 0
    converged = account.snapshot()
    assert account.check("--detailed-exitcode").status == 0
    assert account.snapshot() == converged


DAMAGE = {
    "rmdir ~+/.rv/outputs": ("directory", "/scratch/abc1de/.rv/outputs", "create"),
    "chmod 755 ~+/.rv/env": ("directory", "/scratch/abc1de/.rv/env", "update"),
    "rm ~/.cache/torch": ("cache", "torch", "create"),
    "rm ~/.cache/pip && mkdir ~/.cache/pip": ("cache", "pip", "migrate"),
    "sed -i s/HF_HOME/HF_HONE/ ~/.bashrc": ("shell", ".bashrc", "update"),
    "chmod 640 ~+/.rv/env/user.env": ("env", "user.env", "update"),
    "echo A=1 >~+/.rv/env/user.env": ("env", "user.env", "update"),
    "rm ~+/.rv/lib/*/job.sh": ("scripts", "*", "replace"),
    "rm ~+/.rv/tools/bin/uv": ("tool", "uv", "create"),
}


def test_damage(account: Any) -> None:
    """Any one thing damaged by hand: exactly that is planned, and mended."""
    account.converge()
    for damage, expected in DAMAGE.items():
        account.sh(damage.replace("~+", account.scratch))
        (planned,) = account.check().changes
        assert planned[::2] == expected[::2], damage
        assert expected[1] in (planned[1], "*"), damage
        assert account.converge().changes == [planned], damage
    assert account.check().changes == []


# ----------------------------------------------------------------------------------- shells
@pytest.mark.parametrize(
    ("user", "alias", "files"),
    [
        ("noi5ey", "rv-login", {".bashrc"}),
        ("abc1de", "rv-noisy", {".bashrc"}),
        ("csh7sh", "rv-login", {".bashrc"}),
        ("fsh8fi", "rv-login", {".bashrc", "config.fish"}),
        ("zsh7sh", "rv-login", {".bashrc", ".zshrc"}),
        ("frc4ed", "rv-login", {".bashrc"}),
        ("out5id", "rv-login", {".bashrc"}),
        ("abc1de", "rv-jump", {".bashrc"}),
    ],
)
def test_login_shells(
    remote: Callable[..., Any], cluster: Any, user: str, alias: str, files: set[str]
) -> None:
    """Every login shell, noise, banner, forced command and jump host: converged, then no change."""
    found = remote(user, alias)
    done = found.converge()
    assert (done.status, done.errors) == (0, "")
    assert {name for kind, name, _ in done.changes if kind == "shell"} == files
    again = found.converge()
    assert (again.status, again.changes, again.host["remote_commands"]) == (0, [], 1)
    # root, for a witness that logs in would meet the noise itself
    link = cluster.exec("readlink", f"{found.home}/.cache/uv").stdout
    assert link == f"{found.scratch}/.cache/uv\n"


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("fsh8fi", "fish -c 'echo $UV_CACHE_DIR'"),
        ("zsh7sh", "zsh -ic 'echo $UV_CACHE_DIR'"),
        ("abc1de", "bash -ic 'echo $UV_CACHE_DIR'"),
    ],
)
def test_each_shell_reads_its_block(
    remote: Callable[..., Any], cluster: Any, user: str, command: str
) -> None:
    """A new shell of each kind has the variables."""
    found = remote(user)
    assert found.converge("--skip", "tool").status == 0
    assert cluster.ssh(command, user=user).stdout.split()[-1] == f"{found.scratch}/.cache/uv"


def test_no_login_shell(remote: Callable[..., Any]) -> None:
    """An account that may not log in: one clear sentence and a remedy, exit code 1."""
    done = remote("nol0gn").run("converge", "-y")
    assert done.status == 1
    assert "This account is currently not available" in done.errors
    assert len(done.errors.splitlines()) == 2


# --------------------------------------------------------------------------------- refusals
def test_foreign_things(account: Any, cluster: Any) -> None:
    """What is not ours is refused, all of it together, and nothing is written."""
    cluster.exec("mkdir", "-m", "755", f"{account.scratch}/.rv")
    account.sh(
        "mkdir -p ~/.cache; ln -s /standard ~/.cache/uv; echo mine >~/.cache/pip; "
        'printf "%s\\n" "$1" >>~/.bashrc',
        rcblock.BEGIN,
    )
    before = account.snapshot()
    done = account.converge()
    assert done.status == 3
    refused = [c for c in done.host["changes"] if c["action"] == "refuse"]
    names = {c["name"] for c in refused}
    assert {f"{account.scratch}/.rv", "uv", "pip", ".bashrc"} <= names
    assert all(c["ways_out"] for c in refused)
    assert account.snapshot() == before


# -------------------------------------------------------------------------------- migration
def test_migration(account: Any, see: Callable[[Any], Any]) -> None:
    """A real cache with odd names moves to scratch; the original is kept, and goes when asked."""
    account.sh(
        'mkdir -p ~/.cache/huggingface/hub/"a b" && cd ~/.cache/huggingface && '
        'printf x >"hub/a b/-rf" && printf y >"$(printf \'line\\nbreak\')" && '
        "ln -s hub link && printf hf_x >token && chmod 644 token"
    )
    done = account.converge()
    assert (done.status, done.host["verified"]) == (0, True)
    (kept,) = done.host["originals"]
    host = see(account)
    target = f"{account.scratch}/.cache/huggingface"
    assert host.file(f"{account.home}/.cache/huggingface").linked_to == target
    assert host.file(f"{target}/hub/a b/-rf").content_string == "x"
    assert host.file(f"{target}/line\nbreak").exists
    assert host.file(f"{target}/link").is_symlink
    for place in (target, kept["path"]):
        assert host.file(f"{place}/token").mode == 0o600
    assert account.converge().changes == []
    done = account.converge("--remove-originals")
    assert [action for _, _, action in done.changes] == ["remove"]
    assert not host.file(kept["path"]).exists
    assert account.check("--remove-originals").changes == []


def test_shared_hub(remote: Callable[..., Any], cluster: Any, see: Callable[[Any], Any]) -> None:
    """With a group's hub, models go there and tokens never do; an old link is turned round."""
    shared = "/standard/mygroup/hf"
    cluster.exec("sh", "-c", f"rm -rf {shared}; mkdir -p {shared}; chgrp mygroup {shared}; "
                 f"chmod 2775 {shared}")  # fmt: skip
    found = remote(more=f'[shared]\nhf_cache = "{shared}"\n')
    found.sh("mkdir -p ~/.cache/huggingface/hub/m && cd ~/.cache/huggingface && "
             "echo x >hub/m/blob && echo hf_x >token")  # fmt: skip
    old = remote("xyz9uv", more=f'[shared]\nhf_cache = "{shared}"\n')
    old.sh(f"mkdir -p ~/.cache && ln -s {shared} ~/.cache/huggingface")
    for each in (found, old):
        done = each.converge("--skip", "tool")
        assert (done.status, done.host["verified"]) == (0, True), done
        assert each.check("--skip", "tool").changes == []
    host = see(found)
    assert host.file(f"{shared}/hub/m/blob").content_string == "x\n"
    assert host.file(f"{shared}/hub/m/blob").group == "mygroup"
    assert host.file(f"{found.scratch}/.cache/huggingface/token").mode == 0o600
    assert cluster.exec("find", shared, "-name", "*token*").stdout == ""
    assert see(old).file(f"{old.home}/.cache/huggingface").linked_to == (
        f"{old.scratch}/.cache/huggingface"
    )
    assert see(old).file(f"{old.home}/.cache/huggingface/hub/m/blob").exists
    cluster.exec("rm", "-rf", shared)


@pytest.mark.parametrize("fault", ["fill", "inodes"])
def test_a_full_home(account: Any, cluster: Any, see: Callable[[Any], Any], fault: str) -> None:
    """A full home is refused with what to do, and doing that helps it."""
    account.sh("mkdir -p ~/.cache/uv; for n in 1 2 3 4 5 6 7 8; do "
               "head -c 300000 /dev/zero >~/.cache/uv/$n; done; echo mine >~/.bashrc")  # fmt: skip
    cluster.fault(fault, "/home", "0")
    before = account.sh("cat ~/.bashrc; ls -A ~ ~/.cache/uv")
    done = account.converge("--skip", "tool")
    assert done.status == 3, done
    ways = [way for c in done.host["changes"] for way in c.get("ways_out", ())]
    assert any("converge --remove-originals" in way for way in ways)
    assert account.sh("cat ~/.bashrc; ls -A ~ ~/.cache/uv") == before
    done = account.converge("--skip", "tool", "--remove-originals")
    assert (done.status, done.host["verified"]) == (0, True), done
    assert done.host["originals"] == []
    host = see(account)
    assert host.file(f"{account.scratch}/.cache/uv/8").size == 300000
    assert host.file(f"{account.home}/.bashrc").content_string.startswith("mine\n")
    cluster.heal()


def test_a_full_scratch(account: Any, cluster: Any, see: Callable[[Any], Any]) -> None:
    """Scratch without room: refused with figures before anything is written; later it goes."""
    account.sh("mkdir -p ~/.cache/uv && head -c 3000000 /dev/zero >~/.cache/uv/large")
    account.converge("--only", "directory")
    cluster.fault("fill", "/scratch", "1m")
    before = account.sh("ls -lAR ~/.cache")
    done = account.converge("--only", "cache")
    assert done.status == 3
    (refused,) = [c for c in done.host["changes"] if c["action"] == "refuse"]
    assert "free" in refused["reason"]
    assert account.sh("ls -lAR ~/.cache") == before
    cluster.heal()
    assert account.converge("--skip", "tool").status == 0
    assert see(account).file(f"{account.scratch}/.cache/uv/large").size == 3000000


# ---------------------------------------------------------------------------------- secrets
def test_secrets(account: Any, cluster: Any, see: Callable[[Any], Any]) -> None:
    """A variable's value is on no process list, in no output, and in one private file."""
    # a word that no other test's processes have in their arguments
    word = uuid.uuid4().hex
    secret = f"{word}'\"$(id)\nline"
    assert account.run("env", "set", "MY_TOKEN", secret).status == 0
    lists: set[bytes] = set()
    process = account.start("converge", "-y", "--diff", "--skip", "tool")
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lists.add(entry.read_bytes())
            except OSError:
                continue
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert any(b"sshd" in line for line in lists)
    assert not [line for line in lists if word.encode() in line and b"env\0set" not in line]
    assert word not in output + errors
    document = account.check("--diff").output
    assert word not in document
    found = cluster.exec("grep", "-rl", word, account.home, account.scratch, "/var/log", "/tmp")
    assert found.stdout.split() == [f"{account.scratch}/.rv/env/user.env"]
    env = see(account).file(f"{account.scratch}/.rv/env/user.env")
    assert env.mode == 0o600
    read = account.sh(f'. {account.scratch}/.rv/env/user.env && printf %s "$MY_TOKEN"')
    assert read == secret


# --------------------------------------------------------------------------------- together
def test_two_laptops_at_once(remote: Callable[..., Any]) -> None:
    """Two converges of one account at once: each ends well or says why, and all is as declared."""
    one, two = remote(), remote()
    one.sh("mkdir -p ~/.cache/uv && echo x >~/.cache/uv/file")
    running = [rv.start("converge", "-y", "--skip", "tool") for rv in (one, two)]
    ends = [(process.communicate(timeout=300), process.returncode) for process in running]
    assert 0 in [status for _, status in ends], ends
    assert one.converge("--skip", "tool").status == 0
    assert one.check("--skip", "tool").changes == []
    assert one.sh("cat ~/.cache/uv/file") == "x\n"


def test_connection_cut_in_the_middle(remote: Callable[..., Any], cluster: Any) -> None:
    """A connection that is cut while changes are made: one sentence, and the next run finishes."""
    far = remote(alias="rv-far")
    far.sh("mkdir -p ~/.cache/uv && echo x >~/.cache/uv/file")
    assert far.check().status == 0
    # so slow that some of its commands are still to come when the third has been seen here
    cluster.latency(1000)
    mark = cluster.logins()["mark"]
    process = far.start("converge", "-y", "--skip", "tool")
    while sessions(cluster, "abc1de", mark)[1] < 3:
        assert process.poll() is None, process.communicate()
    cluster.fault("drop")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "run" in errors.lower()
    assert "Traceback" not in errors
    cluster.heal()
    cluster.latency("off")
    done = far.converge("--skip", "tool")
    assert (done.status, done.host["verified"]) in ((0, True), (0, None)), done
    assert far.check("--skip", "tool").changes == []
    assert far.sh("cat ~/.cache/uv/file") == "x\n"


# ---------------------------------------------------------------------------- plain pyinfra
@pytest.mark.parametrize("user", ["abc1de", "csh7sh"])
@pytest.mark.parametrize("connector", ["openssh", "ssh"])
def test_plain_pyinfra(
    remote: Callable[..., Any], see: Callable[[Any], Any], connector: str, user: str
) -> None:
    """The deploy under the plain command, by our connector and by paramiko: dry, real, nothing."""
    found = remote(user)
    before = found.snapshot()

    def pyinfra(option: str) -> str:
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "pyinfra"),
                "inventories/rivanna.py",
                "deploys/account.py",
                option,
            ],
            cwd=ROOT,
            env={**os.environ, "RVSTATE_HOME": str(found.state), "PYINFRA_CONNECTOR": connector},
            capture_output=True,
            text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "rvstate cache" in pyinfra("--dry")
    assert found.snapshot() == before
    assert "Success" in pyinfra("-y")
    assert see(found).file(f"{found.home}/.cache/uv").linked_to == f"{found.scratch}/.cache/uv"
    converged = found.snapshot()
    second = pyinfra("-y")
    assert second.count("No changes") == 8
    assert "Success" not in second.replace("Success   Error", "")
    assert found.snapshot() == converged
    assert found.check().changes == []
