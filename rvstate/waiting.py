"""DVC's own queue in the project on this machine, read by git (part of the git door).

`dvc exp run --queue` keeps each experiment as a commit that the log of refs/exps/celery/stash names
(dvc/repo/experiments/stash.py of DVC 3): the files with its parameters set, and how it was queued.
"""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rvstate import git
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.experiment import Waiting

_QUEUE = "refs/exps/celery/stash"
_SUBJECT = re.compile(r"(?:commit: )?dvc-exp:([0-9a-f]+):([0-9a-f]+):([^:]*)(?::.*)?")
# What `dvc exp run` keeps of its options, and how they are written again.
_FLAGS = {
    "force": "--force",
    "single_item": "--single-item",
    "pipeline": "--pipeline",
    "all_pipelines": "--all-pipelines",
    "recursive": "--recursive",
    "downstream": "--downstream",
    "force_downstream": "--force-downstream",
    "dry": "--dry",
}
_ERRORS = {"fail": (), "keep-going": ("--keep-going",), "ignore": ("--ignore-errors",)}
# What rvstate sees to, or what only says where it was queued.
_LEFT_OUT = {"targets", "on_error", "pull", "allow_missing", "run_env"}


class _Plain(pickle.Unpickler):
    """Reads plain values only: nothing is called, whatever the file says."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def waiting(root: Path) -> tuple[Waiting, ...]:
    """What DVC's queue here holds, the oldest first; nothing in the project changes.

    How an experiment was queued is read from its commit and left out of the files that travel, for
    it may hold a token.

    Raises:
        ConfigError: An entry cannot be read.
        RefusedError: One cannot be run elsewhere as it was queued.
    """
    found = []
    for commit, subject in _entries(root):
        match = _SUBJECT.fullmatch(subject)
        if match is None:
            raise ConfigError(
                f"DVC's queue holds something odd: {subject!r}.", "`dvc queue remove --queued`."
            )
        start, baseline, name = match.groups()
        if start != baseline:
            raise RefusedError(
                f"The queued experiment {name} goes on from another experiment.",
                "`dvc queue remove` it, and run it from a commit.",
            )
        path, data = _packed(root, commit)
        files = _without(root, commit, path, baseline)
        found.append(Waiting(name, baseline, files, words(name, data)))
    counted = Counter(one.name for one in found)
    twice = next((name for name, number in counted.items() if number > 1), "")
    if twice:
        raise RefusedError(
            f"Two queued experiments are called {twice!r}.", "`dvc queue remove` one of them."
        )
    return tuple(found)


def words(name: str, data: bytes) -> tuple[str, ...]:
    """How an experiment was queued, as arguments of `dvc exp run`.

    Args:
        name: What it is called.
        data: As DVC packed it.

    Raises:
        ConfigError: It cannot be read.
        RefusedError: It says something that rvstate does not know.
    """
    try:
        given = _Plain(io.BytesIO(data)).load()["kwargs"]
        found = [_FLAGS[key] for key in _FLAGS if given.get(key)]
        found += _ERRORS[given.get("on_error") or "fail"]
        targets = [str(target) for target in given.get("targets") or ()]
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"How the experiment {name} was queued cannot be read.",
            "`dvc queue remove` it, and queue it again with DVC 3.",
        ) from error
    odd = [k for k, value in given.items() if value and k not in _FLAGS and k not in _LEFT_OUT]
    if odd:
        raise RefusedError(
            f"The queued experiment {name} has an option that is not known to travel: "
            f"{', '.join(odd)}.",
            "`dvc queue remove` it, and give the option to `rvstate dvc run` instead.",
        )
    return (*found, *(("--", *targets) if targets else ()))


def _entries(root: Path) -> tuple[tuple[str, str], ...]:
    """The commits of DVC's queue here with what they are said to be, the oldest first."""
    words = ("reflog", "show", "--format=%H %gs", _QUEUE)
    said = git.ask(root, *words, quiet=True)
    pairs = (line.partition(" ") for line in reversed(said.splitlines()))
    return tuple((commit, subject) for commit, _, subject in pairs)


def _packed(root: Path, commit: str) -> tuple[str, bytes]:
    """Where in a commit of DVC's queue its arguments lie, and what they are.

    Raises:
        ConfigError: There are none.
    """
    names = git.ask(root, "ls-tree", "-r", "-z", "--full-tree", "--name-only", commit).split("\0")
    path = next((n for n in names if f"/{n}".endswith("/.dvc/tmp/repro.dat")), None)
    if path is None:
        raise ConfigError(
            f"The queued experiment of commit {commit[:10]} does not say how it was queued.",
            "`dvc queue remove` it, and queue it again.",
        )
    return path, _git(root, ("cat-file", "blob", f"{commit}:{path}"))


def _without(root: Path, commit: str, path: str, baseline: str) -> str:
    """A commit of the same files but one, on top of the baseline; nothing names it.

    It is the same commit each time.
    """
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        env = {"GIT_INDEX_FILE": f"{folder}/index"}
        _git(root, ("read-tree", commit), env)
        _git(root, ("update-index", "--force-remove", "--", path), env)
        tree = _git(root, ("write-tree",), env).decode().strip()
    return _commit(root, tree, (baseline,))


def gathered(root: Path, commits: Iterable[str]) -> str:
    """A commit that leads to all of these; nothing names it, and it is the same each time."""
    tree = _git(root, ("mktree",), given=b"").decode().strip()
    return _commit(root, tree, tuple(dict.fromkeys(commits)))


def _commit(root: Path, tree: str, parents: tuple[str, ...]) -> str:
    who = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "rvstate")
    who |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "rvstate@localhost")
    who |= dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "@0 +0000")
    words = ("commit-tree", tree, *(w for parent in parents for w in ("-p", parent)))
    return _git(root, words, who, b"queued experiments").decode().strip()


def _git(
    root: Path, words: tuple[str, ...], env: dict[str, str] | None = None, given: bytes = b""
) -> bytes:
    """What git says; it is given bytes, and more variables.

    Raises:
        ConfigError: It failed.
    """
    # paths in the index are those of the whole repository
    top = git.ask(root, "rev-parse", "--show-toplevel").removesuffix("\n")
    done = subprocess.run(
        ["git", *words],
        cwd=top,
        env=git.environment() | (env or {}),
        input=given,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConfigError(f"git {words[0]} failed: {said}", "`git fsck` says what is wrong.")
    return done.stdout
