"""The project in front of the user: root, identity, and the files to send (the git door)."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from rvstate.errors import ConfigError, RefusedError
from rvstate.model.project import File, Project, Tree
from rvstate.paths import component

_MARKERS = (
    "pyproject.toml",
    "requirements.txt",
    "rvstate.toml",
    "setup.py",
    "setup.cfg",
    ".git",
)


def find_root(start: Path) -> Path:
    """The project's root: the nearest directory upward that holds a marker of one.

    Args:
        start: Where to begin, a directory.

    Raises:
        RefusedError: That would be the home directory or above it, whose files must not travel.
    """
    home = Path.home().resolve()
    start = start.resolve()
    root = next((d for d in (start, *start.parents) if _holds_marker(d)), start)
    if root == home or root in home.parents:
        raise RefusedError(
            f"The project would be {root}, and everything in it would be sent.",
            "Stand in a project's own directory (with pyproject.toml, requirements.txt or .git).",
        )
    return root


def _holds_marker(directory: Path) -> bool:
    return any((directory / marker).exists() for marker in _MARKERS)


def inspect(start: Path) -> Project:
    """What is known of the project at `start`, a directory.

    Raises:
        RefusedError: As `find_root`.
    """
    root = find_root(start)
    subdirectory = start.resolve().relative_to(root).as_posix()
    subdirectory = "" if subdirectory == "." else subdirectory
    name = component(root.name)
    if not _git(root, "rev-parse", "--is-inside-work-tree", quiet=True):
        return Project(str(root), name, _identity_by_place(root), subdirectory=subdirectory)
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD", quiet=True).strip() or None
    branch = _git(root, "symbolic-ref", "--quiet", "--short", "HEAD", quiet=True).strip() or None
    dirty = bool(_git(root, "status", "--porcelain", "--", "."))
    return Project(
        str(root), name, _identity(root, commit), branch, commit, dirty, subdirectory
    )


def _identity(root: Path, commit: str | None) -> str:
    """Every clone of a repository has the same first commit."""
    if commit is None:
        return _identity_by_place(root)
    first = _git(root, "rev-list", "--max-parents=0", "HEAD").split()
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    return hashlib.sha256(f"{min(first)} {prefix}".encode()).hexdigest()[:32]


def _identity_by_place(root: Path) -> str:
    return hashlib.sha256(f"{platform.node()} {root}".encode()).hexdigest()[:32]


def tree(project: Project) -> Tree:
    """The files that would be sent, with digests of their contents.

    Tracked and untracked but not ignored; `.rvignore` keeps files back everywhere; outside git
    `.gitignore` and `.rvignore` both count.
    """
    root = Path(project.root)
    names = _listed(root) if project.commit or _has_git(root) else _walked(root)
    files = (_file(root, name) for name in sorted(set(names)))
    return Tree(tuple(file for file in files if file is not None))


def _has_git(root: Path) -> bool:
    return bool(_git(root, "rev-parse", "--is-inside-work-tree", quiet=True))


def _listed(root: Path) -> list[str]:
    tracked = _names(root, "ls-files", "-z", "--cached")
    untracked = _names(root, "ls-files", "-z", "--others", "--exclude-standard")
    kept_back: set[str] = set()
    if any(name.rsplit("/", 1)[-1] == ".rvignore" for name in (*tracked, *untracked)):
        rule = "--exclude-per-directory=.rvignore"
        kept_back.update(_names(root, "ls-files", "-z", "--cached", "--ignored", rule))
        kept_back.update(_names(root, "ls-files", "-z", "--others", "--ignored", rule))
    found = []
    for name in (*tracked, *untracked):
        path = root / name
        if name.endswith("/") or (path.is_dir() and not path.is_symlink()):
            # a submodule, or a repository of its own inside this one
            if (path / ".git").exists():
                found += [f"{name.rstrip('/')}/{inner}" for inner in _listed(path)]
        elif name not in kept_back:
            found.append(name)
    return found


def _walked(root: Path) -> list[str]:
    """Outside git, git itself applies the ignore rules, with an empty repository beside the tree."""
    with tempfile.TemporaryDirectory(prefix="rvstate-") as empty:
        _git(root, "init", "--quiet", "--bare", empty)
        outside = (f"--git-dir={empty}", f"--work-tree={root}")
        every = _names(root, *outside, "ls-files", "-z", "--others")
        kept_back: set[str] = set()
        for rules in (".gitignore", ".rvignore"):
            if any(name.rsplit("/", 1)[-1] == rules for name in every):
                rule = f"--exclude-per-directory={rules}"
                ignored = ("ls-files", "-z", "--others", "--ignored", rule)
                kept_back.update(_names(root, *outside, *ignored))
    return [name for name in every if name not in kept_back and not name.endswith("/")]


def _names(root: Path, *words: str) -> list[str]:
    return [name for name in _git(root, *words).split("\0") if name]


def _file(root: Path, name: str) -> File | None:
    """One entry, or None for what is gone (deleted, not yet staged) or is no file."""
    path = root / name
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return File(name, "l", os.fsencode(path.readlink()).hex(), 0)
    if not stat.S_ISREG(found.st_mode):
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(name, "x" if found.st_mode & 0o100 else "f", digest, found.st_size)


def _git(root: Path, *words: str, quiet: bool = False) -> str:
    """What git prints; nothing where it fails and `quiet`.

    Raises:
        ConfigError: git is missing or failed.
    """
    if shutil.which("git") is None:
        if quiet:
            return ""
        raise ConfigError("The program git is not on this machine.", "Install git.")
    # a user's own settings must not change what is printed
    env = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *words], cwd=root, env=env, capture_output=True, check=False)
    if done.returncode != 0:
        if quiet:
            return ""
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConfigError(f"git {words[0]} failed in {root}: {said}", "Mend the repository.")
    return done.stdout.decode("utf-8", "surrogateescape")
