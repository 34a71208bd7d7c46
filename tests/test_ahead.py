"""The question that is sent ahead: taken only if it is the very question that would be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvstate import ahead
from rvstate.script import Script
from rvstate.transport import Ssh

STUB = """#!/bin/sh
echo call >>"$SSH_CALLS"
for last; do :; done
eval "$last"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that runs its command here and counts its calls, and a state directory."""
    stub = tmp_path / "bin" / "ssh"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    home = tmp_path / "rv"
    home.mkdir()
    (home / "config.toml").write_text('[connection]\nhost = "rivanna"\n')
    monkeypatch.setenv("PATH", f"{stub.parent}:/usr/bin:/bin")
    monkeypatch.setenv("RVSTATE_HOME", str(home))
    monkeypatch.setenv("SSH_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def look(question: str, words: tuple[str, ...] = ("converge",)) -> tuple[bytes, int]:
    """One look as `converge` takes it: the answer's first section, and the commands counted."""
    ahead.send(words)
    transport = Ssh("rivanna")
    asked = Script("probe", ("/tmp", "", "tool", question), public=True)
    script, running = ahead.begin(transport, asked, hold=words[0] == "run")
    answer = transport.finish(script, running)
    return answer.first("tool 0").strip(), transport.commands


def count(calls: Path) -> int:
    """How often ssh ran."""
    return len(calls.read_text().splitlines())


def test_the_same_question_is_asked_once(calls: Path) -> None:
    """The second time it is on its way before it is worked out, and asked only once."""
    assert look("sh")[0].endswith(b"/sh")

    found, commands = look("sh")

    assert found.endswith(b"/sh")
    assert commands == 1
    assert count(calls) == 2


def test_another_question_is_never_answered_by_the_one_sent_ahead(calls: Path) -> None:
    """The answer that was sent for is dropped, and both commands are counted."""
    look("sh")

    found, commands = look("cat")

    assert found.endswith(b"/cat")
    assert commands == 2


def test_other_settings_mean_that_nothing_is_sent_ahead(calls: Path, tmp_path: Path) -> None:
    """After an edit of config.toml no former host is asked."""
    look("sh")
    with (tmp_path / "rv" / "config.toml").open("a") as file:
        file.write("# another line\n")

    _, commands = look("sh")

    assert commands == 1
    assert count(calls) == 2


def test_other_words_have_a_question_of_their_own(calls: Path) -> None:
    """`converge --only cache` does not send what `converge` asked."""
    look("sh")

    _, commands = look("sh", ("converge", "--only", "cache"))

    assert commands == 1


def test_every_job_of_a_project_asks_the_same(calls: Path) -> None:
    """What the job is asks nothing of the account, so the question of the last run serves."""
    look("sh", ("run", "--name", "a", "train.py"))

    found, commands = look("sh", ("run", "-g", "1", "--", "python", "eval.py"))

    assert found.endswith(b"/sh")
    assert commands == 1
    assert count(calls) == 2


@pytest.mark.parametrize("words", [("--cluster", "b"), ("--host=b",), ("--site", "uva")])
def test_a_run_of_another_account_asks_for_itself(calls: Path, words: tuple[str, ...]) -> None:
    """Options that name the account have a question of their own."""
    look("sh", ("run", "train.py"))

    look("sh", ("run", *words, "train.py"))

    assert len(list((calls.parent / "rv" / "state").glob("question-*"))) == 2


def test_a_run_of_another_project_asks_for_itself(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another directory may be another project."""
    look("sh", ("run", "train.py"))
    monkeypatch.chdir(tmp_path)

    look("sh", ("run", "train.py"))

    assert len(list((tmp_path / "rv" / "state").glob("question-*"))) == 2


def test_a_question_of_a_branch_is_not_taken_for_anothers(calls: Path) -> None:
    """In one directory, after a checkout: the answer sent for is dropped."""
    look("sh", ("run", "train.py"))

    found, commands = look("cat", ("run", "train.py"))

    assert found.endswith(b"/cat")
    assert commands == 2


def test_a_damaged_file_is_no_question(calls: Path, tmp_path: Path) -> None:
    """What is kept is only a hint."""
    look("sh")
    for kept in (tmp_path / "rv" / "state").glob("question-*"):
        kept.write_text("nonsense")

    found, commands = look("sh")

    assert found.endswith(b"/sh")
    assert commands >= 1


def test_the_kept_question_is_private(calls: Path, tmp_path: Path) -> None:
    """It names hosts and paths, so only its owner reads it."""
    look("sh")

    (kept,) = (tmp_path / "rv" / "state").glob("question-*")

    assert kept.stat().st_mode & 0o777 == 0o600
