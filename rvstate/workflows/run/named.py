"""The script that the command names: whose project it is, and that it is among what is sent."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from rvstate import command, git
from rvstate.errors import RefusedError
from rvstate.model.project import Project, Tree
from rvstate.workflows.run.order import Order


def standing(here: Path, words: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The project of the script that the command names, where it is another than the user's.

    Args:
        here: Where the user stands, an absolute directory.
        words: The command as typed.

    Returns:
        `here` and `words` as they are where the script is the own project's, where there is none,
        and where the command is a line of shell, which only its user can change. Else the root of
        the script's project, and the command with the script's path from there.
    """
    script = command.certain_script(words)
    if script is None or script not in words or script.startswith("/"):
        return here, words
    path = Path(os.path.normpath(here / script))
    if not path.is_file():
        return here, words
    try:
        root = git.find_root(path.parent)
    except RefusedError:
        return here, words
    try:
        own = git.find_root(here)
    except RefusedError:
        own = None
    if own is not None and (root == own or (own in root.parents and git.is_marked(own))):
        return here, words
    if not git.is_marked(root):
        return here, words
    at = words.index(script)
    # `./` in front: its name may begin with what options begin with
    inner = (path.parent.resolve() / path.name).relative_to(root).as_posix()
    if inner.startswith("-"):
        inner = f"./{inner}"
    return root, (*words[:at], inner, *words[at + 1 :])


def check_script(order: Order, project: Project, tree: Tree) -> None:
    """Refuse a command whose script would not be in the job.

    An absolute path that does not begin in the project is one of the cluster, and is left alone.

    Args:
        order: What the user asked for.
        project: The project in front of the user.
        tree: What is sent of it.

    Raises:
        RefusedError: The script is not there, lies outside the project, or is kept back.
    """
    script = command.certain_script(order.words)
    if script is None or (script.startswith("/") and not script.startswith(f"{project.root}/")):
        return
    paths = {file.path for file in tree.files}
    here = Path(project.root) / project.subdirectory
    # what `..` leaves may be a link: the job goes the same way, so the names count
    path = Path(os.path.normpath(here / script))
    if script.startswith("/"):
        raise RefusedError(
            f"{script} is a path of this machine, and the job runs on the cluster.",
            f"Write {os.path.relpath(path, here)} instead: the job finds it in its snapshot.",
        )
    name = _below(path, project)
    if name in paths:
        inner = git.inner_project(project, path)
        if inner is None:
            return
        # a line of shell: what else in it is a path is not known here
        raise RefusedError(
            f"{script} belongs to the project {inner}, and you stand outside of it.",
            f"Stand in the project, so that its settings and environment count: cd {inner}.",
        )
    if not path.exists():
        raise RefusedError(
            f"There is no script {script} in {here}, so nothing was submitted.",
            _suggestion(name or script, project, paths),
        )
    if _below(path.resolve(), project) in paths:
        return
    if name is None or _below(path.resolve(), project) is None:
        raise RefusedError(
            f"{script} lies outside the project {project.root}, so it would not be in the job.",
            f"Stand in the project that holds it: cd {path.parent}.",
        )
    raise RefusedError(
        f"An ignore rule keeps {script} back, so it would not be in the job.",
        "Take it out of .gitignore or .rvignore (git check-ignore -v names the rule).",
    )


def _below(path: Path, project: Project) -> str | None:
    root = Path(project.root)
    return path.relative_to(root).as_posix() if root in path.parents else None


def _suggestion(name: str, project: Project, paths: set[str]) -> str:
    near = difflib.get_close_matches(name, paths, 1)
    same = sorted(path for path in paths if path.rpartition("/")[2] == name.rpartition("/")[2])
    found = same[0] if same else near[0] if near else None
    if found is None:
        return "Check the name; what is sent is named by `rvstate sync push --dry-run`."
    return f"Did you mean {os.path.relpath(found, project.subdirectory or '.')}?"
