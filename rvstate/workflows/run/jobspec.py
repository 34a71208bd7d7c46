"""The values of a job: what its batch script is rendered from."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from rvstate import chain, command, git, notification, sweep
from rvstate import desired as desired_state
from rvstate.errors import ConfigError, RefusedError
from rvstate.holding import PATIENCE
from rvstate.model.environment.package import Package, uses_paths
from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.job import Array, Chain, JobSpec
from rvstate.model.launch import Launch
from rvstate.model.layout import Layout, Workspace
from rvstate.model.project import Project, Tree
from rvstate.model.site import Site
from rvstate.paths import RemotePath
from rvstate.slurm import duration, token
from rvstate.slurm.options import SbatchOptions, literal_path
from rvstate.workflows.run.order import Order
from rvstate.workflows.session import Session

# From here on a snapshot shares its files with others instead of copying them: 1,000 small copies
# take a second on a slow file system, and 64 MiB for each of thirty runs a day add up.
_LARGE_FILES = 1000
_LARGE_BYTES = 64 << 20


def job_spec(
    session: Session,
    order: Order,
    project: Project,
    tree: Tree,
    package: Package | None,
    layout: Layout,
    workspace: Workspace,
    environment: EnvironmentSpec | None,
    generation: RemotePath | None,
    asked_for: SbatchOptions,
    launch: Launch,
    run_id: str,
) -> JobSpec:
    """What the batch script says, from what was asked, the project and the site.

    Args:
        session: Which account.
        order: What the user asked for.
        project: The project in front of the user.
        tree: Its files.
        package: Its own package, where it is one.
        layout: The account's paths.
        workspace: The project's and branch's paths.
        environment: Its environment, or None.
        generation: The directory of it, where rvstate builds it.
        asked_for: What is asked of the scheduler.
        launch: How the command is started.
        run_id: Names the run.
    """
    settings, site = session.config.settings, session.config.site
    usual = command.NAME if order.dvc is None else command.EXPERIMENT_NAME
    name = order.name or command.named(
        settings.defaults.job_name or usual, order.words, project.name, project.branch_component
    )
    words = _command(order, layout, run_id)
    array = None
    if order.dvc is not None:
        array, words = _experiments(order, site, run_id)
    elif order.array or order.sweep:
        array = _array(order, site, package)
        words = sweep.command(words, array)
    segments = None
    if order.total_time or order.signal or order.retries is not None:
        segments = _chain(order, site, asked_for)
    log = literal_path(layout.logs) + ("/%x-%A_%a" if array else "/%x-%j")
    mail_type, mail_user = notification.mail_options(
        settings, site, order.request.mail_type, order.request.mail_user
    )
    options = replace(
        _for_launch(asked_for, launch),
        name=name,
        mail_type=mail_type,
        mail_user=mail_user,
        output=f"{log}.out",
        error=f"{log}.err",
        # a job that Slurm starts again goes on with its logs
        open_mode="append",
        comment=token.comment(run_id, asked_for.comment),
        export="NONE",
        array=array.parts[0][1] if array else "",
        # to the batch shell, which hands it to the user's programs; and Slurm may start it again
        signal=f"B:{segments.signal}@{segments.lead}" if segments else "",
        requeue=True if segments else None,
    )
    variables = {
        **desired_state.cache_variables(settings, layout),
        **_code_variables(project, package is not None),
    }
    if launch.fronted and launch.start and environment and environment.kind == "apptainer":
        raise RefusedError(
            "accelerate and deepspeed cannot be told about several nodes within a container.",
            "Start the program with torchrun, which reads the job's variables there, too.",
        )
    described = f"commit {project.commit or 'none'}{' (dirty)' if project.dirty else ''}"
    return JobSpec(
        run_id=run_id,
        options=options,
        rv=layout.rv,
        run_directory=layout.run(run_id),
        library=desired_state.script_set(layout).path,
        command=words,
        variables=tuple(sorted(variables.items())),
        variables_file=layout.env_file,
        modules=modules(session),
        environment=generation,
        activated=_activated(environment, workspace, name, run_id),
        snapshot=workspace.code if order.code else workspace.snapshot(name, run_id),
        subdirectory=project.subdirectory,
        sources=_sources(tree) if package is not None else "",
        read_only=_is_large(tree) and not order.writable and not order.code,
        extensions=package is not None and package.extensions,
        keep=order.keep,
        array=array,
        chain=segments,
        announce=notification.by_webhook(settings),
        start=launch.start,
        ranks=launch.ranks,
        fronted=launch.fronted,
        node_wait=duration.parse(settings.defaults.node_wait),
        note=f"project {project.name}, branch {project.branch or 'none'}, {described}",
    )


def modules(session: Session) -> tuple[str, ...]:
    """The environment modules that a job loads, in order."""
    said, site = session.config.settings.modules, session.config.site.modules
    found = (said.cuda or site.cuda, said.python or site.python, *said.extra)
    return tuple(name for name in found if name)


def _command(order: Order, layout: Layout, run_id: str) -> tuple[str, ...]:
    if not order.held:
        return command.resolve(order.words)
    script = desired_state.script_set(layout).path / "hold.sh"
    return ("sh", script, layout.run(run_id), str(PATIENCE), order.held)


def _chain(order: Order, site: Site, asked_for: SbatchOptions) -> Chain | None:
    """The segments that were asked for.

    Raises:
        ConfigError: What was asked for does not fit.
        RefusedError: Jobs need no segments here.
    """
    if site.scheduler == "process":
        raise RefusedError(
            "Jobs of this machine end when they are done, so there are no segments (--total-time).",
            "Leave out --time and --total-time, or run it on a cluster.",
        )
    return chain.chain(order.total_time, order.signal, order.retries, asked_for.time)


def _array(order: Order, site: Site, package: Package | None) -> Array:
    """The elements that were asked for.

    Raises:
        ConfigError: What was asked for means nothing.
        RefusedError: This site or project has no arrays.
    """
    _need_scheduler(site, "--array, --sweep")
    if package is not None and package.extensions:
        raise RefusedError(
            "Each job of this project compiles its extensions in its snapshot, and the elements "
            "of an array share one.",
            "Submit them one by one, or build a wheel and name it in requirements.txt.",
        )
    found = sweep.array(order.array, sweep.parse_sweep(order.sweep), site.max_array_size)
    assert found is not None
    return found


def _experiments(order: Order, site: Site, run_id: str) -> tuple[Array | None, tuple[str, ...]]:
    """The experiments of a run of DVC, where they are several, and the command.

    Each makes a workspace of its own, so whatever the project compiles is no obstacle.

    Raises:
        ConfigError: A sweep among DVC's arguments means nothing.
        RefusedError: This site has no arrays.
    """
    from rvstate import experiment, overrides  # only runs of DVC need them

    given = order.words[len(experiment.WORDS) :]
    queued = order.dvc.queued if order.dvc else ()
    if queued:
        # what each is given else, stands in a step of its own
        given = ("-n", "{experiment}")
        pairs: tuple[tuple[str, tuple[str, ...]], ...]
        pairs = (("experiment", tuple(one.name for one in queued)),)
    else:
        pairs = overrides.sweep(given)
    found = sweep.array(order.array, pairs, site.max_array_size)
    if found is None:
        return None, order.words
    _need_scheduler(site, "--array, -S NAME=A,B")
    if queued:
        return found, (*experiment.WORDS, *given)
    called = f"sweep-{run_id.rpartition('-')[2]}"
    return found, (*experiment.WORDS, *overrides.command(given, called))


def _need_scheduler(site: Site, options: str) -> None:
    if site.scheduler == "process":
        raise RefusedError(
            f"This machine has no scheduler for arrays ({options}).",
            "Run it on a cluster: `rvstate init` connects to one.",
        )


def _for_launch(asked_for: SbatchOptions, launch: Launch) -> SbatchOptions:
    """Tasks and CPUs as the start needs them.

    srun within a job of rvstate says itself how many programs share a node; the user's own srun
    and MPI go by what sbatch was asked for.
    """
    if not launch.start:
        return asked_for
    cpus = asked_for.cpus_per_task or launch.ranks
    if launch.start == "once" and cpus < launch.ranks:
        raise ConfigError(
            f"{launch.ranks} programs are started on each node, and the job has {cpus} CPUs there.",
            f"Ask for --cpus {launch.ranks} or more.",
        )
    if launch.start != "once":
        return replace(asked_for, ntasks_per_node=1, cpus_per_task=cpus)
    return replace(
        asked_for, ntasks_per_node=launch.ranks, cpus_per_task=max(1, cpus // launch.ranks)
    )


def _activated(
    environment: EnvironmentSpec | None,
    workspace: Workspace,
    name: str,
    run_id: str,
) -> tuple[str, ...]:
    """An environment that is only activated, with the places where a job looks for it.

    A path relative to the project's root is looked for in the job's snapshot, and then in the code
    as it was last sent: what was made over there by hand is in no snapshot.
    """
    if environment is None or environment.managed:
        return ()
    path = environment.path
    if path.startswith("/") or "/" not in path.rstrip("/"):
        return (environment.kind, path)
    inner = posixpath.normpath(path)
    if inner.startswith(".."):
        raise ConfigError(
            f"environment.path is {path}, which is outside the project.",
            "Write an absolute path on the cluster, or one below the project's root.",
        )
    return (
        environment.kind,
        workspace.snapshot(name, run_id) / inner,
        workspace.code / inner,
    )


def _code_variables(project: Project, packaged: bool) -> dict[str, str]:
    """What tools would ask git for: no .git travels."""
    if project.commit is None:
        return {}
    found = {
        "RV_COMMIT": project.commit,
        "RV_BRANCH": project.branch or "",
        "RV_DIRTY": "1" if project.dirty else "0",
        "WANDB_GIT_COMMIT": project.commit,
    }
    if packaged:
        found["SETUPTOOLS_SCM_PRETEND_VERSION"] = git.version(project)
    return found


def _sources(tree: Tree) -> str:
    """Where the project's own package is imported from, so that no job imports a newer one."""
    return "src" if uses_paths(file.path for file in tree.files) else "."


def _is_large(tree: Tree) -> bool:
    return len(tree.files) > _LARGE_FILES or tree.size > _LARGE_BYTES
