"""The project in front of the user: root, identity, and the files to send (the git door)."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rvstate.errors import ConfigError, RefusedError
from rvstate.model.project import File, Project, Scan, Seen, Tree
from rvstate.paths import component

_MARKERS = (
    "pyproject.toml",
    "requirements.txt",
    "rvstate.toml",
    "setup.py",
    "setup.cfg",
    ".git",
)
# A file that changed so shortly before it was read may change again within one tick of its clock.
_RACY = 2_000_000_000  # nanoseconds
# git-lfs docs/spec.md: the first line of a pointer, and "less than 1024 bytes"
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = 1024
_SHOWN = 5


def find_root(start: Path) -> Path:
    """The project's root: the nearest directory upward that holds a marker of one.

    Args:
        start: Where to begin, a directory.

    Raises:
        RefusedError: That would be the home directory or above it, whose files must not travel.
    """
    home = Path.home().resolve()
    start = start.resolve()
    below = []
    for directory in (start, *start.parents):
        if directory == home or directory in home.parents:
            break
        below.append(directory)
    root = next((d for d in below if _holds_marker(d)), start)
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
    where = _git(root, "rev-parse", "--is-inside-work-tree", "--show-prefix", quiet=True)
    if not where.startswith("true"):
        return Project(str(root), name, _identity_by_place(root), subdirectory=subdirectory)
    prefix = where.partition("\n")[2].removesuffix("\n")
    status = _git(
        root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--", "."
    ).split("\0")
    heads = dict(line[2:].split(" ", 1) for line in status if line.startswith("# "))
    oid, head = heads.get("branch.oid", ""), heads.get("branch.head", "")
    commit = None if oid == "(initial)" else oid
    return Project(
        root=str(root),
        name=name,
        identity=_identity(root, commit, prefix),
        branch=None if head == "(detached)" else head,
        commit=commit,
        changed=tuple(_changed(status)),
        subdirectory=subdirectory,
        in_git=True,
    )


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
    found = _git(
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
    said = _git(
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


def _identity(root: Path, commit: str | None, prefix: str) -> str:
    """Every clone of a repository has the same first commit."""
    if commit is None:
        return _identity_by_place(root)
    first = _git(root, "rev-list", "--max-parents=0", "HEAD").split()
    return hashlib.sha256(f"{min(first)} {prefix}".encode("utf-8", "surrogateescape")).hexdigest()[
        :32
    ]


def _identity_by_place(root: Path) -> str:
    place = f"{platform.node()} {root}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(place).hexdigest()[:32]


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
    names = _listed(root, "", None, missing) if project.in_git else _walked(root)
    now = time.time_ns()
    files: list[File] = []
    kept: Seen = {}
    for name in sorted(set(names)):
        file = _file(project.root, name, seen, kept, now)
        if file is not None:
            files.append(file)
    found = Tree(tuple(files))
    return Scan(found, kept, tuple(_notices(project.root, found, missing)))


def _notices(root: str, found: Tree, missing: list[str]) -> Iterator[str]:
    if missing:
        yield (
            f"submodules that are not checked out are not sent: {_some(missing)} "
            "(git submodule update --init)"
        )
    if any(file.path.rsplit("/", 1)[-1] == ".gitattributes" for file in found.files):
        pointers = [f.path for f in found.files if f.size < _LFS_SIZE and _is_pointer(root, f)]
        if pointers:
            yield (
                f"only git-LFS pointers, not their contents, are here to be sent: "
                f"{_some(pointers)} (git lfs pull)"
            )


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


def _listed(root: Path, prefix: str, rules: str | None, missing: list[str]) -> list[str]:
    """The files of a repository.

    Args:
        root: Where git is asked.
        prefix: Where that is below the project's root, for messages.
        rules: The text of the `.rvignore` above it, made to fit, or None.
        missing: Submodules that are not checked out are added.
    """
    tracked, links = _tracked(root)
    untracked = _names(root, "ls-files", "-z", "--others", "--exclude-standard")
    own = any(name.rsplit("/", 1)[-1] == ".rvignore" for name in (*tracked, *untracked))
    kept_back: set[str] = set()
    if own or rules:
        with _rules_file(rules) as above:
            rule = (*above, "--exclude-per-directory=.rvignore")
            kept_back.update(_names(root, "ls-files", "-z", "--cached", "--ignored", *rule))
            kept_back.update(_names(root, "ls-files", "-z", "--others", "--ignored", *rule))
    found = []
    for name in (*tracked, *untracked):
        if name in kept_back:
            continue
        if name not in links and not name.endswith("/"):
            found.append(name)
            continue
        path = root / name
        # a submodule, or a repository of its own inside this one
        below = name.rstrip("/")
        if (path / ".git").exists():
            mine = path.parent / ".rvignore" if "/" not in below else root / ".rvignore"
            text = _rebased(_text(mine), below)
            inner = _listed(path, f"{prefix}{below}/", text, missing)
            found += [f"{below}/{file}" for file in inner]
        elif not name.endswith("/"):
            missing.append(prefix + below)
    return found


def _tracked(root: Path) -> tuple[list[str], set[str]]:
    """Tracked names, and which of them are other repositories (git-ls-files(1), --stage)."""
    entries = [entry.split("\t", 1) for entry in _names(root, "ls-files", "-z", "--stage")]
    links = {name for head, name in entries if head.startswith("160000 ")}
    return [name for _, name in entries], links


def _text(path: Path) -> str:
    return path.read_text("utf-8", "surrogateescape") if path.is_file() else ""


def _rebased(rules: str, below: str) -> str:
    """The rules of a `.rvignore` as they read one repository further down (gitignore(5))."""
    found = []
    for line in rules.splitlines():
        sign, pattern = ("!", line[1:]) if line.startswith("!") else ("", line)
        if not pattern.strip() or pattern.startswith("#"):
            continue
        if "/" not in pattern.rstrip("/") or pattern.startswith("**/"):
            found.append(sign + pattern)
        elif pattern.lstrip("/").startswith(f"{below}/"):
            found.append(f"{sign}/{pattern.lstrip('/')[len(below) + 1 :]}")
    return "".join(f"{line}\n" for line in found)


@contextmanager
def _rules_file(rules: str | None) -> Iterator[tuple[str, ...]]:
    if not rules:
        yield ()
        return
    with tempfile.NamedTemporaryFile("w", errors="surrogateescape", prefix="rvstate-") as file:
        file.write(rules)
        file.flush()
        yield (f"--exclude-from={file.name}",)


def _walked(root: Path) -> list[str]:
    """Outside git, git itself applies the ignore rules, with an empty repository beside it."""
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
    found = [name for name in every if name not in kept_back and not name.endswith("/")]
    for name in every:
        # a repository inside a project that is none: its own rules count in it
        if name.endswith("/") and name not in kept_back and (root / name / ".git").exists():
            text = _rebased(_text(root / ".rvignore"), name.rstrip("/"))
            found += [f"{name}{file}" for file in _listed(root / name, name, text, [])]
    return found


def export(project: Project, commit: str, directory: Path) -> bool:
    """Write the files of a commit, as they lie below the project's root, into an empty directory.

    Returns:
        Whether git has that commit.
    """
    root = Path(project.root)
    if not _git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", quiet=True):
        return False
    # in a subdirectory, git archive takes just that one, and names start below it
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit],
        cwd=root,
        env=_env(),
        capture_output=True,
        check=False,
    )
    if packed.returncode != 0:
        return False
    unpacked = subprocess.run(
        ["tar", "-xf", "-", "-C", str(directory)], input=packed.stdout, check=False
    )
    return unpacked.returncode == 0


def _names(root: Path, *words: str) -> list[str]:
    return [name for name in _git(root, *words).split("\0") if name]


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


def _env() -> dict[str, str]:
    # neither a user's language nor a hook's variables may change what is printed
    kept = {k: v for k, v in os.environ.items() if k not in _GIT_VARIABLES}
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


# Set while git runs a hook, they would point every question at that hook's repository (git(1)).
_GIT_VARIABLES: frozenset[str] = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}
)


def _git(root: Path, *words: str, quiet: bool = False) -> str:
    """What git prints; nothing where it fails and `quiet`.

    Raises:
        ConfigError: git is missing or failed.
    """
    try:
        # core.quotePath and the like do not matter: names are asked for with -z
        done = subprocess.run(
            ["git", *words], cwd=root, env=_env(), capture_output=True, check=False
        )
    except FileNotFoundError:
        if quiet:
            return ""
        raise ConfigError(
            "The program git is not on this machine.", "Install git, then run this again."
        ) from None
    if done.returncode != 0:
        if quiet:
            return ""
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConfigError(f"git {words[0]} failed in {root}: {said}", "Mend the repository.")
    return done.stdout.decode("utf-8", "surrogateescape")


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
