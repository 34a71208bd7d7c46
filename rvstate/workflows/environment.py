"""A project's environment as it is on the account."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rvstate import git
from rvstate.errors import ConfigError
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.script import Script
from rvstate.workflows import jobs
from rvstate.workflows.session import Session


@dataclass(frozen=True, slots=True)
class ShownLayer:
    """A layer of the branch's environment, for stages of a pipeline.

    Args:
        place: Its directory.
        base: The key of the generation that it was laid over.
        installer: What installed its packages.
        lines: What it adds, as a requirements file has it.
        size: Files, bytes, and bytes that it shares with nothing; None where nobody counted.
    """

    place: str
    base: str
    installer: str
    lines: tuple[str, ...]
    size: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of an environment.

    Args:
        project: The project's name.
        branch: The branch's directory.
        place: The generation's directory.
        python: What its Python says of itself.
        recipe: What it was built from, key and value.
        packages: NAME==VERSION of what is in it now.
        added: Those that were installed by hand.
        gone: Those that were removed by hand.
        deferred: Those that the first job builds.
        size: Files, bytes, and bytes that it shares with nothing; None where nobody counted.
        jobs: Jobs that wait or run in it, submitted from this machine.
        modules: Environment modules that its jobs load.
        layers: Layers of the branch, also of earlier generations.
    """

    project: str
    branch: str
    place: str
    python: str
    recipe: tuple[tuple[str, str], ...]
    packages: tuple[str, ...]
    added: tuple[str, ...]
    gone: tuple[str, ...]
    deferred: tuple[str, ...]
    size: tuple[int, int, int] | None
    jobs: tuple[str, ...]
    modules: tuple[str, ...]
    layers: tuple[ShownLayer, ...] = ()


def show(session: Session, here: Path, *, with_jobs: bool = True) -> Shown:
    """Look at the environment of the project in front of the user; two remote commands.

    Args:
        session: Which account.
        here: Where the user stands.
        with_jobs: Whether to ask which jobs use it, too.

    Raises:
        ConfigError: There is none yet.
    """
    project = git.inspect(here)
    link = Layout(SYMBOLIC).workspace(project.name, project.branch_component).environment
    answer = session.transport.run(
        Script("show_environment", (session.scratch, session.home, link), public=True)
    )

    def lines(name: str) -> tuple[str, ...]:
        return tuple(answer.first(name).decode("utf-8", "replace").split("\n")[:-1])

    place = next((line for line in lines("place") if line), "")
    if not place:
        raise ConfigError(
            f"{project.name} has no environment for {project.branch_component} yet.",
            "The next `rvstate run` of a Python command builds it.",
        )
    stamp, installed, now = lines("stamp"), set(lines("installed")), set(lines("now"))
    sizes = [int(word) for word in " ".join(lines("size")).split()]
    recipe = tuple((key, value) for key, _, value in (x.partition(" ") for x in lines("recipe")))
    settings, site = session.config.settings, session.config.site
    modules = (
        settings.modules.cuda or site.modules.cuda,
        settings.modules.python or site.modules.python,
        *settings.modules.extra,
    )
    return Shown(
        project=project.name,
        branch=project.branch_component,
        place=place,
        python=next((line for line in stamp if line.startswith("Python")), ""),
        recipe=recipe,
        packages=tuple(sorted(now - {""})),
        added=tuple(sorted(now - installed - {""})) if installed - {""} else (),
        gone=tuple(sorted(installed - now - {""})),
        deferred=tuple(x for x in lines("deferred") if x),
        size=(sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None,
        jobs=_users(session, place) if with_jobs else (),
        modules=tuple(m for m in modules if m),
        layers=tuple(
            _layer(body.decode("utf-8", "surrogateescape")) for body in answer.all("layer")
        ),
    )


def _layer(text: str) -> ShownLayer:
    place, size, *recipe = text.split("\n")
    pairs = [(key, value) for key, _, value in (line.partition(" ") for line in recipe)]
    sizes = tuple(int(word) for word in size.split() if word.isdigit())
    return ShownLayer(
        place,
        next((value for key, value in pairs if key == "base"), ""),
        next((value for key, value in pairs if key == "installer"), ""),
        tuple(value for key, value in pairs if key == "line"),
        (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None,
    )


def _users(session: Session, place: str) -> tuple[str, ...]:
    mine = {
        str(receipt.get("run_id"))
        for receipt in session.state.receipts()
        if receipt.get("environment") == place
    }
    if not mine:
        return ()
    return tuple(
        f"{run.job} {run.name}"
        for run in jobs.runs(session)
        if run.run_id in mine and run.job and not run.is_over
    )
