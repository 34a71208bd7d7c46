"""What is known of the project in front of the user."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from rvstate.model.layout import branch_component


@dataclass(frozen=True, slots=True)
class File:
    """One file of the tree.

    Args:
        path: Relative to the project's root, POSIX, surrogateescape for odd bytes.
        kind: `f` file, `x` executable file, `l` link.
        digest: SHA-256 of the contents, or the link's text.
        size: Bytes.
    """

    path: str
    kind: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Project:
    """A project, as it lies in front of the user.

    Args:
        root: Absolute path on this machine.
        name: One path component.
        identities: What it is known by; every clone of it has one of them, and no other project.
        formerly: What it may have been known by before it had a commit or a remote.
        branch: Git's name, or None.
        commit: The full hash, or None outside git.
        changed: Paths that differ from the commit, untracked ones included.
        subdirectory: Where the user stands, relative to the root; empty for the root.
        in_git: Whether git knows the tree.
    """

    root: str
    name: str
    identities: tuple[str, ...]
    branch: str | None = None
    commit: str | None = None
    changed: tuple[str, ...] = ()
    subdirectory: str = ""
    in_git: bool = False
    formerly: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        """Whether anything differs from the commit."""
        return bool(self.changed)

    @property
    def branch_component(self) -> str:
        """The branch's directory on the cluster."""
        return branch_component(self.branch, self.commit)


@dataclass(frozen=True)
class Tree:
    """The files that would be sent, sorted by path."""

    files: tuple[File, ...]

    @cached_property
    def state(self) -> str:
        """One digest for all of it; equal exactly when nothing has to be sent."""
        total = hashlib.sha256()
        for file in self.files:
            record = f"{file.kind} {file.digest} {file.path}\0"
            total.update(record.encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)


class PastTree(Tree):
    """A tree of which nothing but its state is known here.

    Args:
        state: As `Tree.state` said it.
    """

    def __init__(self, state: str) -> None:
        super().__init__(())
        # in the place of what would be computed from the files
        self.__dict__["state"] = state


# What a file looked like when it was read: modification and change time (ns), bytes, inode, digest.
Seen = dict[str, tuple[int, int, int, int, str]]


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading of a tree.

    Args:
        tree: What would be sent.
        seen: For the next scan, so that it need not read what has not changed.
        notices: What the user should know of it, in words.
    """

    tree: Tree
    seen: Seen
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeChange:
    """What must be sent to turn one tree into another.

    Args:
        changed: Files to send.
        deleted: Paths to remove.
        emptied: Directories that hold nothing any more, the deepest first.
        same_paths: Whether both trees have the same paths.
    """

    changed: tuple[File, ...]
    deleted: tuple[str, ...]
    emptied: tuple[str, ...]
    same_paths: bool


def directories(paths: Iterable[str]) -> set[str]:
    """Every directory above one of the paths, but the root itself."""
    found: set[str] = set()
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in found:
                break
            found.add(path)
    return found


def difference(old: Tree, new: Tree) -> TreeChange:
    """The files of `new` that `old` lacks or has otherwise, and the paths that go."""
    known = {file.path: file for file in old.files}
    wanted = {file.path for file in new.files}
    deleted = tuple(path for path in known if path not in wanted)
    emptied = directories(deleted) - directories(wanted) if deleted else set()
    return TreeChange(
        tuple(file for file in new.files if known.get(file.path) != file),
        deleted,
        tuple(sorted(emptied, key=lambda path: (-path.count("/"), path))),
        known.keys() == wanted,
    )
