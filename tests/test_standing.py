"""Whose project a command's script is of: found upward from the script, never from home."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvstate.workflows.run.named import standing
from tests.runkit import write


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two projects, one of them with a project of its own inside."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a", {"pyproject.toml": "", "train.py": "", "src/x.py": "", "-odd.py": ""})
    write(tmp_path / "a/inner", {"pyproject.toml": "", "train.py": ""})
    write(tmp_path / "b", {"requirements.txt": "", "train.py": ""})
    write(tmp_path / "loose", {"train.py": "", "c/pyproject.toml": "", "c/train.py": ""})
    return tmp_path


@pytest.mark.parametrize(
    ("here", "words", "where", "command"),
    [
        (".", "a/train.py --lr 1", "a", "train.py --lr 1"),
        (".", "python -u a/src/x.py a/train.py", "a", "python -u src/x.py a/train.py"),
        (".", "a/inner/../train.py", "a", "train.py"),
        (".", "a/-odd.py", "a", "./-odd.py"),
        ("b", "torchrun ../a/train.py", "a", "torchrun train.py"),
        ("loose", "c/train.py", "loose/c", "train.py"),
    ],
)
def test_a_script_of_another_project_runs_in_its_own(
    home: Path, here: str, words: str, where: str, command: str
) -> None:
    """Its root, and the path from there; other words are left alone."""
    found = standing(home / here, tuple(words.split()))
    assert found == (home / where, tuple(command.split()))


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ("a", "train.py"),
        ("a/src", "x.py"),
        ("a/src", "../train.py"),
        # a marked project is the user's own, with all that lies in it
        ("a", "inner/train.py"),
        ("loose", "train.py"),
        ("a", "../loose/train.py"),
        (".", "loose/train.py"),
        ("a", "nowhere.py"),
        (".", "echo a/train.py"),
        (".", "/a/train.py"),
    ],
)
def test_anything_else_is_left_to_the_checks(home: Path, here: str, words: str) -> None:
    """The user's own project, what nothing marks, what is not there, and what is no script."""
    given = tuple(words.split())
    assert standing(home / here, given) == (home / here, given)


def test_a_line_of_shell_is_its_users(home: Path) -> None:
    """Nobody else knows what in it is a path."""
    line = ("cd a && python train.py",)
    assert standing(home, line) == (home, line)
    assert standing(home, ("python a/train.py",)) == (home, ("python a/train.py",))
