"""The files of a project that would be sent, with digests of their contents."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rvstate.errors import ConfigError
from rvstate.git.call import ask, environment, names
from rvstate.git.root import check_unmarked
from rvstate.model.project import File, Project, Scan, Seen, Tree, directories

# A file that changed so shortly before it was read may change again within one tick of its clock.
_RACY = 2_000_000_000  # nanoseconds
# git-lfs docs/spec.md: the first line of a pointer, and "less than 1024 bytes"
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = 1024
_SHOWN = 5


def tree(project: Project) -> Tree:
    """The files that would be sent; see `scan`."""
    return scan(project, {}).tree


def scan(project: Project, seen: Seen) -> Scan:
    """The files that would be sent, with digests of their contents.

    Tracked and untracked but not ignored, those of submodules too; `.rvignore` keeps files back
    everywhere; outside git `.gitignore` and `.rvignore` both count.

    Args:
        project: As `inspect` found it.
        seen: What an earlier scan saw; a file that looks the same is not read again.
    """
    root = Path(project.root)
    missing: list[str] = []
    names = _listed(root, "", missing) if project.in_git else _walked(root)
    kept: Seen = {}
    found = Tree(tuple(_files(project.root, names, seen, kept)))
    return Scan(found, kept, tuple(_notices(project.root, found, missing)))


def _files(root: str, names: Sequence[str], seen: Seen, kept: Seen) -> Iterator[File]:
    """The named files but those that `.rvignore` keeps back, sorted; `kept` is for a next scan."""
    kept_back = _kept_back(Path(root), names)
    now = time.time_ns()
    for name in sorted(set(names) - kept_back):
        file = _file(root, name, seen, kept, now)
        if file is not None:
            yield file


def _notices(root: str, found: Tree, missing: list[str]) -> Iterator[str]:
    if missing:
        yield (
            f"submodules that are not checked out are not sent: {_some(missing)} "
            "(git submodule update --init)"
        )
    if _has_attributes(root, found):
        pointers = [f.path for f in found.files if f.size < _LFS_SIZE and _is_pointer(root, f)]
        if pointers:
            yield (
                f"only git-LFS pointers, not their contents, are here to be sent: "
                f"{_some(pointers)} (git lfs pull)"
            )


def _has_attributes(root: str, found: Tree) -> bool:
    """Whether git may keep files elsewhere: attributes in or above the tree."""
    if any(file.path.rsplit("/", 1)[-1] == ".gitattributes" for file in found.files):
        return True
    place = Path(root)
    while not (place / ".git").exists() and place != place.parent:
        place = place.parent
        if (place / ".gitattributes").exists():
            return True
    return False


def _is_pointer(root: str, file: File) -> bool:
    if file.kind == "l" or file.size <= len(_LFS):
        return False
    try:
        with open(os.path.join(root, file.path), "rb") as contents:  # noqa: PTH118, PTH123 - odd bytes
            return contents.read(len(_LFS)) == _LFS
    except OSError:
        return False  # gone meanwhile: sending it will say so


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _listed(root: Path, prefix: str, missing: list[str]) -> list[str]:
    """The files of a repository: tracked, and untracked but not ignored.

    Args:
        root: Where git is asked.
        prefix: Where that is below the project's root, for messages.
        missing: Submodules that are not checked out are added.
    """
    tracked, links = _tracked(root)
    untracked = names(root, "ls-files", "-z", "--others", "--exclude-standard")
    found = []
    for name in (*tracked, *untracked):
        if name not in links and not name.endswith("/"):
            found.append(name)
            continue
        # a submodule, or a repository of its own inside this one
        below = name.rstrip("/")
        if (root / name / ".git").exists():
            inner = _listed(root / name, f"{prefix}{below}/", missing)
            found += [f"{below}/{file}" for file in inner]
        elif not name.endswith("/"):
            missing.append(prefix + below)
    return found


def _tracked(root: Path) -> tuple[list[str], set[str]]:
    """Tracked names, and which of them are other repositories (git-ls-files(1), --stage)."""
    entries = [entry.split("\t", 1) for entry in names(root, "ls-files", "-z", "--stage")]
    links = {name for head, name in entries if head.startswith("160000 ")}
    return [name for _, name in entries], links


def _kept_back(root: Path, names: Sequence[str]) -> set[str]:
    """Which files the `.rvignore` files keep back, tracked ones too, by git's own rules.

    git is asked in an empty repository in which each of them is a `.gitignore` at its place, so the
    rules of all levels count together (gitignore(5)), across the borders of submodules too.
    """
    found: dict[str, bytes] = {}
    for folder in sorted({"", *directories(names)}):
        path = root / folder / ".rvignore"
        if path.is_file():
            found[folder] = path.read_bytes()
    if not found:
        return set()
    import tempfile  # takes long to load

    with tempfile.TemporaryDirectory(prefix="rvstate-") as empty:
        ask(Path(empty), "init", "--quiet", "--template=")
        for folder, rules in found.items():
            place = Path(empty, folder)
            place.mkdir(parents=True, exist_ok=True)
            (place / ".gitignore").write_bytes(rules)
        # a name that begins with a colon would be more than a name (gitglossary(7), pathspec)
        asked = "".join(f"./{name}\0" for name in names).encode("utf-8", "surrogateescape")
        rule = ("check-ignore", "--no-index", "-z", "--stdin")
        own = ("-c", f"core.excludesFile={os.devnull}")
        said = ask(Path(empty), *own, *rule, data=asked, none=1)
    return {name.removeprefix("./") for name in said.split("\0") if name}


def _walked(root: Path) -> list[str]:
    """Outside git, git itself applies the ignore rules, with an empty repository beside it."""
    check_unmarked(root)
    import tempfile  # takes long to load

    with tempfile.TemporaryDirectory(prefix="rvstate-") as empty:
        ask(root, "init", "--quiet", "--bare", empty)
        outside = (f"--git-dir={empty}", f"--work-tree={root}")
        rule = "--exclude-per-directory=.gitignore"
        every = names(root, *outside, "ls-files", "-z", "--others", rule)
    found = [name for name in every if not name.endswith("/")]
    for name in every:
        # a repository inside a project that is none: its own rules count in it
        if name.endswith("/") and (root / name / ".git").exists():
            found += [f"{name}{file}" for file in _listed(root / name, name, [])]
    return found


def export(project: Project, commit: str, directory: Path) -> Tree | None:
    """Write the files of a commit, as they lie below the project's root, into an empty directory.

    Submodules come as that commit has them, where they are checked out.

    Returns:
        What would be sent of them; None where git here does not have that commit.
    """
    names = _exported(Path(project.root), commit, directory)
    if names is None:
        return None
    return Tree(tuple(_files(str(directory), names, {}, {})))


def _exported(root: Path, commit: str, directory: Path) -> list[str] | None:
    if not ask(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", quiet=True):
        return None
    # in a subdirectory, git archive takes just that one, and names start below it
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit],
        cwd=root,
        env=environment(),
        capture_output=True,
        check=False,
    )
    directory.mkdir(parents=True, exist_ok=True)
    unpack = ["tar", "-xf", "-", "-C", str(directory)]
    if packed.returncode or subprocess.run(unpack, input=packed.stdout, check=False).returncode:
        return None
    found = []
    for entry in names(root, "ls-tree", "-r", "-z", commit):
        head, name = entry.split("\t", 1)
        _, kind, digest = head.split(" ")
        if kind != "commit":
            found.append(name)
        elif (root / name / ".git").exists():
            inner = _exported(root / name, digest, directory / name)
            if inner is None:
                return None
            found += [f"{name}/{file}" for file in inner]
    return found


def _file(root: str, name: str, seen: Seen, kept: Seen, now: int) -> File | None:
    """One entry, or None for what is gone (deleted, not yet staged) or is no file."""
    path = f"{root}/{name}"
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return File(name, "l", os.fsencode(os.readlink(path)).hex(), 0)  # noqa: PTH115 - odd bytes
        if not stat.S_ISREG(found.st_mode):
            return None
        look = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        known = seen.get(name)
        digest = known[4] if known is not None and known[:4] == look else _digest(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ConfigError(
            f"{path} would be sent and cannot be read.",
            "Make it readable, or name it in .gitignore or .rvignore.",
        ) from error
    if max(found.st_mtime_ns, found.st_ctime_ns) < now - _RACY:
        kept[name] = (*look, digest)
    return File(name, "x" if found.st_mode & 0o100 else "f", digest, found.st_size)


def _digest(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - twice as fast as through Path, for 20,000 files
        return hashlib.file_digest(file, "sha256").hexdigest()


def below(project: Project, words: Iterable[str]) -> tuple[str, ...]:
    """Which words name something that exists below the project's root, relative to the root.

    Args:
        project: As `inspect` found it.
        words: As typed, relative to where the user stands.
    """
    root = Path(project.root)
    found = []
    for word in words:
        path = Path(os.path.normpath(root / project.subdirectory / word))
        if word and path != root and root in path.parents and os.path.lexists(path):
            found.append(path.relative_to(root).as_posix())
    return tuple(dict.fromkeys(found))
