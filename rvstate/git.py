"""The project in front of the user: root, identity, and the files to send (the git door)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rvstate.errors import ConfigError, RefusedError
from rvstate.model import identity
from rvstate.model.project import File, Project, Scan, Seen, Tree, directories
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


def _check_unmarked(root: Path) -> None:
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
    shallow, inside, prefix = [*_git(root, "rev-parse", *asked, quiet=True).split("\n", 2), "", ""][
        :3
    ]
    if inside != "true":
        return Project(str(root), name, (place,), subdirectory=subdirectory)
    status = _git(
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
    refs = _git(
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
        found = _git(root, *walk).split()[0]
        if firsts is not None:
            firsts[commit] = found
    return found


def _urls(root: Path) -> tuple[str, ...]:
    """The URLs of the remote `origin`, or of all where none is called so."""
    rows = _git(root, "config", "-z", "--get-regexp", r"^remote\..*\.url$", quiet=True).split("\0")
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
    untracked = _names(root, "ls-files", "-z", "--others", "--exclude-standard")
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
    entries = [entry.split("\t", 1) for entry in _names(root, "ls-files", "-z", "--stage")]
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
        _git(Path(empty), "init", "--quiet", "--template=")
        for folder, rules in found.items():
            place = Path(empty, folder)
            place.mkdir(parents=True, exist_ok=True)
            (place / ".gitignore").write_bytes(rules)
        # a name that begins with a colon would be more than a name (gitglossary(7), pathspec)
        asked = "".join(f"./{name}\0" for name in names).encode("utf-8", "surrogateescape")
        rule = ("check-ignore", "--no-index", "-z", "--stdin")
        own = ("-c", f"core.excludesFile={os.devnull}")
        said = _git(Path(empty), *own, *rule, data=asked, none=1)
    return {name.removeprefix("./") for name in said.split("\0") if name}


def _walked(root: Path) -> list[str]:
    """Outside git, git itself applies the ignore rules, with an empty repository beside it."""
    _check_unmarked(root)
    import tempfile  # takes long to load

    with tempfile.TemporaryDirectory(prefix="rvstate-") as empty:
        _git(root, "init", "--quiet", "--bare", empty)
        outside = (f"--git-dir={empty}", f"--work-tree={root}")
        rule = "--exclude-per-directory=.gitignore"
        every = _names(root, *outside, "ls-files", "-z", "--others", rule)
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
    if not _git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", quiet=True):
        return None
    # in a subdirectory, git archive takes just that one, and names start below it
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit],
        cwd=root,
        env=_env(),
        capture_output=True,
        check=False,
    )
    directory.mkdir(parents=True, exist_ok=True)
    unpack = ["tar", "-xf", "-", "-C", str(directory)]
    if packed.returncode or subprocess.run(unpack, input=packed.stdout, check=False).returncode:
        return None
    found = []
    for entry in _names(root, "ls-tree", "-r", "-z", commit):
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


def ask(root: Path, *words: str, quiet: bool = False) -> str:
    """What git prints, asked at `root`; nothing where it fails and `quiet`.

    Raises:
        ConfigError: git is missing or failed.
    """
    return _git(root, *words, quiet=quiet)


def environment() -> dict[str, str]:
    """The variables that git is to have, so that it answers for the repository that is asked."""
    return _env()


def _env() -> dict[str, str]:
    # neither a user's language nor a hook's variables may change what is printed
    kept = {k: v for k, v in os.environ.items() if k not in _GIT_VARIABLES}
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


# Set while git runs a hook, they would point every question at that hook's repository (git(1)).
_GIT_VARIABLES: frozenset[str] = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}
)


def _git(root: Path, *words: str, quiet: bool = False, data: bytes = b"", none: int = 0) -> str:
    """What git prints; nothing where it fails and `quiet`.

    Args:
        root: Where it is asked.
        words: What it is asked.
        quiet: Whether a failure says nothing.
        data: Its standard input.
        none: The exit status that is no failure either.

    Raises:
        ConfigError: git is missing or failed.
    """
    try:
        # core.quotePath and the like do not matter: names are asked for with -z
        done = subprocess.run(
            ["git", *words], cwd=root, env=_env(), input=data, capture_output=True, check=False
        )
    except FileNotFoundError:
        if quiet:
            return ""
        raise ConfigError(
            "The program git is not on this machine.", "Install git, then run this again."
        ) from None
    if done.returncode not in (0, none):
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
