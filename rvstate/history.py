"""The repository around a project, and its commits as what travels (part of the git door)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rvstate import git
from rvstate.errors import RefusedError
from rvstate.model.experiment import Repository
from rvstate.model.project import Project
from rvstate.script import Spool

_CHUNK = 1 << 20  # bytes


def repository(project: Project, remote: str) -> Repository:
    """What DVC needs to know of the repository.

    Args:
        project: As `git.inspect` found it.
        remote: The name of the remote that experiments are pushed to.
    """
    root = Path(project.root)
    if not project.in_git:
        return Repository(None, None, *("",) * 5, *((),) * 4, *(False,) * 3)
    asked = ("--show-toplevel", "--show-prefix", "--is-shallow-repository")
    top, prefix, shallow = git.ask(root, "rev-parse", *asked).split("\n")[:3]
    unstaged, staged, untracked = _differences(Path(top))
    url = git.ask(root, "config", "--get", f"remote.{remote}.url", quiet=True).removesuffix("\n")
    who = git.ask(root, "var", "GIT_COMMITTER_IDENT", quiet=True)
    name, _, rest = who.partition(" <")
    deleted: tuple[str, ...] = ()
    pushed = False
    if project.commit is not None:
        deleted = deletions(project, project.commit)
        known = ("for-each-ref", "--count=1", f"--contains={project.commit}")
        pushed = bool(git.ask(root, *known, f"refs/remotes/{remote}/", quiet=True))
    return Repository(
        commit=project.commit,
        branch=project.branch,
        prefix=prefix,
        remote=remote if url else "",
        url=_absolute(url, Path(top)),
        name=name,
        email=rest.partition(">")[0],
        unstaged=unstaged,
        staged=staged,
        untracked=untracked,
        deleted=deleted,
        pushed=pushed,
        shallow=shallow == "true",
        has_dvc=_has_dvc(root, Path(top)),
    )


def deletions(project: Project, commit: str) -> tuple[str, ...]:
    """Files of the commit that are not there any more, relative to the project's root."""
    words = ("diff", "-z", "--name-only", "--no-renames", "--relative", "--diff-filter=D")
    said = git.ask(Path(project.root), *words, "--ignore-submodules", commit, "--", ".")
    return tuple(name for name in said.split("\0") if name)


def has_commit(project: Project, url: str, commit: str) -> bool:
    """Whether the remote, asked now, has the commit on a branch or under a tag.

    Raises:
        ConfigError: It does not answer.
    """
    root = Path(project.root)
    said = git.ask(root, "ls-remote", "--heads", "--tags", "--", url)
    tips = {line.split("\t")[0] for line in said.splitlines()}
    # one whose tip is known here leads there, or not
    return commit in tips or any(
        git.ask(root, "rev-list", "--count", f"{tip}..{commit}", quiet=True).strip() == "0"
        for tip in tips
    )


def pack(
    root: Path, commit: str, have: Iterable[str], sent: Callable[[int, int], None] | None = None
) -> Spool:
    """A commit and all that leads to it, as git packs it.

    Args:
        root: Where git is asked.
        commit: The full hash.
        have: Commits that the other side has; those that are not here say nothing.
        sent: As in `Spool`.

    Raises:
        RefusedError: Something of it is missing here.
    """
    known = [
        one for one in have if git.ask(root, "cat-file", "-t", one, quiet=True).strip() == "commit"
    ]
    wanted = "".join(f"{line}\n" for line in (commit, *(f"^{one}" for one in known)))
    words = ("pack-objects", "--revs", "--thin", "--stdout", "-q", "--delta-base-offset")
    file = tempfile.TemporaryFile(prefix="rvstate-")  # noqa: SIM115 - handed on
    done = subprocess.run(
        ["git", *words],
        cwd=root,
        env=git.environment(),
        input=wanted.encode(),
        stdout=file,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise RefusedError(
            f"The commits that lead to {commit[:10]} cannot be read: {said}",
            "`git fsck` says what is missing; `git fetch --refetch` may bring it.",
        )
    return Spool(file, file.seek(0, 2), sent)


def _differences(top: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Paths whose files differ from the index, whose index differs, and untracked ones.

    git-status(1), "Porcelain Format Version 2": XY are the index's and the file's state.
    """
    words = ("status", "--porcelain=v2", "-z", "--untracked-files=normal")
    lines = iter(git.ask(top, *words).split("\0"))
    unstaged, staged, untracked = [], [], []
    for line in lines:
        kind = line[:2]
        if kind == "? ":
            untracked.append(line[2:])
            continue
        if kind not in ("1 ", "2 ", "u "):
            continue
        path = line.split(" ", {"1 ": 8, "2 ": 9, "u ": 10}[kind])[-1]
        if kind == "2 ":
            next(lines, None)  # the name that it had
        if line[2] != ".":
            staged.append(path)
        if line[3] != ".":
            unstaged.append(path)
    return tuple(unstaged), tuple(staged), tuple(untracked)


def _absolute(url: str, top: Path) -> str:
    """A remote that is a directory of this machine, from / on."""
    if not url or "://" in url or (":" in url.split("/")[0]):
        return url
    return str((top / url).resolve())


def _has_dvc(root: Path, top: Path) -> bool:
    above = (root, *root.parents)
    return any((d / ".dvc").is_dir() for d in above if d == top or top in d.parents)
