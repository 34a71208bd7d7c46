"""A run of DVC: checked before any connection, and its part of the job."""

from __future__ import annotations

from dataclasses import replace

from rvstate import experiment, history, overrides
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.experiment import Asked, Experiment, Repository
from rvstate.model.job import JobSpec
from rvstate.model.layout import Layout
from rvstate.model.project import Project, Tree
from rvstate.paths import RemotePath
from rvstate.slurm import duration
from rvstate.transport import LOCAL
from rvstate.workflows.run.order import Order
from rvstate.workflows.session import Session

# Seconds ahead of the end, at most a tenth of the job where nothing is said; Slurm looks at the
# clock every 30 s or so.
_LEAD = 300
_LEAST_LEAD = 60


def checked(session: Session, order: Order, project: Project) -> tuple[Repository, tuple[str, ...]]:
    """The repository of a run of DVC, and what the user should know; nothing is sent.

    Raises:
        ConfigError: The Git remote does not answer, where it is to be asked.
        RefusedError: The run would not be what the user means.
    """
    assert order.dvc is not None
    # what cannot be is said before anything connects
    given = order.words[len(experiment.WORDS) :]
    overrides.sweep(given)
    found = history.repository(project, session.config.settings.dvc.remote)
    offline = session.config.site.compute_internet is False
    queued = bool(order.dvc.queued)
    notices = experiment.check(found, order.dvc.mode, offline=offline, queued=queued)
    if order.dvc.mode == "clone" and order.dvc.live:
        assert found.commit is not None
        if not history.has_commit(project, found.remote, found.commit):
            raise RefusedError(
                f"Remote {found.remote} does not have commit {found.commit[:10]} any more.",
                f"`git fetch {found.remote}` shows what became of its branches.",
            )
    if offline:
        notices += (
            "compute nodes of this site reach no remote: the login node fetches commit and data "
            "now, and pushes results when you say `rvstate dvc pull`",
        )
    if found.url.startswith(("/", "file:")) and _is_away(session):
        notices += (
            f"Git remote {found.remote} is a directory of this machine, {found.url}; jobs need it "
            "at the same place",
        )
    if not found.url:
        notices += (
            f"the repository has no Git remote {session.config.settings.dvc.remote!r}, so "
            "experiments are kept on the cluster; `rvstate dvc pull` brings them",
        )
    return found, notices


def _is_away(session: Session) -> bool:
    """Whether jobs run on other machines than this one."""
    return session.config.host != LOCAL


def fitted(
    session: Session,
    order: Order,
    spec: JobSpec,
    found: Repository,
    project: Project,
    tree: Tree,
    layout: Layout,
) -> JobSpec:
    """The job with DVC's part in it.

    Args:
        session: Which account.
        order: What the user asked for.
        spec: The job as any command would have it.
        found: The repository, checked.
        project: The project in front of the user.
        tree: Its files.
        layout: The account's paths.

    Raises:
        ConfigError: A setting is wrong.
    """
    asked, site = order.dvc, session.config.site
    assert asked is not None
    assert found.commit is not None
    settings = session.config.settings.dvc
    offline = site.compute_internet is False
    store = layout.repository(project.name)
    clone = asked.mode == "clone"
    url = experiment.public_url(found.url)
    lead = warning(settings.warning, spec.options.time)
    if site.scheduler == "process":
        lead = 0
    modules = session.config.settings.modules
    around = (modules.python or site.modules.python or "", settings.venv)
    made = Experiment(
        how="queued"
        if asked.queued
        else "snapshot"
        if not clone
        else "store"
        if offline
        else "clone",
        source=url if clone and not offline else store,
        commit=asked.gathered or found.commit,
        branch=found.branch or "",
        remote=found.remote,
        url=url,
        prefix=found.prefix,
        subdirectory=project.subdirectory,
        name=found.name or layout.account.user,
        email=found.email or f"{layout.account.user}@{layout.account.node or 'localhost'}",
        store=store,
        cache=(_path(settings.cache, layout, "cache") or layout.dvc_cache)
        / "projects"
        / project.name,
        links=experiment.links(settings.links),
        near=_path(settings.workspace, layout, "workspace") or "",
        pull="offline" if offline else "yes" if asked.pull else "no",
        deleted=found.deleted if not clone and not asked.queued else (),
        queued=tuple((one.baseline, one.files, *one.words) for one in asked.queued),
        sources=spec.sources,
        extensions=spec.extensions,
        place=layout.scripted(project.name, experiment.script_digest(tree, settings.script, around))
        if settings.script
        else None,
        script=settings.script or "",
        venv=settings.venv if settings.script else "",
        warning=lead,
    )
    return replace(
        spec,
        dvc=made,
        snapshot=None if clone or asked.queued else spec.snapshot,
        read_only=spec.read_only and not clone and not asked.queued,
        options=replace(spec.options, signal=f"B:USR1@{lead}" if lead else ""),
    )


def warning(said: str | None, walltime: int | None) -> int:
    """Seconds ahead of the end at which the job is warned; 0 where nobody knows its end.

    Raises:
        ConfigError: What is said does not fit.
    """
    lead = duration.parse(said) if said else None
    if said and (lead is None or lead < _LEAST_LEAD):
        raise ConfigError(
            f"`warning` in [dvc] is {said!r}.", f"Write {_LEAST_LEAD} seconds or more, as 5m."
        )
    if walltime is None:
        # of a job that is shorter Slurm would warn at its start
        return 0
    wanted = lead or max(_LEAST_LEAD, min(_LEAD, walltime // 10))
    return wanted if wanted * 2 <= walltime else 0


def _path(text: str | None, layout: Layout, key: str) -> RemotePath | None:
    if not text:
        return None
    who = layout.account
    found = text.replace("{user}", who.user).replace("{home}", who.home)
    if '"' in found or not found.startswith("/"):
        raise ConfigError(
            f"`{key}` in [dvc] is {text!r}.", "Write an absolute path on the cluster."
        )
    return RemotePath(found)


def asked_in(session: Session, mode: str | None, pull: bool | None, live: bool | None) -> Asked:
    """What the options say, over the settings."""
    settings = session.config.settings.dvc
    return Asked(
        mode or settings.mode,
        settings.pull if pull is None else pull,
        settings.check_remote if live is None else live,
    )
