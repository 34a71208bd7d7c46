"""What `doctor` asks the account of a project with DVC: nobody answers, no agent helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvstate.script import Script
from tests.runkit import repository, run, write


def ask(place: Path, url: str, places: str, **env: str) -> dict[str, str]:
    """Run the script in a home of its own; the parts of its answer by name."""
    (place / "home").mkdir(exist_ok=True)
    (place / "scratch").mkdir(exist_ok=True)
    script = Script("doctor", (str(place / "scratch"), str(place / "home"), url, places, "git"))
    ran = run(script, env={"HOME": str(place / "home"), **env})
    assert ran.status == 0, ran.errors
    assert ran.answer is not None
    return {name: body.decode("utf-8", "replace") for name, body in ran.answer.sections}


def test_without_such_a_project_nothing_is_asked(tmp_path: Path) -> None:
    """No section, so no git and no ssh is started."""
    assert not {"git-remote", "places", "agent"} & set(ask(tmp_path, "", ""))


def test_a_remote_that_answers_and_places(tmp_path: Path) -> None:
    """What can be written to, and what is not there."""
    up = repository(tmp_path / "up", {"a": "1"})
    (tmp_path / "data x").mkdir()
    found = ask(tmp_path, str(up), f"{{home}}\n{tmp_path}/data x\n{tmp_path}/none\n-x")
    assert found["git-remote"].split() == ["0"]
    told = [f"home {tmp_path}/home", f"writable {tmp_path}/data x"]
    assert found["places"].strip().splitlines() == told


@pytest.mark.parametrize("url", ["--upload-pack=touch x", "/nowhere/x.git", "ext::sh -c true"])
def test_a_remote_that_does_not_answer_says_why(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's own words, and no URL is an option or a command."""
    monkeypatch.chdir(tmp_path)
    found = ask(tmp_path, url, "{home}")
    status, _, said = found["git-remote"].strip().partition("\n")
    assert status != "0"
    assert said.strip()
    assert not (tmp_path / "x").exists()


def test_ssh_is_asked_as_in_a_job(tmp_path: Path) -> None:
    """No question and no agent."""
    fake = '#!/bin/sh\necho "$* agent=${SSH_AUTH_SOCK-none}" >&2\nexit 255\n'
    write(tmp_path / "bin", {"ssh": fake}, executable=True)
    path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SSH_AUTH_SOCK": "/tmp/agent"}
    said = ask(tmp_path, "ssh://git@host/x.git", "{home}", **path)["git-remote"]
    for word in ("BatchMode=yes", "ForwardAgent=no", "ConnectTimeout=10", "agent=none"):
        assert word in said
