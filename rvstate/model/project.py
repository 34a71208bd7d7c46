"""What is known of the project in front of the user."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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
        identity: The same for every clone of it, and no other project's.
        branch: Git's name, or None.
        commit: The full hash, or None outside git.
        dirty: Whether anything differs from the commit.
        subdirectory: Where the user stands, relative to the root; empty for the root.
    """

    root: str
    name: str
    identity: str
    branch: str | None = None
    commit: str | None = None
    dirty: bool = False
    subdirectory: str = ""

    @property
    def branch_component(self) -> str:
        """The branch's directory on the cluster."""
        return branch_component(self.branch, self.commit)


@dataclass(frozen=True, slots=True)
class Tree:
    """The files that would be sent, sorted by path."""

    files: tuple[File, ...]

    @property
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


@dataclass(frozen=True, slots=True)
class TreeChange:
    """What must be sent to turn one tree into another."""

    changed: tuple[File, ...]
    deleted: tuple[str, ...]


def difference(old: Tree, new: Tree) -> TreeChange:
    """The files of `new` that `old` lacks or has otherwise, and the paths that go."""
    known = {file.path: file for file in old.files}
    wanted = {file.path for file in new.files}
    return TreeChange(
        tuple(file for file in new.files if known.get(file.path) != file),
        tuple(path for path in known if path not in wanted),
    )
