"""A run of DVC: what was asked for, and where its job finds and leaves everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rvstate.paths import RemotePath


class Waiting(NamedTuple):
    """An experiment in DVC's queue on this machine.

    Args:
        name: Its name.
        baseline: The commit that it starts from.
        files: A commit of the files that it is to run with, parameters set.
        words: What it was queued with, beside names and parameters.
    """

    name: str
    baseline: str
    files: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for, beside what any run asks for.

    Args:
        mode: `snapshot`, with what is not committed, or `clone`, of the remote.
        pull: Whether data that is missing is fetched from the DVC remote first.
        live: Whether the Git remote itself is asked if it has the commit.
        queued: Experiments of DVC's own queue; empty for what stands in front of the user.
        gathered: A commit that leads to all of theirs, or empty.
    """

    mode: str = "snapshot"
    pull: bool = True
    live: bool = False
    queued: tuple[Waiting, ...] = ()
    gathered: str = ""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What the steps of `remote/dvc.sh` are told.

    Args:
        how: `snapshot`, `clone` in the job, `store`: cloned on the login node beforehand, or
            `queued`: what DVC's queue on the user's machine had.
        source: The account's bare repository, or the URL that is cloned.
        commit: The full hash.
        branch: Git's name, empty for a detached HEAD.
        remote: The name of the Git remote, empty where there is none.
        url: Its URL, without a password.
        prefix: Where in the repository the project is: empty, or ended by a slash.
        subdirectory: Where in the project the command runs.
        name: Who the commits of experiments are from.
        email: Their address.
        store: The account's bare repository, where experiments are kept until they are pushed.
        cache: DVC's cache, which jobs and projects share.
        links: How files get from it into a workspace, the first that works counts.
        near: The directory for workspaces; empty for the node's own.
        pull: `yes`, `no`, or `offline` where nodes reach neither remote.
        deleted: Tracked files, below the project's root, that were deleted and not committed.
        sources: Where below the project imports of its own package come from, or empty.
        extensions: Whether compiled extensions are built in the workspace first.
        place: Where the project's script made its environment, or is to; None without a script.
        script: That script, below the project's root.
        venv: The environment that it makes, below the project's root.
        queued: For each element of an array the commit to start from, the commit of its files, and
            what else it is given.
        warning: Seconds ahead of the end at which the job is warned; 0 for not at all.
    """

    how: str
    source: str
    commit: str
    branch: str
    remote: str
    url: str
    prefix: str
    subdirectory: str
    name: str
    email: str
    store: RemotePath
    cache: RemotePath
    links: tuple[str, ...]
    near: str = ""
    pull: str = "yes"
    deleted: tuple[str, ...] = ()
    sources: str = ""
    extensions: bool = False
    place: RemotePath | None = None
    script: str = ""
    venv: str = ""
    queued: tuple[tuple[str, ...], ...] = ()
    warning: int = 0


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository around a project, as it lies in front of the user.

    Args:
        commit: The full hash, or None before the first one.
        branch: Git's name, or None for a detached HEAD.
        prefix: As in `Experiment`.
        remote: As in `Experiment`.
        url: Its URL as git's configuration has it, or empty.
        name: The user's name for commits, or empty.
        email: Their address, or empty.
        unstaged: Tracked files that differ from the index.
        staged: Files whose index differs from the commit.
        untracked: Files that git does not know and no rule ignores.
        deleted: As in `Experiment`.
        pushed: Whether a branch of the remote is known to have the commit.
        shallow: Whether the history here is cut off.
        has_dvc: Whether there is a `.dvc` in or above the project.
        submodules: Where submodules are, below the repository's top.
        unpublished: Those whose commit no remote of theirs is known to have.
        pointers: Files whose contents git-LFS keeps elsewhere.
    """

    commit: str | None
    branch: str | None
    prefix: str
    remote: str
    url: str
    name: str
    email: str
    unstaged: tuple[str, ...]
    staged: tuple[str, ...]
    untracked: tuple[str, ...]
    deleted: tuple[str, ...]
    pushed: bool
    shallow: bool
    has_dvc: bool
    submodules: tuple[str, ...] = ()
    unpublished: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()
