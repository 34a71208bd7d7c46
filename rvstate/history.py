"""The repository around a project, and its commits as what travels (part of the git door)."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rvstate import git
from rvstate.errors import ConfigError, ConvergeError, RefusedError
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
    modules = _submodules(Path(top))
    url = git.ask(root, "config", "--get", f"remote.{remote}.url", quiet=True).removesuffix("\n")
    who = git.ask(root, "var", "GIT_COMMITTER_IDENT", quiet=True)
    name, _, rest = who.partition(" <")
    deleted: tuple[str, ...] = ()
    pushed = False
    if project.commit is not None:
        deleted = deletions(project, project.commit)
        words = ("for-each-ref", "--count=1", f"--contains={project.commit}")
        pushed = bool(git.ask(root, *words, f"refs/remotes/{remote}/", quiet=True))
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
        submodules=tuple(modules),
        unpublished=tuple(
            name for name in modules if _is_unpublished(Path(top, name), modules[name])
        ),
        pointers=_pointers(Path(top)),
    )


def _submodules(top: Path) -> dict[str, str]:
    """Submodules, place to commit (git-ls-files(1), --stage)."""
    if not (top / ".gitmodules").is_file():
        return {}
    entries = git.names(top, "ls-files", "-z", "--stage")
    found = (entry.split("\t", 1) for entry in entries if entry.startswith("160000 "))
    return {name: head.split(" ")[1] for head, name in found}


def _is_unpublished(place: Path, commit: str) -> bool:
    """Whether no remote of a submodule is known to have a commit; one that is not here may."""
    if not (place / ".git").exists() or not known(place, (commit,)):
        return False
    words = ("for-each-ref", "--count=1", f"--contains={commit}", "refs/remotes/")
    return not git.ask(place, *words, quiet=True)


def _pointers(top: Path) -> tuple[str, ...]:
    """Files that git-LFS has the contents of (git-lfs-track(1): the attribute `filter=lfs`)."""
    if not _mentions_lfs(top):
        return ()
    said = git.ask(top, "ls-files", "-z", "--", ":(attr:filter=lfs)", quiet=True)
    return tuple(name for name in said.split("\0") if name)


def _mentions_lfs(top: Path) -> bool:
    names = git.ask(top, "ls-files", "-z", "--", ".gitattributes", "*/.gitattributes", quiet=True)
    return any(
        b"filter=lfs" in (top / name).read_bytes()
        for name in names.split("\0")
        if name and (top / name).is_file()
    )


def deletions(project: Project, commit: str) -> tuple[str, ...]:
    """Files of the commit that are not there any more, relative to the project's root."""
    words = ("diff", "-z", "--name-only", "--no-renames", "--relative", "--diff-filter=D")
    said = git.ask(Path(project.root), *words, "--ignore-submodules", commit, "--", ".")
    return tuple(name for name in said.split("\0") if name)


def has_commit(project: Project, remote: str, commit: str) -> bool:
    """Whether the remote, asked now, has the commit on a branch or under a tag.

    Raises:
        ConfigError: It does not answer.
    """
    root = Path(project.root)
    try:
        said = git.ask(root, "ls-remote", "--heads", "--tags", "--", remote)
    except ConfigError as error:
        raise ConfigError(
            f"Remote {remote} does not answer: {error.message.partition(': ')[2] or error.message}",
            "Try `git fetch`; without --check-remote what was fetched last counts.",
        ) from error
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
    wanted = "".join(f"{line}\n" for line in (commit, *(f"^{one}" for one in known(root, have))))
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


def experiments(root: Path) -> dict[str, str]:
    """DVC's experiments here, reference to commit."""
    said = git.ask(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps")
    pairs = (line.split(" ") for line in said.splitlines())
    return {name: commit for name, commit in pairs if is_experiment(name)}


def known(root: Path, commits: Iterable[str]) -> tuple[str, ...]:
    """Which of the commits are here."""
    return tuple(
        one
        for one in dict.fromkeys(commits)
        if git.ask(root, "cat-file", "-t", one, quiet=True).strip() == "commit"
    )


def take(root: Path, packed: Path, references: dict[str, str]) -> None:
    """Put commits into the repository, and then what names them; nothing that is there changes.

    Args:
        root: Where git is asked.
        packed: A file of what git packed, perhaps thin.
        references: Reference to commit; one that is here already keeps its commit.

    Raises:
        ConvergeError: They did not arrive whole.
    """
    with packed.open("rb") as file:
        words = ["git", "index-pack", "--stdin", "--fix-thin"]
        env = git.environment()
        done = subprocess.run(
            words, cwd=root, env=env, stdin=file, capture_output=True, check=False
        )
    if done.returncode != 0:
        raise ConvergeError("The commits did not arrive whole.", "Run the command again.")
    for name, commit in references.items():
        # nothing names what is not all here
        git.ask(root, "rev-list", "--objects", "--quiet", commit, "--not", "--all")
        # forty zeros: it must not be there
        git.ask(root, "update-ref", name, commit, "0" * len(commit))


def dvc(root: Path) -> str | None:
    """The program `dvc` of this machine: the project's own, or else the one on PATH."""
    own = root / ".venv" / "bin" / "dvc"
    return str(own) if own.is_file() else shutil.which("dvc")


def run_dvc(program: str, root: Path, *words: str) -> tuple[int, str]:
    """Run DVC in the project; its exit status, and what it said on both outputs."""
    done = subprocess.run(
        [program, *words],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def fetch(root: Path, remote: str, references: Iterable[str]) -> bool:
    """Fetch these references from the remote, under their own names; whether it had them all."""
    words = [f"{name}:{name}" for name in references]
    done = subprocess.run(
        ["git", "fetch", "--quiet", "--no-tags", remote, *words],
        cwd=root,
        env=git.environment() | {"GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def is_experiment(name: str) -> bool:
    """Whether a reference is an experiment of DVC's, and not one of its own marks."""
    return re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/\S+", name) is not None
