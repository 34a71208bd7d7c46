"""Which environment a run gets: what is declared, what is there, and whether to build."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace

from rvstate import archive, assets, command
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.environment.spec import (
    MANAGED,
    EnvironmentSpec,
    Surroundings,
    overlooked,
    spec,
)
from rvstate.model.layout import Account, Layout, Workspace
from rvstate.model.observed import Absent, ObservedState, Present
from rvstate.model.project import Project, Tree
from rvstate.model.settings import Environment
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.workflows.session import Session


@dataclass(frozen=True, slots=True)
class Chosen:
    """The environment of a run.

    Args:
        spec: What is declared; None where nothing is.
        generation: The generation that the job runs in, or None.
        ready: Whether nothing has to be built.
        notices: What the user should know.
    """

    spec: EnvironmentSpec | None
    generation: RemotePath | None = None
    ready: bool = True
    notices: tuple[str, ...] = ()


def declared(
    session: Session, asked: str, read: Callable[[str], str | None], tree: Tree
) -> EnvironmentSpec | None:
    """The environment that the project declares; its files must be among those that are sent.

    Args:
        session: Which account.
        asked: A kind or a path that goes over the settings, or empty.
        read: The text of a file below the project's root; None where there is none.
        tree: What is sent.

    Raises:
        ConfigError: The declaration is wrong.
        RefusedError: A file that it needs is not sent, or could change under a job.
    """
    settings, site = session.config.settings, session.config.site
    around = Surroundings(
        settings.modules.python or site.modules.python or "",
        settings.modules.compiler or site.modules.compiler or "",
        settings.modules.cuda or site.modules.cuda or "",
        site.compute_internet is not False,
    )

    def below(path: str) -> dict[str, str]:
        inside = "" if path == "." else f"{posixpath.normpath(path)}/"
        found = {
            f.path: f"{f.kind} {f.digest}"
            for f in tree.files
            if f.path == path or f.path.startswith(inside)
        }
        if not found:
            raise RefusedError(
                f"The environment needs {path}, and nothing of that name is sent.",
                "Add it to the project; an ignore rule may hold it back.",
            )
        return found

    found = spec(_wanted(settings.environment, asked), around, read, below, _also(session))
    if found is not None and found.inputs:
        sent = {file.path for file in tree.files}
        missing = [name for name in found.inputs if name not in sent]
        if missing:
            raise RefusedError(
                f"The environment needs {missing[0]}, and an ignore rule holds it back.",
                "Take it out of .gitignore or .rvignore.",
            )
    return found


def _also(session: Session) -> tuple[str, ...]:
    """What an environment gets that stages are to add packages to, by Ray's plugins."""
    if session.config.settings.pipeline.backend == "slurm":
        return ()
    from rvstate.rayplan import NEEDED

    return NEEDED


def place(session: Session, asked: str) -> RemotePath | None:
    """Where an environment that is only activated lies, as far as that is an absolute path.

    Args:
        session: Which account.
        asked: A kind or a path that goes over the settings, or empty.
    """
    path = _wanted(session.config.settings.environment, asked).path or ""
    return RemotePath(path) if path.startswith("/") else None


def doubts(
    session: Session,
    asked: str,
    found: EnvironmentSpec | None,
    read: Callable[[str], str | None],
    observed: ObservedState,
) -> tuple[str, ...]:
    """Why the job may not get the Python that is meant, in words."""
    if found is None:
        settings = _wanted(session.config.settings.environment, asked)
        text = overlooked(settings, read)
        return (f"the job has no environment of its own: {text}",) if text else ()
    where = place(session, asked)
    if where is not None and isinstance(observed.entry(where), Absent):
        return (f"there is nothing at {where} on the login node; is it the environment's path?",)
    return ()


def _wanted(settings: Environment, asked: str) -> Environment:
    if not asked:
        return settings
    if asked == "none" or asked in MANAGED:
        return replace(settings, kind=asked, path=None)
    return Environment(path=asked)


def choose(
    found: EnvironmentSpec | None,
    words: tuple[str, ...],
    layout: Layout,
    project: Project,
    workspace: Workspace,
    observed: ObservedState,
) -> Chosen:
    """What the job runs in.

    A command that starts Python gets the environment as it is declared now. A shell command gets
    the one that is there, as it is; where there is none, it is built, so that no job falls back to
    the system's Python.

    Args:
        found: What is declared.
        words: The command.
        layout: The account's paths.
        project: The project.
        workspace: The project's and branch's paths.
        observed: The look.

    Raises:
        ConfigError: Copies of it are to be kept where they would be purged.
        RefusedError: The environment is known to be damaged.
    """
    if found is None or not found.managed:
        return Chosen(found)
    backup(found, layout.account)
    # a name that no branch can have, for no component begins with a dot
    folder = layout.envs / project.name / ".generations" / project.branch_component
    stamp = observed.texts.get(workspace.environment / ".rvstate-environment", "")
    present = stamp.split("\n", 1)[0]
    python = observed.entry(workspace.environment / "bin" / "python")
    # an interpreter that a module brought goes when the module does
    runs = isinstance(python, Present) and "f" in (python.type, python.leads_to)
    walked = observed.texts.get(workspace.environment / ".rvstate" / "verified", "").split()
    if present and runs and walked[1:] == ["damaged"]:
        raise RefusedError(
            f"The environment {workspace.environment} lost files, as `rvstate verify` found.",
            "`rvstate converge` builds it again.",
        )
    if present == found.digest and runs:
        return Chosen(found, folder / found.digest)
    if present and runs and command.is_opaque(words):
        return Chosen(
            found,
            folder / present,
            notices=(
                "the requirements have changed since the environment was built, and a shell "
                "command gets it as it is; `rvstate run python ...` brings it up to date",
            ),
        )
    return Chosen(found, folder / found.digest, ready=False)


def backup(found: EnvironmentSpec, account: Account) -> str:
    """Where copies of the environment are kept; empty for nowhere.

    Args:
        found: What is declared.
        account: The account, as the look found it.

    Raises:
        ConfigError: It is on scratch.
    """
    if not found.backup:
        return ""
    text = found.backup.replace("{user}", account.user).replace("{home}", account.home)
    kept = RemotePath(text)
    if kept.is_below(account.scratch):
        raise ConfigError(
            f"environment.backup is {kept}, which is on scratch, where a purge would take it, too.",
            "Name a directory that nobody purges, or leave it out.",
        )
    return kept


def left_behind(
    session: Session, chosen: Chosen, workspace: Workspace, observed: ObservedState
) -> tuple[str, ...]:
    """What was installed by hand and a new generation would leave behind, in words.

    One remote command, and only where something is to be built in the place of what is there.
    """
    stamp = observed.texts.get(workspace.environment / ".rvstate-environment", "")
    if chosen.ready or not stamp or chosen.spec is None:
        return ()
    asked = Script("build_environment", ("added", workspace.environment), public=True)
    lines = session.transport.run(asked).body.decode("utf-8", "replace").splitlines()
    found = [line.removeprefix("added ") for line in lines if line.startswith("added ")]
    if not found:
        return ()
    return (
        "the requirements have changed, and the new environment will not have what was installed "
        f"by hand: {', '.join(found)}; add it to {', '.join(chosen.spec.sources)} to keep it",
    )


def payload(found: EnvironmentSpec) -> bytes:
    """What travels to the build: the recipe, the names of its files, the program that checks."""
    texts = {"recipe": found.text, "check.py": assets.program("check_environment")}
    return archive.bundle(texts, {"inputs": tuple(f"./{name}" for name in found.inputs)})
