"""Runs of DVC: whether the repository allows one, and what its batch script says; pure."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit, urlunsplit

from rvstate.errors import ConfigError, RefusedError
from rvstate.model.experiment import Experiment, Repository
from rvstate.model.project import Tree
from rvstate.shell import quote

WORDS = ("dvc", "exp", "run")
# What decides the result of a project's own script, beside the script (packaging.python.org,
# pipenv, poetry, pdm, uv, conda).
_LOCKS = re.compile(
    r"(requirements[^/]*\.(txt|in)|constraints[^/]*\.txt|pyproject\.toml|setup\.(py|cfg)"
    r"|(poetry|uv|pdm|conda|pixi)[^/]*\.(lock|yml|yaml)|Pipfile(\.lock)?|environment[^/]*\.ya?ml"
    r"|\.python-version)"
)
# DVC's own names for how a file gets from its cache into a workspace (`dvc config cache.type`).
LINKS = ("reflink", "hardlink", "symlink", "copy")
_SHOWN = 5


def check(
    found: Repository, mode: str, *, offline: bool = False, queued: bool = False
) -> tuple[str, ...]:
    """Whether a run of DVC in that mode does what the user means.

    Args:
        found: The repository.
        mode: `snapshot` or `clone`.
        offline: Whether its node reaches no remote.
        queued: Whether it runs what DVC's queue here holds.

    Returns:
        What the user should know.

    Raises:
        RefusedError: It cannot, or would leave behind what lies in front of the user.
    """
    if found.commit is None:
        raise RefusedError(
            "DVC keeps experiments as commits, and this project has none to start from.",
            "`git init`, `dvc init`, and commit the project.",
        )
    if not found.has_dvc:
        raise RefusedError(
            "There is no .dvc in this project or above, so `dvc exp run` has nothing to run.",
            "`dvc init`, and commit what it makes.",
        )
    if mode == "snapshot":
        if found.shallow:
            raise RefusedError(
                "This clone is shallow, so its history cannot be sent.",
                "`git fetch --unshallow`, or use --mode clone.",
            )
        return _elsewhere(found, offline) if queued else ()
    if not found.url:
        raise RefusedError(
            f"--mode clone clones the Git remote {found.remote or 'origin'!r}, and the repository "
            "has none of that name.",
            "`git remote add` it, name another with `remote` in [dvc], or use --mode snapshot.",
        )
    _committed(found.unstaged, "changed and not staged", "Commit and push them")
    _committed(found.staged, "staged and not committed", "Commit and push them")
    if not found.pushed:
        raise RefusedError(
            f"Remote {found.remote} is not known to have commit {found.commit[:10]}"
            f"{f' of branch {found.branch}' if found.branch else ''}, which the job would clone.",
            f"`git push {found.remote} {found.branch or 'HEAD:BRANCH'}`, then run this again.",
        )
    if found.unpublished:
        raise RefusedError(
            "--mode clone runs what is pushed, and no remote is known to have the commit of "
            f"{_submodules(found.unpublished)}.",
            f"`git -C {quote(found.unpublished[0])} push`, then run this again, or use --mode "
            "snapshot, which sends the files.",
        )
    notices = _elsewhere(found, offline)
    if found.untracked:
        notices += (f"not in git, so not in the clone that the job gets: {_some(found.untracked)}",)
    return notices


def _elsewhere(found: Repository, offline: bool) -> tuple[str, ...]:
    """What the job itself has to fetch beside the commit, which the user should know.

    Raises:
        RefusedError: Its node reaches no remote.
    """
    lost = (
        _submodules(found.submodules) if found.submodules else "",
        f"the contents that git-LFS keeps of {_some(found.pointers)}" if found.pointers else "",
    )
    what = " and ".join(filter(None, lost))
    if not what:
        return ()
    if offline:
        raise RefusedError(
            f"Compute nodes of this site reach no remote, so the job cannot fetch {what}.",
            "Use --mode snapshot, and no queue: it sends the files that lie here.",
        )
    return (f"the job fetches {what} itself, with the account's own keys, and ends if it cannot",)


def _submodules(names: tuple[str, ...]) -> str:
    return f"submodule{'s' if len(names) > 1 else ''} {_some(names)}"


def _committed(names: tuple[str, ...], state: str, remedy: str) -> None:
    if names:
        raise RefusedError(
            f"--mode clone runs what is pushed, and these are {state}: {_some(names)}.",
            f"{remedy}, or stash them, or use --mode snapshot, which sends them along.",
        )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def public_url(url: str) -> str:
    """A remote's URL without what somebody could log in with.

    Args:
        url: As git's configuration has it: a URL, a path, or `host:path`.

    Raises:
        ConfigError: It holds a character that no URL has.
    """
    if any(not c.isprintable() for c in url):
        raise ConfigError(
            f"The URL of the Git remote holds an odd character: {url!r}.",
            "`git remote set-url` it.",
        )
    if "://" not in url:
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url
    # over ssh the user is the account's name; over http it may be a token itself
    kept = "" if parts.scheme in ("http", "https") else user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{kept}@{host}" if kept else host))


def script_digest(tree: Tree, script: str, around: tuple[str, ...]) -> str:
    """What names the environment that a project's own script makes.

    Args:
        tree: What is sent.
        script: The script, below the project's root.
        around: What else decides: modules, and the name of the environment.

    Raises:
        RefusedError: The script is not among what is sent.
    """
    files = {file.path: file for file in tree.files}
    if script not in files:
        raise RefusedError(
            f"`script` in [dvc] is {script}, and no such file is sent.",
            "Mend the setting; an ignore rule may hold the file back.",
        )
    total = hashlib.sha256("\0".join(around).encode())
    for path, file in files.items():
        if path == script or _LOCKS.fullmatch(path.rsplit("/", 1)[-1]):
            total.update(f"\0{path}\0{file.digest}".encode("utf-8", "surrogateescape"))
    return total.hexdigest()[:20]


def links(names: tuple[str, ...]) -> tuple[str, ...]:
    """The ways from the cache into a workspace, checked.

    Raises:
        ConfigError: One of them is no word of DVC's.
    """
    wrong = [name for name in names if name not in LINKS]
    if wrong or not names:
        raise ConfigError(
            f"`links` in [dvc] says {', '.join(wrong) or 'nothing'}.",
            f"Write some of {', '.join(LINKS)}, the best first.",
        )
    return names


def steps(found: Experiment, library: str) -> list[str]:
    """The lines of the batch script ahead of the last one."""
    lines = [
        f". {quote(library)}/dvc.sh || exit 1",
        _step(
            "rv_dvc_repository",
            *(found.how, found.source, found.commit, found.branch),
            *(found.remote, found.url, found.prefix, found.subdirectory),
        ),
        _step("rv_dvc_author", found.name, found.email),
        _step("rv_dvc_places", found.store, found.cache, ",".join(found.links), found.near),
    ]
    if found.sources:
        lines.append(_step("rv_dvc_package", found.sources, "yes" if found.extensions else ""))
    if found.place is not None:
        lines.append(_step("rv_dvc_environment", found.place, found.script, found.venv))
    for index, words in enumerate(found.queued):
        lines.append(_step("rv_dvc_queued", str(index), *words))
    if found.warning:
        lines.append(_step("rv_dvc_warning", str(found.warning)))
    return lines


def _step(name: str, *words: str) -> str:
    return " ".join((name, *map(quote, words)))
