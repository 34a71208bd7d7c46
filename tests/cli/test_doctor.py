"""`rvstate doctor` on this machine, and its judgement of answers that a cluster may give."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rvstate import config as config_door
from rvstate.script import Answer, Script
from rvstate.state import State
from rvstate.transport import Completed, Finished
from rvstate.workflows import doctor
from rvstate.workflows.check import FAIL, OK, WARN, Check
from rvstate.workflows.session import Session
from tests.runkit import git, repository

Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_embedded_default_is_healthy(rvstate: Rvstate) -> None:
    """Once converged, this machine has nothing broken; the JSON says the same."""
    assert rvstate("converge", "-y").returncode == 0
    done = rvstate("doctor")
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    document = json.loads(rvstate("doctor", "--json").stdout)
    assert document["healthy"] is True
    assert {check["status"] for check in document["checks"]} <= {OK, WARN}


def test_trouble_with_the_connection_is_a_check(rvstate: Rvstate) -> None:
    """What was looked at here is still told, the connection fails, and the exit code is 1."""
    done = rvstate("doctor", "--host", "login.invalid")
    assert done.returncode == 1
    assert "ok    ssh" in done.stdout or "ok" in done.stdout
    assert "FAIL  connection: The name login.invalid cannot be resolved." in done.stdout


@dataclass
class Canned:
    """A way to an account that gives one answer."""

    body: str
    noise: str = ""
    name: str = "hpc"
    commands: int = 0

    def begin(self, script: Script) -> Finished:
        """Everything at once."""
        text = f"{self.noise}\n@@rvstate {script.nonce} begin\n"
        for part in self.body.split("== ")[1:]:
            text += f"\n@@rvstate {script.nonce} {part}"
        text += f"\n@@rvstate {script.nonce} end 0\n"
        return Finished(Completed(0, text.encode(), ""))

    def finish(self, script: Script, running: Finished) -> Answer:
        """The frame, read."""
        from rvstate.script import read_answer

        answer = read_answer(script.nonce, running.done.output)
        assert answer is not None
        return answer


GOOD: dict[str, str] = {
    "account": "user u\nhome /home/u\nscratch /scratch/u\nshell /bin/bash\nnode n\n"
    "clock {now}\nzone +0000 UTC\numask 0022\n",
    "place home": "writable\ntype nfs\nbytes 100000000 100 99999900\ninodes 100000 100 99900\n",
    "place scratch": "writable\ntype lustre\nbytes 1000000 100 999900\ninodes 0 0 0\n",
    "program rsync": "/usr/bin/rsync\n",
    "program bash": "/bin/bash\n",
    "program uv": "/home/u/.local/bin/uv\n",
    **{
        f"program {name}": f"/usr/bin/{name}\n"
        for name in ("sbatch", "squeue", "sacct", "scancel", "srun")
    },
    "program module": "a function of the shell\n",
    "controller": "Slurmctld(primary) at ctl is UP\n",
    "accounts": "one\ntwo\n",
}


def _checks(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: dict[str, str | None],
    noise: str = "",
    options: dict[str, Any] | None = None,
    root: Path | None = None,
) -> dict[str, Check]:
    monkeypatch.setenv("RVSTATE_HOME", str(tmp_path / "rv"))
    sections = {**GOOD, **changes}
    body = "".join(f"== {k}\n{v}" for k, v in sections.items() if v is not None)
    body = body.replace("{now}", str(int(time.time())))
    wanted = {"connection": {"host": "hpc", "site": "uva"}, **(options or {})}
    config = config_door.load(options=wanted)
    session = Session(config, Canned(body, noise), State(tmp_path))  # type: ignore[arg-type]
    return {check.name: check for check in doctor.examine(session, root=root)}


def test_a_good_account_has_no_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where all is well only the missing config file is worth a word."""
    found = _checks(monkeypatch, tmp_path, {})
    assert [c for c in found.values() if c.status != OK and c.name != "config"] == []


