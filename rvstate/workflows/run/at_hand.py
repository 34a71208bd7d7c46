"""The code of a past run on this machine: in front of the user, or in git."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rvstate import git
from rvstate.errors import RvstateError
from rvstate.model.project import Project, Tree
from rvstate.workflows.run.prepare import scanned
from rvstate.workflows.session import Session

# stands for the paths that a run's receipt does not name
UNNAMED = ("?",)


@dataclass(frozen=True, slots=True)
class Code:
    """The code of a past run, as it lies on this machine.

    Args:
        project: Where it lies; in all else as it was.
        tree: Its files.
        origin: The root of the project that it is of.
    """

    project: Project
    tree: Tree
    origin: str


@contextlib.contextmanager
def at_hand(session: Session, found: dict[str, Any], here: Path) -> Iterator[Code | None]:
    """The run's code as it lies in front of the user, or else as git has it; or None."""
    project = _project(session, found, here)
    if project is None:
        yield None
        return
    past = replace(
        project,
        branch=found.get("branch"),
        commit=found.get("commit"),
        changed=UNNAMED if found.get("dirty") else (),
        subdirectory=found["order"]["subdirectory"],
    )
    tree = None
    # what cannot be read is not at hand
    with contextlib.suppress(RvstateError, OSError):
        tree = scanned(session, project).tree
    if tree is not None and tree.state == found.get("tree"):
        yield Code(past, tree, project.root)
        return
    if found.get("dirty") or past.commit is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        exported = git.export(project, past.commit, Path(folder))
        if exported is None or exported.state != found.get("tree"):
            yield None
        else:
            yield Code(replace(past, root=folder, in_git=False), exported, project.root)


def _project(session: Session, found: dict[str, Any], here: Path) -> Project | None:
    """The project of a run on this machine: where it was, or where the user stands."""
    for place in (Path(str(found.get("root"))), here):
        with contextlib.suppress(RvstateError, OSError):
            project = git.inspect(place, session.state.firsts())
            if project.name == found.get("project"):
                return project
    return None
