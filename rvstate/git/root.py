"""Where a project begins, with or without git."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from rvstate.errors import RefusedError
from rvstate.model.project import Project

_MARKERS = (
    "pyproject.toml",
    "requirements.txt",
    "rvstate.toml",
    "setup.py",
    "setup.cfg",
    ".git",
)
# A directory that nothing marks as a project is sent only if it is as small as a few scripts are.
_UNMARKED_FILES = 200
_UNMARKED_BYTES = 20 << 20


def find_root(start: Path) -> Path:
    """The project's root: the nearest directory upward that holds a marker of one, or `start`.

    Args:
        start: Where to begin, a directory.

    Raises:
        RefusedError: That would be the home directory or above it, or a directory that everybody
            may write to, such as /tmp: what lies there must not travel.
    """
    home = Path.home().resolve()
    start = start.resolve()
    below = []
    for directory in (start, *start.parents):
        if directory == home or directory in home.parents or _is_shared(directory):
            break
        below.append(directory)
    root = next((d for d in below if is_marked(d)), start)
    if root not in below:
        raise RefusedError(
            f"The project would be {root}, and everything in it would be sent.",
            "Stand in a project's own directory (with pyproject.toml, requirements.txt or .git).",
        )
    return root


def inner_project(project: Project, path: Path) -> Path | None:
    """The root of a project below one that nothing marks, to which a path in it belongs; or None.

    Args:
        project: As `inspect` found it.
        path: A file below the project's root.
    """
    root = Path(project.root)
    if is_marked(root):
        return None
    return next((d for d in path.parents if root in d.parents and is_marked(d)), None)


def _is_shared(directory: Path) -> bool:
    """Whether everybody may put files there, as into /tmp, so that it is nobody's project."""
    return bool(directory.stat().st_mode & stat.S_ISVTX) or directory == directory.parent


def check_unmarked(root: Path) -> None:
    """Refuse a directory that nothing marks as a project and that holds more than a few scripts.

    It is walked only as far as it takes to know: it may be a whole disk.
    """
    if is_marked(root) or (root / ".rvignore").is_file():
        return
    count = size = 0
    for folder, names, files in os.walk(root):
        count += len(names) + len(files)
        for name in files:
            with contextlib.suppress(OSError):  # gone meanwhile, or not to be read: not counted
                size += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - odd bytes
        if count > _UNMARKED_FILES or size > _UNMARKED_BYTES:
            raise RefusedError(
                f"Nothing marks {root} as a project, and it holds more than a few scripts "
                f"({_UNMARKED_FILES} files, {_UNMARKED_BYTES >> 20} MiB), so nothing was sent.",
                "If it is one, say so with `git init`, or with a file .rvignore in it that names "
                "what stays behind (it may be empty); else stand in the project's own directory.",
            )


def is_marked(directory: Path) -> bool:
    """Whether a directory holds what marks the root of a project."""
    return any((directory / marker).exists() for marker in _MARKERS)