LATE = "user u\nhome /home/u\nscratch /scratch/u\nshell /bin/bash\nclock 1000000\nzone +0100 CET\n"
BROKEN = "/s/envs/app/main\0d1 runs 5 sound recipe\0/s/envs/app/idea\0d2 runs 5 damaged recipe\0"
BAD: tuple[tuple[str, dict[str, str | None], str, str, str], ...] = (
    ("scratch", {"place scratch": "missing\n"}, FAIL, "does not exist", "paths.scratch"),
    ("home", {"place home": "closed\n"}, FAIL, "cannot be written", "site"),
    ("home", {"place home": "writable\nbytes 100 100 0\ninodes 9 1 8\n"}, FAIL, "full", "caches"),
    (
        "home",
        {"place home": "writable\nbytes 99999999 1 99999998\ninodes 9 9 0\n"},
        FAIL,
        "no further file",
        "caches",
    ),
    (
        "home",
        {"place home": "writable\nbytes 99999999 99900000 99999\ninodes 99999 1 99998\n"},
        WARN,
        "nearly full",
        "caches",
    ),
    ("quota", {"quota hdquota": "Home /home/u 50GB 50GB 0 100%\n"}, FAIL, "100%", "space"),
    ("quota", {"quota hdquota": "Scratch /scratch/u 9 9 0 93%\n"}, WARN, "93%", "space"),
    ("environments", {"environments": BROKEN}, FAIL, "1 of 2 damaged: app/idea", "converge"),
    ("rsync", {"program rsync": ""}, FAIL, "not there", "site"),
    ("uv", {"program uv": ""}, WARN, "not there", "converge"),
    ("Slurm's commands", {"program sbatch": ""}, FAIL, "sbatch", "login node"),
    ("Slurm", {"controller": "Slurmctld(primary) at ctl is DOWN\n"}, FAIL, "DOWN", "status"),
    ("allocation", {"accounts": ""}, WARN, "no account", "group"),
    ("clock", {"account": LATE}, WARN, "behind", "NTP"),
    ("modules", {"program module": ""}, WARN, "module", "module avail"),
)


@pytest.mark.parametrize(
    ("name", "changes", "status", "word", "way"), BAD, ids=[f"{b[0]}-{b[3]}" for b in BAD]
)
def test_what_is_wrong_is_told_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    changes: dict[str, str | None],
    status: str,
    word: str,
    way: str,
) -> None:
    """Each thing that can be wrong has its line, its weight and its way out."""
    check = _checks(monkeypatch, tmp_path, changes)[name]
    assert check.status == status
    assert word in check.text
    assert way in check.remedy


def test_curl_is_needed_where_signed_events_are_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without an address nobody misses it."""
    told = {"enabled": True, "url": "https://notify.example.org/", "token": "x" * 40}
    options = {"notifications": told}
    assert "curl" not in _checks(monkeypatch, tmp_path, {})
    assert _checks(monkeypatch, tmp_path, {}, options=options)["curl"].status == FAIL
    there = {"program curl": "/usr/bin/curl\n"}
    assert "curl" not in _checks(monkeypatch, tmp_path, there, options=options)


def test_noise_of_start_up_files_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What stands before our answer was printed by a start-up file."""
    check = _checks(monkeypatch, tmp_path, {}, noise="Loading conda ...\nhi\n")["start-up files"]
    assert check.status == WARN
    assert "2 lines" in check.text
    assert "Loading conda" in check.text


def test_an_account_that_slurm_does_not_know_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A configured allocation is compared with Slurm's own list."""
    options = {"defaults": {"account": "three"}}
    check = _checks(monkeypatch, tmp_path, {}, options=options)["allocation"]
    assert check.status == FAIL
    assert "one, two" in check.remedy


S3 = "[core]\nremote = store\n['remote \"store\"']\nurl = s3://bucket/x\n"
DENIED = "128\ngit@host: Permission denied (publickey).\nfatal: Could not read from remote\n"
ASKED = {"agent": "", "places": "home /home/u\n", "git-remote": "0\n"}


def _project(place: Path, config: str = S3, requirements: str = "dvc[s3]\n") -> Path:
    """A project with DVC, whose Git remote has a password in its URL."""
    root = repository(place / "project", {"requirements.txt": requirements, ".dvc/config": config})
    git(root, "remote", "add", "origin", "https://me:hunter2@git.example.org/x.git")
    return root


