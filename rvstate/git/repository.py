"""What git knows of a project: its identity, branch, commit and version."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rvstate.git.call import ask
from rvstate.git.root import find_root
from rvstate.model import identity
from rvstate.model.project import Project
from rvstate.paths import component


def inspect(start: Path, firsts: dict[str, str] | None = None) -> Project:
    """What is known of the project at `start`, a directory.

    Args:
        start: Where the user stands.
        firsts: For each commit the first one of its line of history, where an earlier call found
            it; what this one finds is added.

    Raises:
        RefusedError: As `find_root`.
    """
    root = find_root(start)
    subdirectory = start.resolve().relative_to(root).as_posix()
    subdirectory = "" if subdirectory == "." else subdirectory
    name = component(root.name)
    place = identity.digest(f"{platform.node()} {root}")
    asked = ("--is-shallow-repository", "--is-inside-work-tree", "--show-prefix")
    shallow, inside, prefix = [*ask(root, "rev-parse", *asked, quiet=True).split("\n", 2), "", ""][
        :3
    ]
    if inside != "true":
        return Project(str(root), name, (place,), subdirectory=subdirectory)
    status = ask(
        root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--", "."
    ).split("\0")
    heads = dict(line[2:].split(" ", 1) for line in status if line.startswith("# "))
    oid, head = heads.get("branch.oid", ""), heads.get("branch.head", "")
    commit = None if oid == "(initial)" else oid
    first = None if shallow == "true" or commit is None else _first(root, commit, firsts)
    known = identity.identities(_urls(root), first, prefix.removesuffix("\n"))
    return Project(
        root=str(root),
        name=name,
        identities=known or (place,),
        formerly=(place,) if known else (),
        branch=None if head == "(detached)" else head,
        commit=commit,
        changed=tuple(_changed(status)),
        subdirectory=subdirectory,
        in_git=True,
    )


def branches(project: Project) -> tuple[str, ...]:
    """Every branch that the repository knows, its own and those of its remotes."""
    refs = ask(
        Path(project.root), "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes"
    )
    found = []
    for ref in refs.splitlines():
        _, kind, name = ref.split("/", 2)
        found.append(name if kind == "heads" else name.partition("/")[2])
    return (*found, *filter(None, (project.branch,)))


def _first(root: Path, commit: str, firsts: dict[str, str] | None) -> str:
    """The first commit of the line that leads to `commit`: merging another history changes none."""
    found = (firsts or {}).get(commit)
    if found is None:
        walk = ("rev-list", "--first-parent", "--max-parents=0", commit)
        found = ask(root, *walk).split()[0]
        if firsts is not None:
            firsts[commit] = found
    return found


def _urls(root: Path) -> tuple[str, ...]:
    """The URLs of the remote `origin`, or of all where none is called so."""
    rows = ask(root, "config", "-z", "--get-regexp", r"^remote\..*\.url$", quiet=True).split("\0")
    pairs = [row.split("\n", 1) for row in rows if "\n" in row]
    origin = tuple(url for key, url in pairs if key == "remote.origin.url")
    return origin or tuple(url for _, url in pairs)


def _changed(status: Sequence[str]) -> Iterator[str]:
    """The paths in `git status --porcelain=v2 -z` (git-status(1), "Changed Tracked Entries")."""
    lines = iter(status)
    for line in lines:
        kind = line[:2]
        if kind == "1 ":
            yield line.split(" ", 8)[8]
        elif kind == "2 ":
            yield line.split(" ", 9)[9]
            next(lines, None)  # the name that it had
        elif kind == "u ":
            yield line.split(" ", 10)[10]
        elif kind == "? ":
            yield line[2:]


def is_pushed(project: Project) -> bool:
    """Whether the commit is on some remote's branch, as far as this clone has heard."""
    found = ask(
        Path(project.root),
        *("for-each-ref", "--count=1", "--format=%(refname)"),
        *(f"--contains={project.commit or ''}", "refs/remotes"),
        quiet=True,
    )
    return project.commit is not None and bool(found)


def version(project: Project) -> str:
    """A version for the project's own package, from the last tag and the commit (PEP 440)."""
    if project.commit is None:
        return "0.0.0.dev0"
    said = ask(
        Path(project.root),
        *("describe", "--tags", "--long", "--match", "*[0-9]*", "HEAD"),
        quiet=True,
    ).strip()
    found = re.fullmatch(r"v?(\d+(?:\.\d+)*)-(\d+)-g[0-9a-f]+", said)
    base, distance = (found[1], int(found[2])) if found else ("0.0.0", 1)
    if distance == 0 and not project.dirty:
        return base
    local = f"g{project.commit[:10]}{'.dirty' if project.dirty else ''}"
    return f"{base}.post{distance}.dev0+{local}" if found else f"0.0.0.dev0+{local}"