def test_a_project_with_dvc_whose_account_has_all_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Git remote, data and agent are told; nothing that logs in is shown."""
    places = {**ASKED, "places": "home /home/u\nwritable /home/u/.aws/credentials\n"}
    found = _checks(monkeypatch, tmp_path, {**places}, root=_project(tmp_path))
    for name in ("Git remote origin", "DVC remote store", "ssh agent", "dvc in jobs"):
        assert found[name].status == OK, found[name]
    assert "https://git.example.org/x.git" in found["Git remote origin"].text
    assert "hunter2" not in repr(found)


DVC_BAD: tuple[tuple[str, dict[str, str | None], dict[str, str], str, str, str], ...] = (
    ("Git remote origin", {"git-remote": DENIED}, {}, WARN, "Permission denied", "deploy key"),
    ("Git remote origin", {"git-remote": "124\n\n"}, {}, WARN, "no answer", "snapshot mode"),
    ("Git remote origin", {"git-remote": "none\n"}, {}, WARN, "no git", "Ask the site"),
    (
        "Git remote origin",
        {"git-remote": "128\nHost key verification failed.\n"},
        {},
        WARN,
        "Host key",
        "by hand",
    ),
    ("ssh agent", {"agent": "there\n"}, {}, WARN, "none in jobs", "key of its own"),
    ("DVC remote store", {}, {}, WARN, "~/.aws/credentials", "env set"),
    ("DVC remote", {}, {"config": "[core]\n"}, WARN, "no default remote", "remote add"),
    (
        "DVC remote store",
        {},
        {"config": S3.replace("s3://bucket/x", "/far/data")},
        FAIL,
        "does not see /far/data",
        "both machines",
    ),
    ("dvc in jobs", {}, {"requirements": "numpy\n"}, WARN, "no requirement", "requirements"),
    ("dvc in jobs", {}, {"requirements": "dvc>3\n"}, WARN, "dvc[s3]", "Add dvc[s3]"),
)


@pytest.mark.parametrize(
    ("name", "changes", "made", "status", "word", "way"),
    DVC_BAD,
    ids=[f"{b[0]}-{b[4]}" for b in DVC_BAD],
)
def test_what_a_project_with_dvc_lacks_is_told_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    changes: dict[str, str | None],
    made: dict[str, str],
    status: str,
    word: str,
    way: str,
) -> None:
    """Each thing has its line and its way out."""
    check = _checks(monkeypatch, tmp_path, {**ASKED, **changes}, root=_project(tmp_path, **made))[
        name
    ]
    assert check.status == status
    assert word in check.text
    assert way in check.remedy


def test_clone_mode_cannot_do_without_the_remote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What would fail in every job is broken, not merely worth knowing."""
    asked = {**ASKED, "git-remote": DENIED}
    options = {"dvc": {"mode": "clone"}}
    found = _checks(monkeypatch, tmp_path, {**asked}, options=options, root=_project(tmp_path))
    assert found["Git remote origin"].status == FAIL


def test_credentials_that_stay_here_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`.dvc/config.local` does not travel; a variable of the account's serves."""
    root = _project(tmp_path)
    local = "['remote \"store\"']\nsecret_access_key = hunter2\n"
    (root / ".dvc" / "config.local").write_text(local)
    (tmp_path / "env.json").write_text('{"vars": {"AWS_ACCESS_KEY_ID": "AKIA"}}')
    found = _checks(monkeypatch, tmp_path, {**ASKED}, root=root)
    assert "secret_access_key" in found["DVC credentials"].text
    assert found["DVC remote store"].text == "s3, with AWS_ACCESS_KEY_ID"
    assert "hunter2" not in repr(found)


def test_without_dvc_nothing_of_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another project has the checks that it always had."""
    root = repository(tmp_path / "plain", {"a": "1"})
    names = set(_checks(monkeypatch, tmp_path, {}, root=root))
    assert not {name for name in names if "DVC" in name or "Git" in name or "dvc" in name}
